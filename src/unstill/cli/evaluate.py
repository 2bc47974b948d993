"""`unstill evaluate`: motion, fidelity and quality of a folder of videos."""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer


_videos = functools.partial(typer.Option, rich_help_panel="Videos")
_flow = functools.partial(typer.Option, rich_help_panel="Optical flow")
_networks = functools.partial(typer.Option, rich_help_panel="Networks, for further metrics")
_run = functools.partial(typer.Option, rich_help_panel="Run")


def evaluate(
    generated: Annotated[Path, typer.Argument(rich_help_panel="Videos", help="A folder of videos, or one video.")],
    reference: Annotated[
        Path | None, _videos(help="A folder of real videos; a video of the same name has the same first frame.")
    ] = None,
    images: Annotated[Path | None, _videos(help="A folder of the input pictures, named like the videos.")] = None,
    prompts: Annotated[Path | None, _videos(help="A JSON file, {name without suffix: text}.")] = None,
    frames: Annotated[int | None, _videos(min=2, help="Frames to read of each video. Default: all.")] = None,
    fps: Annotated[float | None, _videos(min=0.1, help="Frames per second to read at.")] = None,
    flow: Annotated[str, _flow(help="Optical flow: dis, farneback, or raft with --flow-weights.")] = "dis",
    flow_weights: Annotated[
        str | None, _flow(help="RAFT: raft-things.pth, a torchvision file, or a torchvision name like C_T_V1.")
    ] = None,
    size: Annotated[
        str, _flow(help="WIDTHxHEIGHT at which the flow is computed; 'own': that of the videos.")
    ] = "800x450",
    clip: Annotated[str | None, _networks(help="A CLIP, e.g. openai/clip-vit-base-patch32, or a folder.")] = None,
    dino: Annotated[str | None, _networks(help="A DINO, e.g. facebook/dino-vitb16, or a folder.")] = None,
    aesthetic: Annotated[
        str | None, _networks(help="sa_0_4_vit_l_14_linear.pth; needs --clip openai/clip-vit-large-patch14.")
    ] = None,
    i3d: Annotated[str | None, _networks(help="For FVD: i3d_pretrained_400.pt or i3d_torchscript.pt.")] = None,
    preprocessing: Annotated[str, _networks(help="For FVD: tats, videogpt or stylegan-v.")] = "tats",
    biased: Annotated[bool, _networks("--biased", help="For FVD: covariances over n, not n - 1.")] = False,
    c3d: Annotated[
        str | None, _networks(help="For the inception score: conv3d_deepnetA_ucf.npz or c3d_ucf101.pt.")
    ] = None,
    c3d_mean: Annotated[str | None, _networks(help="mean2.npz, which belongs to the .npz.")] = None,
    splits: Annotated[int, _networks(min=1, help="Of the inception score.")] = 10,
    out: Annotated[Path | None, _run(help="Also write the result to this JSON file.")] = None,
    cache: Annotated[Path | None, _run(help="Folder of cached measurements. Default: the cache folder.")] = None,
    device: Annotated[str | None, _run(help="cpu, cuda, cuda:1 ... By default the best there is.")] = None,
    as_json: Annotated[bool, _run("--json", help="Print the result as JSON.")] = False,
) -> None:
    """
    Measure a folder of videos: motion, fidelity, quality.

    Needs no downloads; metrics that replace those of a network are called proxies. The same command resumes a stopped
    run. Several processes share the work: accelerate launch -m unstill evaluate ...
    """
    from unstill.cli import output
    from unstill.cli.distributed import rank_and_count
    from unstill.cli.options import parse_size
    from unstill.cli.progress import ProgressBars
    from unstill.data.output_paths import check_file
    from unstill.data.ownership import check_free, together

    shape = None if size == "own" else parse_size(size)
    if out is not None:
        check_file(out)
        check_free(out, [])
    output.silence_libraries()
    import torch

    import unstill
    from unstill.metrics.inputs import EvaluationSettings

    rank, processes = rank_and_count()
    best = "cpu"
    if torch.cuda.is_available():
        best = f"cuda:{os.environ['LOCAL_RANK']}" if processes > 1 else "cuda"
    settings = EvaluationSettings(
        frames=frames,
        fps=fps,
        flow=flow,
        flow_weights=flow_weights,
        size=shape,
        clip=clip,
        dino=dino,
        aesthetic=aesthetic,
        i3d=i3d,
        preprocessing=preprocessing,
        unbiased=not biased,
        c3d=c3d,
        c3d_mean=c3d_mean,
        splits=splits,
        device=device or best,
    )
    with output.resumable(), ProgressBars(quiet=as_json or rank > 0) as progress:
        report = unstill.evaluate(
            generated, reference, settings, images=images, prompts=prompts, cache=cache, progress=progress
        )
    if rank > 0:
        return
    result: dict[str, Any] = {**output.provenance(), **report.as_dict()}
    if out is not None:
        with together(out) as results:
            results.record = result
    if as_json:
        typer.echo(json.dumps(result, indent=2))
        return
    from rich.console import Console

    Console().print(report.table())
    for note in report.notes:
        typer.echo(f"Note: {note}")
    for file, reason in report.skipped.items():
        typer.echo(f"Skipped: {reason if reason.startswith(file) else f'{file}: {reason}'}", err=True)
