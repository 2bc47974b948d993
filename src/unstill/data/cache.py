"""
A cache of clips encoded by frozen networks (latents, image latents, tokens); each clip is encoded once.

The cache of a data set and a model is a subfolder named by a hash of both and of all settings, so that a stale cache
is never used. It consists of parts of `CLIPS_PER_PART` clips, each written atomically: several processes share the
parts, and an interrupted run computes only the missing ones. Floating-point tensors are stored in float16 (a relative
error of at most 2^-11, or 0.05 %) and returned as float32.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from pydantic import Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from unstill.data.files import replacing
from unstill.data.loading import read_ahead
from unstill.data.seeding import generator_for
from unstill.data.sources import Sample, Source
from unstill.documents import Stored, first_fault
from unstill.errors import UnstillError, first_line


log = logging.getLogger(__name__)

VERSION = 2  # 1: AVI with B-frames lost frames
CLIPS_PER_PART = 64
_KEY = "unstill.cache"

EncodeSample = Callable[[Sample, torch.Generator], Mapping[str, torch.Tensor]]
"""Maps a clip and a generator to named tensors, of the same shapes for every clip."""


@dataclass(frozen=True, slots=True)
class CachedClip:
    """One encoded clip: named tensors (float32, or integers), and the metadata of its `Sample`."""

    tensors: dict[str, torch.Tensor]
    caption: str
    fps: float
    name: str
    motion: float | None = None


@dataclass(frozen=True)
class CacheSettings:
    """
    Identifies a cache by everything that its content depends on.

    Attributes:
        folder: contains the caches of any number of data sets and models, each in a subfolder.
        source: of the clips; clip i is `source[i]`, the same in every epoch.
        model: identifies the encoders and their settings, for example by `fingerprint_of` their weights.
        seed: of the generators for `EncodeSample`, one for each clip.
    """

    folder: Path
    source: Source
    model: str
    seed: int = 0

    @cached_property
    def key(self) -> str:
        """A hash that differs for every data set, model, setting and seed."""
        content = json.dumps([VERSION, CLIPS_PER_PART, self.source.fingerprint, self.model, self.seed])
        return hashlib.sha256(content.encode()).hexdigest()

    @cached_property
    def parts(self) -> dict[Path, range]:
        """The files of a complete cache, and the indices of the clips in each."""
        folder, clips = Path(self.folder) / self.key[:16], range(len(self.source))
        starts = clips[::CLIPS_PER_PART]
        return {folder / f"part-{n:06d}.safetensors": clips[s : s + CLIPS_PER_PART] for n, s in enumerate(starts)}


class _ClipText(Stored):
    caption: str
    fps: float = Field(gt=0)
    name: str
    motion: float | None


class _PartText(Stored):
    """The JSON metadata of a part: the key of its cache, and one entry per row."""

    key: str
    clips: list[_ClipText] = Field(max_length=CLIPS_PER_PART)


def fill_cache(
    settings: CacheSettings,
    encode: EncodeSample,
    *,
    shard: tuple[int, int] = (0, 1),
    workers: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """
    Encodes the missing clips. With several processes, wait for all of them before `open_cache`.

    A clip that cannot be read is skipped with a warning. A part without any readable clip is tried again.

    Args:
        settings: of the cache.
        encode: maps a clip to tensors.
        shard: (index, count): this process computes every count-th part.
        workers: processes that read ahead; 0 reads in this process.
        progress: called with (clips done, clips of this process).

    Raises:
        UnstillError: a tensor that float16 cannot hold, or shapes that differ between clips.
    """
    index, shards = shard
    if not 0 <= index < shards:
        raise UnstillError(f"shard is (index, count) with 0 <= index < count, but got {shard}.")
    own_parts = list(settings.parts.items())[index::shards]
    missing = [(file, clips) for file, clips in own_parts if not _has_clips(file)]
    total = sum(len(clips) for _, clips in own_parts)
    done = total - sum(len(clips) for _, clips in missing)
    reading = read_ahead(settings.source, [clip for _, clips in missing for clip in clips], workers)
    for file, clips in missing:
        encoded: list[CachedClip] = []
        for clip in clips:
            sample, reason = next(reading)
            if sample is None:
                log.warning("Leaving out clip %d: %s", clip, reason)
            else:
                tensors = encode(sample, generator_for("cache", settings.seed, clip))
                halved = {name: _storable(tensor, name, sample.name) for name, tensor in tensors.items()}
                encoded.append(CachedClip(halved, sample.caption, sample.fps, sample.name, sample.motion))
            done += 1
            if progress is not None:
                progress(done, total)
        _write(file, settings.key, encoded)


def open_cache(settings: CacheSettings) -> "LatentCache":
    """
    Opens a complete cache.

    Raises:
        UnstillError: parts are missing, damaged or empty.
    """
    rows = list[tuple[Path, int]]()
    missing = [file for file in settings.parts if not file.exists()]
    if missing:
        raise UnstillError(
            f"The cache in {missing[0].parent} is not full: {len(missing)} of {len(settings.parts)} parts miss; "
            "fill it first."
        )
    for file in settings.parts:
        with _opened(file) as (_, text):
            if text.key != settings.key:
                raise UnstillError(f"{file} belongs to another cache; delete it, and it is created again.")
            rows += [(file, row) for row in range(len(text.clips))]
    if not rows:
        raise UnstillError(
            "None of the clips could be read, for the reasons in the warnings; replace these videos, or ask for other "
            "frames, another frame rate or another size."
        )
    return LatentCache(settings, tuple(rows))


@dataclass(frozen=True)
class LatentCache:
    """The clips of a complete cache, by index; `unstill.data.loading.Loader` accepts it like a source."""

    settings: CacheSettings
    rows: tuple[tuple[Path, int], ...]  # file and row of every clip

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> CachedClip:
        return self.read(index)

    def read(self, index: int, epoch: int = 0) -> CachedClip:
        """Clip `index`, the same in every epoch; raises UnstillError if the file is damaged."""
        file, row = self.rows[index]
        with _opened(file) as (part, text):
            tensors = {name: _restored(part.get_slice(name)[row]) for name in part.keys()}  # noqa: SIM118
            if wrong := [name for name, tensor in tensors.items() if not bool(tensor.isfinite().all())]:
                raise ValueError(f"{wrong[0]} holds NaN or infinity")
        return CachedClip(tensors, **text.clips[row].model_dump())

    def name(self, index: int) -> str:
        """The name of clip `index` for messages, or its file and row if that cannot be read."""
        file, row = self.rows[index]
        try:
            with _opened(file) as (_, text):
                return text.clips[row].name
        except UnstillError:
            return f"clip {row} of {file}"


def fingerprint_of(*modules: torch.nn.Module) -> str:
    """A hash of the names, dtypes and values of all weights, for `CacheSettings.model`."""
    digest = hashlib.sha256()
    for module in modules:
        for name, tensor in _tensors(module):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
            digest.update(tensor.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _tensors(module: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    for name, value in sorted(module.state_dict().items()):
        if isinstance(value, torch.Tensor):
            yield name, value


def _storable(tensor: torch.Tensor, name: str, clip: str) -> torch.Tensor:
    tensor = tensor.detach().cpu()
    if not tensor.is_floating_point():
        return tensor
    half = tensor.to(torch.float16)
    if not bool(half.isfinite().all()):
        raise UnstillError(
            f"{name!r} of {clip} holds NaN, infinity or numbers beyond 65,504, which the float16 cache cannot hold; "
            "encode in float32, or train without the cache."
        )
    return half


def _restored(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def _has_clips(file: Path) -> bool:
    """Whether a part is there with clips: the reason for having none, such as too little memory, may be gone."""
    if not file.exists():
        return False
    with _opened(file) as (_, text):
        return bool(text.clips)


def _write(file: Path, key: str, encoded: list[CachedClip]) -> None:
    shapes = [{name: tuple(tensor.shape) for name, tensor in clip.tensors.items()} for clip in encoded]
    other = next((number for number, shape in enumerate(shapes) if shape != shapes[0]), 0)
    if other:
        raise UnstillError(
            f"The clips of a cache are encoded to equal shapes, but {encoded[0].name} has {shapes[0]} and "
            f"{encoded[other].name} has {shapes[other]}."
        )
    names = shapes[0] if shapes else ()
    clips = [{"caption": e.caption, "fps": e.fps, "name": e.name, "motion": e.motion} for e in encoded]
    with replacing(file) as temporary:
        stacked = {name: torch.stack([clip.tensors[name] for clip in encoded]) for name in names}
        save_file(stacked, temporary, {_KEY: json.dumps({"key": key, "clips": clips})})


@contextmanager
def _opened(file: Path) -> Iterator[tuple[Any, _PartText]]:
    """Opens a part; yields the file and its metadata."""
    try:
        with safe_open(file, "pt") as part:
            text = _PartText.model_validate_json((part.metadata() or {}).get(_KEY, ""), strict=True)
            for name in part.keys():  # noqa: SIM118
                if part.get_slice(name).get_shape()[:1] != [len(text.clips)]:
                    raise ValueError(f"{name} is not one row for each of {len(text.clips)} clips")
            yield part, text
    except UnstillError:
        raise
    except (SafetensorError, OSError, ValueError, IndexError) as error:
        reason = first_fault(error) if isinstance(error, ValidationError) else first_line(error)
        raise UnstillError(f"{file} is damaged ({reason}); delete it, and it is created again.") from error
