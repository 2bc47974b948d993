"""`unstill verify`: what a model does on this machine, as a page and a JSON file to send."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Annotated

import typer

from unstill.cli.shared_options import device_option, offload_option, prompt_option, size_option


def verify(
    model: Annotated[str, typer.Argument(help="A name from 'unstill models', a folder, or a hub id.")],
    quick: Annotated[bool, typer.Option("--quick", help="2 pictures and one seed: an eighth of the time.")] = False,
    prompt: Annotated[str | None, prompt_option()] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Sampling steps. Default: the model's.")] = None,
    frames: Annotated[int | None, typer.Option(min=2, help="Frames per video. Default: the model's.")] = None,
    size: Annotated[str | None, size_option()] = None,
    out: Annotated[Path, typer.Option(help="The folder of the results; a stopped run continues.")] = Path(
        "verification"
    ),
    device: Annotated[str | None, device_option()] = None,
    offload: Annotated[bool, offload_option()] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """
    Run a model plainly and with its recommended method: videos, scores, seconds per step and memory.

    The pictures are the one of this package and rendered ones, 8 with two seeds each, or 2 with one seed by --quick.
    --steps, --frames and --size make it shorter still. What is printed after the first video says how long the rest
    will take. Stopped, the same command continues from there; finished, it prints the result again. The JSON file and
    the page name no path of this machine.
    """
    from unstill.cli import output
    from unstill.cli.options import wanted_size
    from unstill.cli.progress import ProgressBars
    from unstill.data.output_paths import check_writable

    height_width = wanted_size(size, model)
    check_writable(out / "verification.json")
    output.silence_libraries()

    import unstill

    with output.resumable(), ProgressBars(quiet=as_json) as report:
        result = unstill.verify(
            model,
            quick=quick,
            prompt=prompt,
            steps=steps,
            frames=frames,
            size=height_width,
            out=out,
            device=device,
            offload=offload,
            progress=functools.partial(report, "videos"),
            tell=lambda sentence: None if as_json else typer.echo(sentence, err=True),
        )
    if as_json:
        typer.echo((out / "verification.json").read_text(encoding="utf-8"), nl=False)
        return
    for sentence in result.verdict:
        typer.echo(sentence)
    for setting, cost in result.costs.items():
        typer.echo(f"{setting}: {cost.seconds_per_step:.3g} s per step, {cost.peak_memory / 2**30:.1f} GB")
    typer.echo(f"Wrote {out / 'verification.html'} and verification.json.")
