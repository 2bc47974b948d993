"""`unstill compare`: models x methods x images x seeds, and a report to send to a colleague."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Annotated, Any

import typer


def compare(
    method: Annotated[
        list[str] | None,
        typer.Option(
            help="A setting: name:key=value, name:key=1|2|3 for several values, a+b for both, plain for none. "
            "Repeatable."
        ),
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option(help="A name from 'unstill models', a folder, or a hub id. Repeatable.")
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="A picture or a folder of pictures. Without it: rendered ones.")
    ] = None,
    count: Annotated[
        int | None, typer.Option(min=1, help="Pictures to use, at most. Default: 8, or the recipe's number.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Videos per picture.")] = 1,
    motion: Annotated[str | None, typer.Option(help="Motion levels to ask for, with commas: 0.3,0.6.")] = None,
    prompt: Annotated[str | None, typer.Option(help="What happens, for models that read text.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Sampling steps. Default: the model's.")] = None,
    frames: Annotated[int | None, typer.Option(min=2, help="Frames per video. Default: the model's.")] = None,
    size: Annotated[str | None, typer.Option(help="WIDTHxHEIGHT, for models that make more than one size.")] = None,
    recipe: Annotated[
        str | None, typer.Option(help="The settings of an experiment of the papers; '--recipe list' names them.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="The first seed.")] = 0,
    docs: Annotated[
        Path | None, typer.Option(help="Also write the recipe's results and claims as Markdown into this folder.")
    ] = None,
    out: Annotated[Path, typer.Option(help="The folder of this comparison; a stopped one goes on.")] = Path(
        "comparison"
    ),
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, cuda:1, mps ... By default the best there is.")
    ] = None,
    offload: Annotated[bool, typer.Option("--offload", help="Less GPU memory, more time.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """
    Compare methods and their settings on the same images and noise.

    Stopped, even by kill -9, it goes on where it was when the same command is given again. Started several times, on
    one machine or on several that share the folder, each video is made once; so it is under accelerate launch -m
    unstill compare ...
    """
    from unstill.cli import output
    from unstill.cli.options import wanted_size
    from unstill.cli.processes import rank_and_count
    from unstill.cli.progress import Report
    from unstill.errors import UnstillError
    from unstill.lab.recipes import ELSEWHERE, RECIPES, recipe_named

    if recipe == "list":
        for name, about in {**ELSEWHERE, **{name: one.about for name, one in RECIPES.items()}}.items():
            typer.echo(f"{name}: {about}")
        return
    if docs is not None and recipe is None:
        raise UnstillError("--docs writes what a recipe came to; name one with --recipe.")
    if recipe in ELSEWHERE:
        from unstill.cli import recipes

        if method or images or motion or prompt or steps or frames or size or len(model or []) > 1:
            raise UnstillError(f"The recipe {recipe} takes --model, --count, --seed, --out and --docs only.")
        if recipe == "leak":
            recipes.leak((model or ["pico"])[0], count or 8, seed, out, docs, device, offload, as_json)
        else:
            recipes.time_noise(out, docs)
        return
    chosen = recipe_named(recipe) if recipe else None
    texts = [*(chosen.settings if chosen else ()), *(method or ())]
    if not texts:
        raise UnstillError("Say what to compare, for example --method 'early-start:sigma=50|20', or --recipe list.")
    sizes = {name: wanted_size(size, name) for name in model or ["pico"]}
    motions = _motions(motion) if motion else chosen.motions if chosen else (None,)
    blind = chosen is not None and chosen.given == "caption"
    output.check_writable(out / "manifest.json")
    output.hush()
    rank, processes = rank_and_count()

    from unstill.lab.compare import Comparison
    from unstill.lab.comparison_report import table, verdict, write
    from unstill.lab.summary import summarise

    models = [
        _model(name, texts, wanted, frames, steps, functools.partial(_load, name, device, offload, blind), blind)
        for name, wanted in sizes.items()
    ]
    number = count or (chosen.count if chosen else 8)
    pictures, captions = _pictures(images, number, models[0].size, seed)
    prompts = captions if blind and prompt is None else prompt
    comparison = Comparison(
        out, models, pictures, range(seed, seed + seeds), motions=motions, prompts=prompts, blind=blind
    )
    try:
        with Report(quiet=as_json or rank > 0) as report:
            comparison.run(rank, processes, functools.partial(report, "videos"))
    except KeyboardInterrupt:
        raise KeyboardInterrupt("Stopped; the same command goes on from here.") from None
    if rank > 0:
        return
    rows = summarise(comparison.results())
    made = output.provenance()
    facts = {
        "command": made["command"],
        "settings": "; ".join(f"{s.name}: {json.dumps(s.described)}" for m in models for s in m.settings),
        "images": ", ".join(pictures),
        "versions": ", ".join(f"{name} {number}" for name, number in made["versions"].items()),
    }
    write(comparison, rows, facts)
    result: dict[str, Any] = {
        **made,
        "verdict": verdict(rows),
        "rows": [row.as_dict() for row in rows],
        "settings": {s.name: list(s.described) for m in models for s in m.settings},
        "images": list(pictures),
        "seeds": list(range(seed, seed + seeds)),
    }
    output.write_json(out / "summary.json", result)
    if docs is not None and recipe is not None and chosen is not None:
        from unstill.cli.recipes import write_comparison

        write_comparison(docs, recipe, chosen, comparison, rows, result["versions"])
    if as_json:
        typer.echo(json.dumps(result, indent=2))
        return
    from rich.console import Console

    console = Console(highlight=False)
    console.print(table(rows))
    for sentence in verdict(rows):
        console.print(sentence)
    for row in rows:
        for reason in row.failed:
            typer.echo(f"{row.name} failed: {reason}", err=True)
    typer.echo(f"Wrote {out / 'report.html'}, summary.json, summary.csv and cells.csv.")
    if docs is not None:
        typer.echo(f"Wrote {docs / 'lab' / f'{recipe}.md'} and {docs / 'claims.md'}.")
    if not any(row.means for row in rows):
        raise typer.Exit(1)


def _motions(text: str) -> tuple[float, ...]:
    from unstill.errors import UnstillError

    try:
        levels = tuple(float(part) for part in text.split(","))
    except ValueError:
        levels = (-1.0,)
    if not all(0 <= level <= 1 for level in levels):
        raise UnstillError(f"--motion takes levels from 0 to 1 with commas, for example 0.3,0.6, not {text!r}.")
    return levels


def _load(name: str, device: str | None, offload: bool, text: bool) -> Any:
    """`text`: the embedded model as those of the text-to-video papers are, variance-preserving."""
    from unstill.models import registry

    pipe: Any = registry.load(name, device=device, offload=offload)
    if text and registry.pipeline_name(name) == "PicoPipeline":
        from unstill.models.pico import vp_scheduler

        pipe.scheduler = vp_scheduler()
    return pipe


def _model(
    name: str, texts: list[str], size: Any, frames: int | None, steps: int | None, load: Any, text: bool
) -> Any:
    """A model with the settings that suit it, plain first."""
    from unstill.cli.options import describe_method, parse_method
    from unstill.lab.compare import Model, Setting
    from unstill.lab.fingerprint import fingerprint
    from unstill.lab.settings import PLAIN, expand, split
    from unstill.models import registry
    from unstill.models.calling import native_frames, native_size

    entry = registry.find(name)
    defaults = registry.defaults_of(name)
    if text:
        defaults.pop("sigma", None)  # of the model as it comes, which is variance-exploding
    settings = []
    for setting in dict.fromkeys([PLAIN, *(one for text in texts for one in expand(text))]):
        methods = tuple(parse_method(text, defaults) for text in split(setting))
        described = tuple(describe_method(one) for one in methods)
        settings.append(Setting(name=setting, methods=methods, described=described))
    if entry is not None:
        size, frames, steps, fps = size or entry.size, frames or entry.frames, steps or entry.steps, entry.fps
    else:  # only the pipeline itself knows
        loaded = load()
        size, frames, fps = size or native_size(loaded), frames or native_frames(loaded), 8
        load = functools.partial(lambda pipe: pipe, loaded)
    return Model(
        name=name,
        load=load,
        weights=f"{fingerprint(name)}{' variance-preserving' if text else ''}",
        size=size,
        settings=tuple(settings),
        frames=frames,
        steps=steps,
        fps=fps,
    )


def _pictures(
    source: Path | None, count: int, size: tuple[int, int], seed: int
) -> tuple[dict[str, Any], dict[str, str]]:
    """By name: of a folder in natural order, or first frames of the synthetic world and their captions."""
    from unstill.data.decode import natural_key
    from unstill.data.images import read_image
    from unstill.errors import UnstillError

    if source is None:
        from unstill.lab.subjects import from_world, picture_of

        rendered = {f"world {i}": one for i, one in enumerate(from_world(count, 8, size, seed))}
        captions = {name: one.caption for name, one in rendered.items() if one.caption is not None}
        return {name: picture_of(one) for name, one in rendered.items()}, captions
    if not source.is_dir():
        return {source.name: read_image(source)}, {}
    kinds = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif")
    found = sorted((p for p in source.iterdir() if p.suffix.lower() in kinds), key=lambda p: natural_key(p.name))
    if not found:
        raise UnstillError(f"The folder {source} holds no pictures (looked for {' '.join(kinds)}).")
    return {path.name: read_image(path) for path in found[:count]}, {}
