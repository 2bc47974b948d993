"""Clips to diagnose a model with: of the synthetic world, with alternative continuations, or real ones. Each is read
or rendered by its index alone, so that processes can share them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor

from unstill.data import synthetic_world
from unstill.data.captions import captions
from unstill.data.clips import ClipFolder, video_files
from unstill.data.images import frame_picture, resize_and_crop
from unstill.errors import UnstillError
from unstill.lab.bayes_optimal import candidates
from unstill.lab.toys import toy_masks
from unstill.metrics import pair_motion
from unstill.models.call_arguments import parameters


HELD_OUT = 77_000_000
"""First seed of the probe clips; training seeds are hashes, so they do not collide."""
LIVELY = (0.15, 1.0)
"""Motion levels of the world's clips; nearly static clips carry no information about motion."""


@dataclass(frozen=True, slots=True)
class ProbeClip:
    """A clip: `video` (F, 3, H, W) in [0, 1]; `motion`: its level, 1 is lively; `others` (N, F, 3, H, W): possible
    continuations of its first frame, itself first; `caption`: what happens, where that is known; `toys` (S, H, W):
    masks of the toys in the first frame, of the synthetic world."""

    video: Tensor
    motion: float
    others: Tensor | None = None
    caption: str | None = None
    toys: Tensor | None = None


class ProbeClips(Protocol):
    """`len(subjects)` of them; `subjects[i]` raises `UnstillError` where a clip cannot be read."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> ProbeClip: ...

    @property
    def fingerprint(self) -> str:
        """A text that differs for different clips."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class World:
    """Rendered clips of one toy in front of waves, held out from training; with `others` > 0 as many alternatives."""

    count: int
    frames: int
    size: tuple[int, int]
    seed: int = 0
    others: int = 0

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> ProbeClip:
        if not 0 <= index < self.count:
            raise IndexError(index)
        g, side = torch.Generator().manual_seed(HELD_OUT + 100_000 * self.seed + index), max(self.size)
        while True:
            scene = synthetic_world.sample_scene(1, g, toys=1, collage=0.0, size=side)
            motion = synthetic_world.sample_motion(scene, g)
            clip = synthetic_world.render(scene, motion, self.frames, side)
            level = clip.motion.item()
            if LIVELY[0] < level < LIVELY[1]:
                break
        video = candidates(scene, motion, g, self.others, self.frames, side).video if self.others else clip.video
        fitted = _eight_bits(resize_and_crop(video.flatten(0, 1), self.size)).unflatten(0, video.shape[:2])
        caption = captions(scene, motion, self.frames)[0]
        masks = resize_and_crop(toy_masks(scene, side)[:, None].expand(-1, 3, -1, -1).float(), self.size)[:, 0] > 0.5
        return ProbeClip(fitted[0], level, fitted if self.others else None, caption, masks)

    @property
    def fingerprint(self) -> str:
        return repr(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class Folder:
    """`count` clips of a folder of videos. A clip that cannot be read is replaced by another, which no other index
    uses."""

    folder: Path
    count: int
    frames: int
    fps: float | None
    size: tuple[int, int]
    seed: int = 0
    _clips: ClipFolder = field(init=False, repr=False)

    def __post_init__(self) -> None:
        each = -(-self.count // len(video_files(self.folder)))
        clips = ClipFolder(
            folder=self.folder, frames=self.frames, fps=self.fps, size=self.size, seed=self.seed, clips_per_video=each
        )
        object.__setattr__(self, "_clips", clips)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> ProbeClip:
        if not 0 <= index < self.count:
            raise IndexError(index)
        reasons = []
        for place in range(index, len(self._clips), self.count):
            try:
                pixels = self._clips[place].pixels
            except UnstillError as error:
                reasons.append(str(error))
                continue
            return ProbeClip(pixels, min(flow_of(pixels) / synthetic_world.SCORE_UNIT, 1.0))
        raise UnstillError(reasons[0])

    @property
    def fingerprint(self) -> str:
        return f"{self.count} {self._clips.fingerprint}"


def from_world(n: int, frames: int, size: tuple[int, int], seed: int = 0, others: int = 0) -> Iterator[ProbeClip]:
    """The clips of a `World`, one after the other."""
    rendered = World(count=n, frames=frames, size=size, seed=seed, others=others)
    return (rendered[i] for i in range(n))


def flow_of(video: Tensor) -> float:
    """Mean optical flow (DIS) of a clip `(F, 3, H, W)` in [0, 1], in picture sides per frame."""
    return float(pair_flows(video).mean())


def pair_flows(video: Tensor) -> Tensor:
    """As `flow_of`, of every pair of neighbouring frames: (F-1,). Small frames are enlarged to 256 pixels, where the
    estimator is reliable."""
    height, width = video.shape[-2:]
    scale = 256 / min(height, width)
    size = (round(height * scale), round(width * scale))
    return pair_motion(video, flow="dis", size=size) / min(size)


def picture_of(subject: ProbeClip) -> Image.Image:
    """The first frame, which is the model's image."""
    return frame_picture(subject.video[0])


def motion_argument(pipe: Any, subject: ProbeClip) -> float | None:
    """The clip's own motion level, for the embedded model, which knows that unit; others are left to their default."""
    return subject.motion if "motion" in parameters(type(pipe)) else None


def _eight_bits(frames: Tensor) -> Tensor:
    """As the clip would be read from a file: the pipeline's image has eight bits as well."""
    return (frames.clamp(0, 1) * 255).round() / 255
