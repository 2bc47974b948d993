"""`unstill statistics`: mean and variance of a data set's video latents, for Analytic-Init."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer


if TYPE_CHECKING:
    from unstill.latent_statistics import LatentStatistics


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
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, cuda:1, mps ... By default the best there is.")
    ] = None,
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
    from unstill.cli.options import parse_size
    from unstill.data.output_paths import check_file
    from unstill.data.ownership import check_free, together
    from unstill.data.sources import SourceSettings, guess_kind, open_source
    from unstill.data.video_index import list_folder
    from unstill.models import registry

    entry = registry.find(model)
    height_width = None if size is None else parse_size(size)
    output.silence_libraries()
    registry.pipeline_class(model)
    check_file(out)
    record = out.with_name(f"{out.stem}.json")
    check_free(record, [out])
    kind = guess_kind(videos)
    if kind == "folder":
        list_folder(videos)  # before a model is loaded
    from unstill.cli.distributed import rank_and_count
    from unstill.cli.progress import ProgressBars
    from unstill.hooks import adapter_for
    from unstill.models.call_arguments import native_frames, native_size
    from unstill.statistics_estimation import estimate
    from unstill.statistics_hub import describe_vae

    rank, processes = rank_and_count(patience=timedelta(days=1))
    pipe = registry.load(model, device=device)
    shape = height_width or (entry.size if entry else native_size(pipe))
    settings = SourceSettings(
        kind=kind,
        path=None if kind == "world" else videos,
        frames=frames or (entry.frames if entry else native_frames(pipe)),
        fps=fps or (entry.fps if entry else None),
        size=shape,
        clips_per_video=clips_per_video,
        limit=-(-clips // clips_per_video),
        clips=clips,
        seed=seed,
    )
    source = open_source(settings)
    encode = functools.partial(adapter_for(pipe).encode_video, pipe)
    meta = {
        "model": {"name": model, "pipeline": type(pipe).__name__, "weights": entry and entry.weights},
        "videos": {"kind": kind, "clips": len(source), "clips_per_video": clips_per_video},
        "frames": settings.frames,
        "fps": settings.fps,
        "size": {"height": shape[0], "width": shape[1]},
        "seed": seed,
        "vae": describe_vae(pipe.vae),
    }
    with output.resumable(), ProgressBars(quiet=as_json or rank > 0) as report:
        progress = functools.partial(report, "clips")
        run = functools.partial(estimate, encode, source, meta=meta, seed=seed, workers=workers, progress=progress)
        if processes == 1:
            states = [out.with_name(f"{out.name}.partial")]
            measured = run(state=states[0])
        else:
            measured, states = _together(run, out, meta)
    if rank > 0:
        return
    result = {
        **output.provenance(),
        **meta,
        "count": measured.count,
        "shape": list(measured.mean.shape),
        "variance": float(measured.variance),
        "file": str(out),
    }
    with together(record, [out.name]) as results:
        measured.save(results.folder / out.name)
        results.record = result
    for state in states:  # only now: a run that is killed before resumes from them
        state.unlink(missing_ok=True)
    if as_json:
        typer.echo(json.dumps(result, indent=2))
        return
    left_out = len(source) - (measured.count or 0)
    typer.echo(
        f"Wrote {out}: {measured.count} clips"
        + (f" ({left_out} could not be read)" if left_out else "")
        + f", latents {'x'.join(map(str, measured.mean.shape))} (channels, frames, height, width), "
        f"mean variance {float(measured.variance):.4f}."
    )


def _together(
    run: Callable[..., LatentStatistics], out: Path, meta: dict[str, Any]
) -> tuple[LatentStatistics, list[Path]]:
    """
    Every process writes the statistics of its share to a file; the main process combines them.

    Returns:
        The statistics, and the files of all processes.
    """
    from accelerate import PartialState

    from unstill.statistics_estimation import combine

    state = PartialState()
    shares = [out.with_name(f"{out.name}.{index}-of-{state.num_processes}") for index in range(state.num_processes)]
    measured = run(out=shares[state.process_index], shard=(state.process_index, state.num_processes))
    state.wait_for_everyone()
    if state.is_main_process:
        measured = combine(shares, meta)
    state.destroy_process_group()
    return measured, shares
