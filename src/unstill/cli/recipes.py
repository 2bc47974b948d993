"""The papers' experiments behind `unstill compare --recipe`: those that are no comparison of settings, and what all of
them write into the documentation."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer


if TYPE_CHECKING:
    from unstill.lab.compare import Comparison
    from unstill.lab.recipes import Recipe
    from unstill.lab.summary import Row


def leak(
    model: str,
    count: int,
    seed: int,
    out: Path,
    docs: Path | None,
    device: str | None,
    offload: bool,
    as_json: bool,
) -> None:
    """`unstill diagnose` into `out`, and its words about the paper into `docs`."""
    from unstill.cli.diagnose import examine
    from unstill.cli.processes import rank_and_count
    from unstill.lab import leak_recipe
    from unstill.lab.diagnosis_report import columns, rows, verdict
    from unstill.lab.recipe_docs import write_recipe
    from unstill.lab.recipes import ELSEWHERE

    found = examine(
        model,
        out=out / "report.html",
        count=count,
        response=count,
        seed=seed,
        device=device,
        offload=offload,
        quiet=as_json,
        processes=rank_and_count(),
    )
    if found is None:
        return
    findings = leak_recipe.findings(found.diagnosis, found.response)
    if as_json:
        typer.echo(json.dumps({**found.result, "findings": [one.as_dict() for one in findings]}, indent=2))
    else:
        for one in findings:
            typer.echo(f"{one.verdict}: {one.claim} {one.evidence}")
        typer.echo(f"Wrote {out / 'report.html'} and {out / 'report.json'}.")
    if docs is not None:
        write_recipe(
            docs,
            "leak",
            title=_heading(ELSEWHERE["leak"]),
            made_of=f"{model}, {count} rendered clips; {count} videos per requested motion",
            command=_command("leak", count, seed),
            findings=findings,
            columns=columns(found.diagnosis),
            rows=rows(found.diagnosis),
            figures=leak_recipe.figures(found.diagnosis, found.response),
            words=verdict(found.diagnosis),
            versions=found.result["versions"],
        )
        _said(docs, "leak", as_json)


def time_noise(out: Path, docs: Path | None) -> None:
    """The distribution of TimeNoise, by its formulas, as a page; into `docs` as well."""
    from unstill.lab import time_noise as drawn
    from unstill.lab.comparison_plots import Drawn
    from unstill.lab.page import Page
    from unstill.lab.recipe_docs import write_recipe
    from unstill.lab.recipes import ELSEWHERE, TRAINED

    figures = [
        Drawn(
            "density",
            "How strong the noise on the image is",
            "Density of the level in training, by the time t of the clip; a = 5. At t = 1, pure noise, most images "
            "are noised to more than half of beta_m.",
            *drawn.density_plot(),
        ),
        Drawn(
            "centre",
            "Its centre over time",
            "mu(t) = 2 t^a - 1. The larger a, the later the noise grows; the paper's a is 5.",
            *drawn.centre_plot(),
        ),
        Drawn(
            "trainings",
            "What that is in the authors' trainings",
            "Median level against the rank of a clip's noise. The released code for SVD draws ln sigma ~ N(-1.2, 1.2) "
            "and takes t = sigma / 700, which is nearly 0 for every clip: its level does not depend on the noise.",
            *drawn.trainings_plot(),
        ),
    ]
    columns, rows = drawn.trainings_table()
    page = Page("TimeNoise", ELSEWHERE["time-noise"])
    for one in figures:
        page.heading(one.title)
        page.legend(one.legend)
        page.plots([("", one.about, one.svg)])
    page.heading("Medians of beta, in units of the image latents")
    page.table(columns, rows)
    page.note(TRAINED)
    out.mkdir(parents=True, exist_ok=True)
    page.save(out / "report.html")
    typer.echo(TRAINED)
    typer.echo(f"Wrote {out / 'report.html'}.")
    if docs is not None:
        file = docs / "methods" / "time_noise_measured.json"  # where the benchmark writes
        made_of, trained, page_of = "the distribution by its formulas, without a model", [], []
        if file.is_file():
            measured = json.loads(file.read_text("utf-8"))
            trained = drawn.training_findings(measured)
            made_of += f"; the claims by `python benchmarks/time_noise_on_pico.py`: {drawn.trained_on(measured)}"
            page_of = [f"More of it: [{file.stem}](../methods/{file.stem}.md)."]
        write_recipe(
            docs,
            "time-noise",
            title=_heading(ELSEWHERE["time-noise"]),
            made_of=made_of,
            command="unstill compare --recipe time-noise --docs docs",
            findings=trained,
            columns=columns,
            rows=rows,
            figures=figures,
            words=(TRAINED, *page_of, "Medians of beta, in units of the image latents:"),
        )
        _said(docs, "time-noise", False)


def write_comparison(
    docs: Path, name: str, recipe: Recipe, comparison: Comparison, rows: Sequence[Row], versions: dict[str, str]
) -> None:
    """What a recipe of settings came to, as pages; of several models or motion levels, the first."""
    from unstill.lab.comparison_plots import drawn
    from unstill.lab.comparison_report import verdict
    from unstill.lab.findings import Measured
    from unstill.lab.recipe_docs import comparison_table, write_recipe

    model, motion = rows[0].model, rows[0].motion
    mine = [row for row in rows if (row.model, row.motion) == (model, motion)]
    results = [one for one in comparison.results() if (one["model"], one["motion_asked"]) == (model, motion)]
    columns, table = comparison_table(mine)
    images, seeds = len(comparison.images), len({one["seed"] for one in results})
    told = "; the model is given a caption, the methods the picture" if recipe.given == "caption" else ""
    count = f"{images} pictures, {seeds} seed{'s' if seeds > 1 else ''}"
    asked = "" if motion is None else f", motion {motion:g} asked for"
    write_recipe(
        docs,
        name,
        title=_heading(recipe.about),
        made_of=f"{model}, {count}{asked}{told}",
        command=_command(name, images, min(one["seed"] for one in results)),
        findings=[one.judged(Measured(results)) for one in recipe.claims],
        columns=columns,
        rows=table,
        figures=drawn([row for row in mine if row.means]),
        words=verdict(mine),
        versions=versions,
    )


def _command(name: str, count: int, seed: int) -> str:
    return f"unstill compare --recipe {name} --count {count}{f' --seed {seed}' if seed else ''} --docs docs"


def _heading(about: str) -> str:
    return about[0].upper() + about[1:]


def _said(docs: Path, name: str, quiet: bool) -> None:
    if not quiet:
        typer.echo(f"Wrote {docs / 'lab' / f'{name}.md'} and {docs / 'claims.md'}.")
