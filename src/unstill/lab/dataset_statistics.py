"""Latent statistics of a data set of videos for a model: `unstill statistics`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unstill.data.output_paths import check_file
from unstill.data.ownership import check_free, together
from unstill.data.sources import SourceSettings, guess_kind, open_source
from unstill.data.video_index import list_folder
from unstill.hooks import adapter_for
from unstill.latent_statistics import LatentStatistics
from unstill.models import registry
from unstill.models.call_arguments import native_frames, native_size
from unstill.progress import StepProgress
from unstill.statistics_estimation import combine, estimate
from unstill.statistics_hub import describe_vae


@dataclass(frozen=True, slots=True)
class DatasetStatistics:
    """
    The result of `measure_statistics`.

    Attributes:
        statistics: of the data set.
        unreadable: number of clips that could not be read.
        record: the content of the JSON file.
    """

    statistics: LatentStatistics
    unreadable: int
    record: dict[str, Any]


def measure_statistics(
    videos: str,
    out: Path,
    *,
    model: str = "pico",
    clips: int = 5000,
    clips_per_video: int = 1,
    frames: int | None = None,
    fps: float | None = None,
    size: tuple[int, int] | None = None,
    seed: int = 0,
    workers: int = 0,
    device: str | None = None,
    provenance: Mapping[str, Any] | None = None,
    rank: int = 0,
    processes: int = 1,
    progress: StepProgress | None = None,
) -> DatasetStatistics | None:
    """
    Computes mean and variance of the latents of videos with the encoder of a model, one clip in memory at a time.

    The same call resumes after an interruption. Several processes share the clips, with the same result bit for bit.

    Args:
        videos: a folder of videos, a folder of .tar shards, or `"world"`: rendered clips.
        out: the file to write; a JSON file of the same name describes it. Files of an earlier run are replaced if that
            JSON file lists them and they are unchanged; others never.
        model: name, local folder or hub id.
        clips: maximum number of clips.
        clips_per_video: clips from each video, at random positions.
        frames, fps, size: of the clips, size as (height, width); by default the model's.
        seed: of the selection of clips and of the encoder's samples.
        workers: processes that decode clips in advance.
        device: see `unstill.load`.
        provenance: further entries of the JSON file, such as the command line.
        rank, processes: index of this process and number of processes, which accelerate has started.
        progress: called with (clips done, total).

    Returns:
        The result; `None` if `rank` is not 0.

    Raises:
        UnstillError: an unknown model, videos that cannot be read, or files of another origin at `out`.
    """
    entry = registry.find(model)
    registry.pipeline_class(model)
    check_file(out)
    record_file = out.with_name(f"{out.stem}.json")
    check_free(record_file, [out])
    kind = guess_kind(videos)
    if kind == "folder":
        list_folder(videos)  # before a model is loaded
    pipe = registry.load(model, device=device)
    height, width = size or (entry.size if entry else native_size(pipe))
    settings = SourceSettings(
        kind=kind,
        path=None if kind == "world" else videos,
        frames=frames or (entry.frames if entry else native_frames(pipe)),
        fps=fps or (entry.fps if entry else None),
        size=(height, width),
        clips_per_video=clips_per_video,
        limit=-(-clips // clips_per_video),
        clips=clips,
        seed=seed,
    )
    source = open_source(settings)
    meta = {
        "model": {"name": model, "pipeline": type(pipe).__name__, "weights": entry and entry.weights},
        "videos": {"kind": kind, "clips": len(source), "clips_per_video": clips_per_video},
        "frames": settings.frames,
        "fps": settings.fps,
        "size": {"height": height, "width": width},
        "seed": seed,
        "vae": describe_vae(pipe.vae),
    }
    encode = functools.partial(adapter_for(pipe).encode_video, pipe)
    run = functools.partial(estimate, encode, source, meta=meta, seed=seed, workers=workers, progress=progress)
    if processes == 1:
        states = [out.with_name(f"{out.name}.partial")]
        statistics = run(state=states[0])
    else:
        statistics, states = _shared(run, out, meta)
    if rank > 0:
        return None
    record = {
        **(provenance or {}),
        **meta,
        "count": statistics.count,
        "shape": list(statistics.mean.shape),
        "variance": float(statistics.variance),
        "file": str(out),
    }
    with together(record_file, [out.name]) as results:
        statistics.save(results.folder / out.name)
        results.record = record
    for state in states:  # only now: a run that is killed before resumes from them
        state.unlink(missing_ok=True)
    return DatasetStatistics(statistics, len(source) - (statistics.count or 0), record)


def _shared(
    run: Callable[..., LatentStatistics], out: Path, meta: dict[str, Any]
) -> tuple[LatentStatistics, list[Path]]:
    """
    Every process writes the statistics of its share to a file; the main process combines them.

    Returns:
        The statistics, of the share in other processes than the main one, and the files of all processes.
    """
    from accelerate import PartialState

    state = PartialState()
    shares = [out.with_name(f"{out.name}.{index}-of-{state.num_processes}") for index in range(state.num_processes)]
    statistics = run(out=shares[state.process_index], shard=(state.process_index, state.num_processes))
    state.wait_for_everyone()
    if state.is_main_process:
        statistics = combine(shares, meta)
    state.destroy_process_group()
    return statistics, shares
