"""
Sources of training clips: a folder of videos with captions, UCF101, tar shards, or the synthetic world.

`open_source(SourceSettings(...))` returns a source: `len(source)` clips, `source[i]`, and `source.read(i, epoch)`,
which reads another part of the same video in every epoch. A clip depends only on the settings, its index and its
epoch, not on workers, processes or earlier reads. A video that cannot be read raises UnstillError here;
`unstill.data.loading` replaces it.
"""

import hashlib
import os
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import torch

from unstill.data import synthetic_world
from unstill.data.captions import captions
from unstill.data.clips import clip_window
from unstill.data.images import Size, check_size
from unstill.data.seeding import generator_for, permutation
from unstill.data.synthetic_drawing import uniform
from unstill.data.video import read_video, video_info
from unstill.data.video_index import Listing, list_captioned, list_classes, list_folder
from unstill.errors import UnstillError


SourceKind = Literal["folder", "ucf101", "shards", "world"]
SOURCE_KINDS: tuple[SourceKind, ...] = ("folder", "ucf101", "shards", "world")


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceSettings:
    """
    Settings that determine the clips of a source: equal settings over equal files give equal clips.

    Attributes:
        kind: "folder" (videos below a folder), "ucf101" (a subfolder per class, whose name is the caption), "shards"
            (webdataset tar files: a video and a .txt or .json per sample) or "world" (see data/synthetic_world.py).
        path: the folder, or for shards a folder of tar files or one of them; `None` for the world.
        captions: for a folder: a CSV or JSONL file (see `video_index.list_captioned`); without it captions are "".
        frames: frames per clip.
        size: (H, W) to fill by resize and centre crop.
        fps: rate to sample at, whatever the video's; None takes stored frames, every `stride`-th.
        stride: without `fps`, every stride-th stored frame is taken; (low, high) draws it per clip, uniformly, lowered
            where a video is too short for it. The fps of a sample is then that of its file / stride.
        clips_per_video: clips from each video, at independent starts.
        limit: at most this many videos of the data set, drawn by `seed`; None takes all.
        clips: number of clips of the world per epoch; every epoch has different ones.
        speed: (low, high) in [0, 1]: the factor of the world's speeds is drawn from it, uniformly; None: as
            `synthetic_world.sample_motion` draws it.
        both_directions: whether half of the world's clips, drawn at random, are played backwards.
        seed: of the starts, the strides and the world.
    """

    kind: SourceKind = "folder"
    path: str | os.PathLike[str] | None = None
    captions: str | os.PathLike[str] | None = None
    frames: int = 16
    size: Size = (320, 512)
    fps: float | None = None
    stride: int | tuple[int, int] = 1
    clips_per_video: int = 1
    limit: int | None = None
    clips: int = 16384
    speed: tuple[float, float] | None = None
    both_directions: bool = False
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Sample:
    """
    One clip for training.

    Attributes:
        video: (F, 3, H, W) float32 in [0, 1].
        caption: empty where there is none.
        fps: frames per second of `video` (for DynamiCrafter's and SVD's conditioning).
        name: of the video, for messages.
        motion: motion level where it is known (in the world: 0 still, 1 fastest), else None.
    """

    video: torch.Tensor
    caption: str
    fps: float
    name: str
    motion: float | None = None

    @property
    def pixels(self) -> torch.Tensor:
        """Alias of `video` with the name used in `Clip`, for `unstill.statistics_estimation.estimate`."""
        return self.video


class Source(Protocol):
    """A data set of clips, by index and epoch."""

    @property
    def settings(self) -> SourceSettings: ...
    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Sample: ...
    def read(self, index: int, epoch: int = 0) -> Sample:
        """Clip `index` of `epoch`; raises UnstillError if it cannot be read, IndexError past the end."""
        ...

    def name(self, index: int) -> str:
        """The name of the video of clip `index`, for messages."""
        ...

    @property
    def fingerprint(self) -> str:
        """A hash of the settings and of the names and sizes of the files."""
        ...


def open_source(settings: SourceSettings) -> Source:
    """
    Opens the source that `settings` describe. Videos are listed here and opened when they are read.

    Raises:
        UnstillError: a folder or caption file that is missing, empty or of another kind, or settings that contradict
            each other.
    """
    _check(settings)
    if settings.kind == "world":
        return WorldSource(settings)
    listing = _listing(settings)
    if settings.limit is not None and settings.limit < len(listing):
        drawn = permutation(len(listing), "limit", settings.seed)[: settings.limit]
        listing = listing.chosen(sorted(drawn.tolist()))
    return VideoSource(settings, listing)


def _listing(settings: SourceSettings) -> Listing:
    assert settings.path is not None
    if settings.kind == "shards":
        from unstill.data.shards import list_shards

        return list_shards(settings.path)
    if settings.kind == "ucf101":
        return list_classes(settings.path)
    if settings.captions is not None:
        return list_captioned(settings.path, settings.captions)
    return list_folder(settings.path)


