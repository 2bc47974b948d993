"""`unstill compare`: models x methods x images x seeds, and a report."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Annotated

import typer

from unstill.cli.shared_options import device_option, offload_option, prompt_option, size_option


_compared = functools.partial(typer.Option, rich_help_panel="What is compared")
_video = functools.partial(typer.Option, rich_help_panel="Each video")
_run = functools.partial(typer.Option, rich_help_panel="Run")


def compare(
    method: Annotated[
        list[str] | None,
        _compared(
            help="A setting: name:key=value, name:key=1|2|3 for several values, a+b for both, plain for none. "
            "Repeatable."
        ),
    ] = None,
    sweep: Annotated[
        str | None, _compared(help="A named set of settings from the papers; '--sweep list' prints them.")
    ] = None,
    model: Annotated[
        list[str] | None, _compared(help="A name from 'unstill models', a folder, or a hub id. Repeatable.")
    ] = None,
    equal_calls: Annotated[
        bool,
        _compared(
            "--equal-calls", help="Also plain sampling in as many steps as each setting that costs more calls spends."
        ),
    ] = False,
    images: Annotated[
        Path | None, _compared(help="A picture or a folder of pictures. Without it: rendered ones.")
    ] = None,
    count: Annotated[int, _compared(min=1, help="Maximum number of pictures.")] = 8,
    motion: Annotated[str | None, _compared(help="Requested motion levels from 0 to 1, with commas: 0.3,0.6.")] = None,
    seeds: Annotated[int, _compared(min=1, help="Videos per picture.")] = 1,
    seed: Annotated[int, _compared(min=0, help="The first seed.")] = 0,
    prompt: Annotated[str | None, prompt_option(rich_help_panel="Each video")] = None,
    guidance: Annotated[float | None, _video(help="Weight of prompt and picture. Default: the model's.")] = None,
    steps: Annotated[int | None, _video(min=1, help="Sampling steps. Default: the model's.")] = None,
    frames: Annotated[int | None, _video(min=2, help="Frames per video. Default: the model's.")] = None,
    size: Annotated[str | None, size_option(rich_help_panel="Each video")] = None,
    out: Annotated[Path, _run(help="Folder of this comparison; a stopped one is resumed.")] = Path("comparison"),
    device: Annotated[str | None, device_option(rich_help_panel="Run")] = None,
    offload: Annotated[bool, offload_option(rich_help_panel="Run")] = False,
    as_json: Annotated[bool, _run("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """
    Compare methods and their settings on the same images and noise.

    The same command resumes a comparison that was stopped, even by kill -9. Several processes, on one machine or on
    several that share the folder, share the videos; accelerate launch -m unstill compare ... starts them.
    """
    from unstill.cli import output
    from unstill.cli.distributed import rank_and_count
    from unstill.cli.options import parse_method, wanted_size
    from unstill.cli.progress import ProgressBars
    from unstill.data.output_paths import check_writable
    from unstill.errors import UnstillError
    from unstill.lab.method_grid import expand, split
    from unstill.lab.sweeps import SWEEPS, sweep_named
    from unstill.models.registry import check_frames, defaults_of

    if sweep == "list":
        for name, entry in SWEEPS.items():
            typer.echo(f"{name}: {entry.about}")
        return
    if not (sweep or method):
        raise UnstillError(
            "There is nothing to compare; give --method, for example 'early-start:sigma=50|20', or --sweep."
        )
    # All arguments are checked before anything is written or loaded.
    if sweep:
        sweep_named(sweep)
    names = model or ["pico"]
    sizes = {name: wanted_size(size, name) for name in names}
    for name in names:
        check_frames(name, frames)
        for setting in (setting for text in method or () for setting in expand(text)):
            for method_text in split(setting):
                parse_method(method_text, defaults_of(name))
    motions = _motions(motion) if motion else None
    check_writable(out / "manifest.json")
    output.silence_libraries()
    rank, processes = rank_and_count()

    import unstill

    with output.resumable(), ProgressBars(quiet=as_json or rank > 0) as report:
        result = unstill.compare(
            method or (),
            sweep=sweep,
            equal_calls=equal_calls,
            model=names,
            images=images,
            count=count,
            seeds=seeds,
            seed=seed,
            motion=motions,
            prompt=prompt,
            guidance=guidance,
            steps=steps,
            frames=frames,
            size=next(iter(sizes.values())),
            out=out,
            device=device,
            offload=offload,
            command=output.provenance()["command"],
            rank=rank,
            processes=processes,
            progress=functools.partial(report, "videos"),
        )
    if result is None:
        return
    if as_json:
        typer.echo((out / "summary.json").read_text(encoding="utf-8"), nl=False)
        return
    from rich.console import Console

    from unstill.lab.comparison_report import comparison_table

    console = Console(highlight=False)
    console.print(comparison_table(result.rows))
    for sentence in result.verdict:
        console.print(sentence)
    for row in result.rows:
        for reason in row.failed:
            typer.echo(f"{row.name} failed: {reason}", err=True)
    typer.echo(f"Wrote {out / 'report.html'}, summary.json, summary.csv and cells.csv.")
    if not any(row.means for row in result.rows):
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
