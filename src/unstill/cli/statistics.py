"""`unstill statistics`: mean and variance of a data set's video latents, for Analytic-Init."""

from __future__ import annotations

import functools
import json
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from unstill.cli.shared_options import device_option


def statistics(
    videos: Annotated[
        str,
        typer.Argument(
            help="A folder of videos like the training videos, a folder of .tar shards, or world: rendered clips."
        ),
    ],
    model: Annotated[
        str, typer.Option(help="The model whose encoder is used: a name, a diffusers folder, or a hub id.")
    ] = "pico",
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path("statistics.safetensors"),
    clips: Annotated[int, typer.Option(min=1, help="Maximum number of clips; the seed selects the videos.")] = 5000,
    clips_per_video: Annotated[int, typer.Option(min=1, help="Clips from each video, at random positions.")] = 1,
    frames: Annotated[int | None, typer.Option(min=1, help="Frames per clip. Default: the model's.")] = None,
    fps: Annotated[
        float | None, typer.Option(min=0.1, help="Frames per second to read at. Default: the model's.")
    ] = None,
    size: Annotated[str | None, typer.Option(help="WIDTHxHEIGHT to fill. Default: the model's.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the selection of clips and of the encoder's samples.")] = 0,
    workers: Annotated[int, typer.Option(min=0, help="Processes that decode clips in advance.")] = 0,
    device: Annotated[str | None, device_option()] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """
    Compute mean and variance of the latents of videos, for Analytic-Init.

    Reads one clip at a time. The same command resumes a stopped run. Several processes share the work, with the same
    result: accelerate launch --num_processes 4 -m unstill statistics ...

    The settings are written to a JSON file of the same name. Files of an earlier run are replaced if that JSON file
    lists them and they are unchanged; others are never overwritten.
    """
    from unstill.cli import output
    from unstill.cli.distributed import rank_and_count
    from unstill.cli.options import parse_size
    from unstill.cli.progress import ProgressBars

    height_width = None if size is None else parse_size(size)
    output.silence_libraries()
    from unstill.lab.dataset_statistics import measure_statistics

    rank, processes = rank_and_count(patience=timedelta(days=1))
    with output.resumable(), ProgressBars(quiet=as_json or rank > 0) as report:
        result = measure_statistics(
            videos,
            out,
            model=model,
            clips=clips,
            clips_per_video=clips_per_video,
            frames=frames,
            fps=fps,
            size=height_width,
            seed=seed,
            workers=workers,
            device=device,
            provenance=output.provenance(),
            rank=rank,
            processes=processes,
            progress=functools.partial(report, "clips"),
        )
    if result is None:
        return
    if as_json:
        typer.echo(json.dumps(result.record, indent=2))
        return
    measured = result.statistics
    typer.echo(
        f"Wrote {out}: {measured.count} clips"
        + (f" ({result.unreadable} could not be read)" if result.unreadable else "")
        + f", latents {'x'.join(map(str, measured.mean.shape))} (channels, frames, height, width), "
        f"mean variance {float(measured.variance):.4f}."
    )