@dataclass(frozen=True)
class VideoSource:
    """Clips of listed videos: clip i is from video i // clips_per_video."""

    settings: SourceSettings
    listing: Listing

    def __len__(self) -> int:
        return len(self.listing) * self.settings.clips_per_video

    def __getitem__(self, index: int) -> Sample:
        return self.read(index)

    def read(self, index: int, epoch: int = 0) -> Sample:
        s = self.settings
        video, number = divmod(index, s.clips_per_video)
        if not 0 <= video < len(self.listing):
            raise IndexError(f"clip {index} of {len(self)}")
        file, name = self.listing.video(video), self.listing.names[video]
        drawn = random.Random(f"{s.seed}/{name}/{epoch * s.clips_per_video + number}")
        start, stride = clip_window(video_info(file), s.frames, s.fps, s.stride, drawn)
        clip = read_video(file, s.fps, s.frames, s.size, start=start, stride=stride)
        return Sample(clip.pixels, self.listing.captions[video], clip.fps, name)

    def name(self, index: int) -> str:
        return self.listing.names[index // self.settings.clips_per_video]

    @property
    def fingerprint(self) -> str:
        s = self.settings
        digest = hashlib.sha256(repr((s.frames, s.size, s.fps, s.stride, s.clips_per_video, s.seed)).encode())
        for index in range(len(self.listing)):
            entry = (self.listing.names[index], self.listing.captions[index], self.listing.bytes_of(index))
            digest.update(repr(entry).encode())
        return digest.hexdigest()


@dataclass(frozen=True)
class WorldSource:
    """Square clips of the synthetic world with known motion levels, different for every index, epoch and seed."""

    settings: SourceSettings

    def __len__(self) -> int:
        return self.settings.clips

    def __getitem__(self, index: int) -> Sample:
        return self.read(index)

    def read(self, index: int, epoch: int = 0) -> Sample:
        s = self.settings
        if not 0 <= index < len(self):
            raise IndexError(f"clip {index} of {len(self)}")
        generator = generator_for("world", s.seed, epoch, index)
        scene = synthetic_world.sample_scene(1, generator, size=s.size[0])
        level = None if s.speed is None else uniform((1,), *s.speed, generator)
        motion = synthetic_world.sample_motion(scene, generator, level)
        backwards = s.both_directions and bool(uniform((), 0, 1, generator) < 0.5)
        clips = synthetic_world.render(scene, motion, s.frames, s.size[0])
        video = clips.video[0].flip(0) if backwards else clips.video[0]
        caption = captions(scene, motion, s.frames, backwards)[0]
        return Sample(video, caption, s.fps or 8.0, self.name(index), float(clips.motion[0]))

    def name(self, index: int) -> str:
        return f"world clip {index}"

    @property
    def fingerprint(self) -> str:
        s = self.settings
        settings = ("world", s.frames, s.size, s.fps, s.clips, s.seed, s.speed, s.both_directions)
        return hashlib.sha256(repr(settings).encode()).hexdigest()


def _check(s: SourceSettings) -> None:
    if s.kind not in SOURCE_KINDS:
        raise UnstillError(f"A source is one of {', '.join(SOURCE_KINDS)}, but got {s.kind!r}.")
    check_size(s.size)
    low, high = s.stride if isinstance(s.stride, tuple) else (s.stride, s.stride)
    numbers = {
        "frames": s.frames,
        "stride": low,
        "clips_per_video": s.clips_per_video,
        "limit": 1 if s.limit is None else s.limit,
    }
    for what, number in numbers.items():
        if number < 1:
            raise UnstillError(f"{what} must be a whole number of at least 1, but got {number}.")
    if high < low:
        raise UnstillError(f"A stride is drawn from (low, high), but got ({low}, {high}); exchange the two.")
    if s.fps is not None and not 0 < s.fps < float("inf"):
        raise UnstillError(f"fps must be a positive number, but got {s.fps}.")
    if s.fps is not None and high > 1:
        raise UnstillError("fps and stride both decide which frames are taken; give one of them.")
    if s.captions is not None and s.kind != "folder":
        raise UnstillError(f"A caption file belongs to a folder of videos, not to {s.kind}; leave it out.")
    if s.kind != "world":
        if s.speed is not None or s.both_directions:
            raise UnstillError(
                f"speed and both_directions belong to the synthetic world, not to {s.kind}; leave them out."
            )
        if s.path is None:
            raise UnstillError(f"The source {s.kind} needs a path; pass the folder that holds its videos.")
        return
    if s.path is not None or high > 1:
        raise UnstillError("The synthetic world is rendered on demand: it takes neither a path nor a stride.")
    slow, fast = s.speed or (0.0, 1.0)
    if not 0 <= slow <= fast <= 1:
        raise UnstillError(f"speed is (low, high) with 0 <= low <= high <= 1, but got ({slow:g}, {fast:g}).")
    if s.clips < 1 or s.size[0] != s.size[1]:
        raise UnstillError(
            f"The synthetic world needs at least one clip and a square size, but got {s.clips} and {s.size}."
        )


def guess_kind(path: str | os.PathLike[str]) -> SourceKind:
    """The kind of source that a path on the command line means: the word `world`, tar files, or a folder of videos."""
    if str(path) == "world" and not Path(path).exists():
        return "world"
    path = Path(path)
    if path.suffix == ".tar" or (path.is_dir() and any(path.glob("*.tar"))):
        return "shards"
    return "folder"
