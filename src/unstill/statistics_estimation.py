"""
Latent statistics of a data set: one clip at a time, resumable, divisible among processes, bit-for-bit reproducible.

Floating-point sums depend on their order, so clips are merged along a fixed binary tree over their indices: 0 with 1,
2 with 3, then 0-1 with 2-3, and so on. Neighbours are merged as soon as both exist: at most log2(clips) partial
results are stored, and every division into shards of consecutive clips performs the same additions. (Parts of a fixed
number of clips would need as much code, store more partial results, and allow only shards of whole parts.)
"""

import json
import logging
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol, Self

import torch
from pydantic import BaseModel, Field, model_validator
from safetensors import SafetensorError, safe_open

from unstill.documents import parse_json
from unstill.errors import UnstillError, first_line
from unstill.latent_statistics import LatentStatistics
from unstill.statistics_file import KEY, check_moments


if TYPE_CHECKING:
    from unstill.data.sources import Sample
    from unstill.data.video import Clip

log = logging.getLogger(__name__)

EncodeVideo = Callable[[torch.Tensor, torch.Generator], torch.Tensor]
"""
Maps a clip (F, 3, H, W), float32 in [0, 1], and a generator for the posterior sample to latents (1, C, F', h, w).
"""


class ClipSequence(Protocol):
    """A sequence of clips, by length and index."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> "Clip | Sample": ...


def estimate(
    encode: EncodeVideo,
    clips: ClipSequence,
    *,
    out: str | os.PathLike[str] | None = None,
    state: str | os.PathLike[str] | None = None,
    meta: dict[str, Any] | None = None,
    seed: int = 0,
    shard: tuple[int, int] = (0, 1),
    workers: int = 0,
    save_every: int = 50,
    progress: Callable[[int, int], None] | None = None,
) -> LatentStatistics:
    """
    Estimates the statistics of a data set with one clip in memory at a time; resumable and divisible.

    Clip i is always encoded with a generator seeded by (seed, i): an interrupted run that is resumed, and shards that
    `combine` merges, give bit for bit the result of one uninterrupted run. (The encoder itself may round differently
    on another device or with another number of threads.)

    Args:
        encode: clip to video latents, for example `functools.partial(adapter.encode_video, pipe)`.
        clips: a source (`unstill.data.open_source`), a `ClipFolder`, or anything with a length whose items have
            `pixels`. A clip that raises UnstillError (damaged, too short) is skipped with a warning.
        out: file to save to; an existing one is replaced. Until the end the state is saved next to it (`.partial`);
            the same call resumes from it.
        state: another file for the state. It is not removed, so that the caller can save the result first.
        meta: see `LatentStatistics`.
        seed: of the generators for `encode`.
        shard: (index, count) processes the index-th of `count` equal ranges of clips; merge the files with `combine`.
        workers: processes that read ahead; 0 reads in this process.
        save_every: clips between two saves of the state.
        progress: called with (clips done, total) after each clip.

    Returns:
        The statistics of the shard's clips.

    Raises:
        UnstillError: no clip could be read, the clips' latents differ in shape, or the state is of another data set.
    """
    from unstill.data.loading import read_ahead

    index, shards = shard
    if not 0 <= index < shards:
        raise UnstillError(f"shard is (index, count) with 0 <= index < count, but got {shard}.")
    indices = range(len(clips) * index // shards, len(clips) * (index + 1) // shards)
    settings = {"clips": len(clips), "of": getattr(clips, "fingerprint", None), "seed": seed, "shard": list(shard)}
    settings["meta"] = json.loads(json.dumps(meta or {}))
    out = None if out is None else Path(out)
    partial = None if out is None else out.with_name(out.name + ".partial")
    partial = partial if state is None else Path(state)
    reached = _State(settings, 0, [])
    for file in (partial, out if shards > 1 else None):  # a finished shard is not estimated again
        if file is not None and file.exists():
            reached = _State.load(file)
            if reached.settings != settings:
                raise UnstillError(f"{file} is the state of another run; delete it or save to another name.")
    saved = reached.done
    try:
        remaining = indices[reached.done :]
        for position, (clip, reason) in zip(remaining, read_ahead(clips, remaining, workers), strict=True):
            statistics = LatentStatistics()
            if clip is None:
                log.warning("Leaving out clip %d: %s", position, reason)
            else:
                # A distinct number per (seed, clip), so that runs with neighbouring seeds share no generator.
                generator = torch.Generator().manual_seed(seed * 1_000_003 + position)
                statistics.update(encode(clip.pixels, generator))
            reached.add(_Node(position, 1, statistics))
            reached.done += 1
            if partial is not None and reached.done - saved >= save_every:
                reached.save(partial, meta)
                saved = reached.done
            if progress is not None:
                progress(reached.done, len(indices))
    except BaseException:  # also Ctrl-C: the state is saved
        if partial is not None and reached.done > saved:
            reached.save(partial, meta)
        raise
    total = reached.total(meta)
    if not total.count and shards == 1:  # a shard of a small data set may be empty
        raise UnstillError(f"None of the {len(indices)} clips could be used; see the warnings.")
    if out is not None and partial is not None:
        if shards == 1:
            total.save(out)
        else:
            reached.save(out, meta)
        if state is None:
            partial.unlink(missing_ok=True)
    return total


def combine(shares: Iterable[str | os.PathLike[str]], meta: dict[str, Any] | None = None) -> LatentStatistics:
    """
    Merges the files of all shards of a data set; the result is bit for bit that of one process.

    Args:
        shares: files that `estimate` wrote, in any order.
        meta: see `LatentStatistics`.

    Raises:
        UnstillError: a file of another kind, shards that do not make up one run, or no clip that could be read.
    """
    parts = [_State.load(Path(share)) for share in shares]
    runs = [{name: value for name, value in part.settings.items() if name != "shard"} for part in parts]
    nodes = sorted((node for part in parts for node in part.nodes), key=lambda node: node.first)
    total = _State({}, 0, [])
    for node in nodes:
        total.add(node)
    ends = [0, *(node.first + node.size for node in nodes)]
    gapless = [node.first for node in nodes] == ends[:-1]
    if not runs or any(run != runs[0] for run in runs) or not gapless or ends[-1] != runs[0].get("clips"):
        raise UnstillError("These files are not all shards of one run; run `unstill statistics` for the missing ones.")
    statistics = total.total(meta)
    if not statistics.count:
        raise UnstillError(f"None of the {ends[-1]} clips could be used; see the warnings.")
    return statistics


@dataclass(frozen=True)
class _Node:
    """Statistics of the `size` clips from index `first` on, including skipped ones."""

    first: int
    size: int
    statistics: LatentStatistics


_Number = Annotated[int, Field(ge=0, le=10**12)]


class _StateText(BaseModel):
    """The JSON text in the file of a state."""

    done: int = Field(ge=0, le=10**12)
    settings: dict[str, Any]
    nodes: list[tuple[_Number, _Number, _Number]] = Field(max_length=1000)  # first, size, count of each

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        if sum(size for _, size, _ in self.nodes) != self.done or any(n > size for _, size, n in self.nodes):
            raise ValueError("its parts do not add up to the clips that are done")
        return self


@dataclass
class _State:
    """Progress of an estimation: the largest complete subtrees of the clips done so far, in order."""

    settings: dict[str, Any]
    done: int
    nodes: list[_Node]

    def add(self, node: _Node) -> None:
        """Appends the next node and merges complete subtrees."""
        self.nodes.append(node)
        while len(self.nodes) > 1:
            left, right = self.nodes[-2:]
            if left.size != right.size or left.first % (2 * left.size) or left.first + left.size != right.first:
                return
            self.nodes[-2:] = [_Node(left.first, 2 * left.size, left.statistics.merge(right.statistics))]

    def total(self, meta: dict[str, Any] | None) -> LatentStatistics:
        """All nodes, merged from left to right."""
        total = LatentStatistics(meta)
        for node in self.nodes:
            total.merge(node.statistics)
        return total

    def save(self, path: Path, meta: dict[str, Any] | None) -> None:
        """Writes a statistics file that also contains the nodes."""
        text = {"done": self.done, "settings": self.settings}
        text["nodes"] = [(node.first, node.size, node.statistics.count) for node in self.nodes]
        tensors = {}
        for number, node in enumerate(self.nodes):
            if node.statistics.count:
                tensors[f"{number}.mean"], tensors[f"{number}.m2"] = node.statistics.moments
        self.total(meta).write(path, text, tensors)

    @classmethod
    def load(cls, path: Path) -> "_State":
        nodes = []
        try:
            with safe_open(path, "pt") as file:
                described = (file.metadata() or {}).get(KEY, "{}")
                if '"nodes"' not in described:
                    raise UnstillError(f"{path} is not the state of a run; delete it or save to another name.")
                text = parse_json(described, _StateText, str(path), "delete it and start again")
                for number, (first, size, count) in enumerate(text.nodes):
                    mean = m2 = None
                    if count:
                        mean, m2 = (file.get_tensor(f"{number}.{name}") for name in ("mean", "m2"))
                        check_moments(count, mean, m2, str(path))
                    nodes.append(_Node(first, size, LatentStatistics.of(count, mean, m2)))
        except (SafetensorError, OSError) as error:
            raise UnstillError(f"{path} is damaged ({first_line(error)}); delete it and start again.") from error
        return cls(text.settings, text.done, nodes)
