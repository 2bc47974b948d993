"""
Runs the papers' experiments on a model and writes what of their claims is reproduced into the documentation.

    python -m benchmarks.papers all --docs docs              # every experiment, about an hour on two slow cores
    python -m benchmarks.papers start-sweep leak --images 12

Stopped at any moment, the same command continues: finished videos are kept in `--out`. At eight pictures the sweeps
take some 380 videos (FreeInit counts five times) and the diagnosis 32 videos and 264 single predictions.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import unstill
from benchmarks.papers import experiments, leak, time_noise
from benchmarks.papers.pages import ORDER, comparison_table, write_experiment
from benchmarks.papers.verdicts import Finding, Measured
from unstill.lab.comparison_plots import plots_of
from unstill.lab.diagnosis_report import columns, diagnosis_verdict, rows
from unstill.lab.sweeps import SWEEPS


IMAGES = 8
ABOUT = {
    "leak": "the motion that one-step predictions lose at every noise level (leakage paper, Fig. 1 and 2)",
    "time-noise": "the noise on the image in training: its distribution (leakage paper, Fig. 4)",
    **{name: sweep.about for name, sweep in SWEEPS.items() if name in experiments.CLAIMS},
}
TRAINED = (
    "What TimeNoise does to a model takes training: `python benchmarks/time_noise_on_pico.py` fine-tunes pico "
    "on clips that hardly move, and compares."
)


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.papers", description=__doc__.split("\n\n")[0])
    names = sorted(ABOUT, key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))
    parser.add_argument("experiment", nargs="+", choices=["all", *names])
    parser.add_argument("--docs", type=Path, help="folder of the documentation to write into; none is written without")
    parser.add_argument("--images", type=int, default=IMAGES, help="pictures (of `leak`: clips) per experiment")
    parser.add_argument("--model", default="pico")
    parser.add_argument("--seed", type=int, default=0, help="of the first video, and of the pictures")
    parser.add_argument("--steps", type=int, help="sampling steps; by default the model's")
    parser.add_argument("--out", type=Path, default=Path("papers"), help="folder for videos and reports")
    given = parser.parse_args(words)
    for name in names if "all" in given.experiment else dict.fromkeys(given.experiment):
        began = time.perf_counter()
        if name == "time-noise":
            findings = distribution(given.docs)
        elif name == "leak":
            findings = diagnosis(given)
        else:
            findings = sweep(name, given)
        print(f"{name}: {ABOUT[name]}; {time.perf_counter() - began:.0f} s")
        for one in findings:
            print(f"  {one.verdict}: {one.claim} {one.evidence}", flush=True)


def sweep(name: str, given: argparse.Namespace) -> list[Finding]:
    """A comparison of the settings of a sweep, at its first motion level."""
    out = given.out / name
    found = unstill.compare(
        sweep=name,
        model=given.model,
        count=given.images,
        seed=given.seed,
        guidance=1.0 if given.model == "pico" and not SWEEPS[name].caption_only else None,
        steps=given.steps,
        out=out,
        progress=lambda done, total: _report(name, done, total),
    )
    assert found is not None
    motion = found.rows[0].motion
    mine = [row for row in found.rows if row.motion == motion]
    cells = [cell for cell in found.cells if cell["motion_asked"] == motion]
    findings = [claim.judged(Measured(cells)) for claim in experiments.CLAIMS[name]]
    if given.docs is not None:
        seeds, columns_and_rows = len(found.seeds), comparison_table(mine)
        told = "; the model is given a caption, the methods the picture" if SWEEPS[name].caption_only else ""
        asked = "" if motion is None else f", motion {motion:g} asked for"
        write_experiment(
            given.docs,
            name,
            title=_heading(name),
            made_of=f"{given.model}, {len(found.images)} pictures, {seeds} seed{'s' * (seeds > 1)}{asked}{told}",
            command=_command(name, given),
            findings=findings,
            columns=columns_and_rows[0],
            rows=columns_and_rows[1],
            figures=plots_of([row for row in mine if row.means]),
            words=found.verdict,
            versions=found.versions,
        )
    return findings


def diagnosis(given: argparse.Namespace) -> list[Finding]:
    """One-step predictions, and videos at several motion levels."""
    found = unstill.diagnose(
        given.model,
        count=given.images,
        response=given.images,
        seed=given.seed,
        out=given.out / "leak" / "report.html",
        progress=lambda done, total: _report("leak", done, total),
    )
    assert found is not None
    findings = leak.findings(found.diagnosis, found.response)
    if given.docs is not None:
        clips = f"{given.images} rendered clips; {given.images} videos per requested motion"
        write_experiment(
            given.docs,
            "leak",
            title=_heading("leak"),
            made_of=f"{given.model}, {clips}",
            command=_command("leak", given),
            findings=findings,
            columns=columns(found.diagnosis),
            rows=rows(found.diagnosis),
            figures=leak.figures(found.diagnosis, found.response),
            words=diagnosis_verdict(found.diagnosis),
            versions=found.versions,
        )
    return findings


def distribution(docs: Path | None) -> list[Finding]:
    """The distribution of TimeNoise by its formulas; claims from the trainings of another benchmark, if they ran."""
    if docs is None:
        return []
    made_of, findings, more = "the distribution by its formulas, without a model", [], []
    file = docs / "methods" / "time_noise_measured.json"
    if file.is_file():
        measured = json.loads(file.read_text("utf-8"))
        findings = time_noise.training_findings(measured)
        trained = time_noise.trained_on(measured)
        made_of += f"; the claims by `python benchmarks/time_noise_on_pico.py`: {trained}"
        more = [f"More of it: [{file.stem}](../methods/{file.stem}.md)."]
    table = time_noise.trainings_table()
    write_experiment(
        docs,
        "time-noise",
        title=_heading("time-noise"),
        made_of=made_of,
        command="python -m benchmarks.papers time-noise --docs docs",
        findings=findings,
        columns=table[0],
        rows=table[1],
        figures=time_noise.figures(),
        words=(TRAINED, *more, "Medians of beta, in units of the image latents:"),
    )
    return findings


def _command(name: str, given: argparse.Namespace) -> str:
    seed = f" --seed {given.seed}" if given.seed else ""
    steps = f" --steps {given.steps}" if given.steps else ""
    model = f" --model {given.model}" if given.model != "pico" else ""
    return f"python -m benchmarks.papers {name} --images {given.images}{model}{seed}{steps} --docs docs"


def _heading(name: str) -> str:
    return ABOUT[name][0].upper() + ABOUT[name][1:]


def _report(name: str, done: int, total: int) -> None:
    if done % 10 == 0 or done == total:
        print(f"{name}: {done} of {total}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
