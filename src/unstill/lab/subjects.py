"""Clips to probe a model with: of the synthetic world, with all that might have followed instead, or real ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from unstill.data import world
from unstill.data.clips import ClipFolder, video_files
from unstill.data.images import resize_and_crop
from unstill.lab.bayes import candidates
from unstill.metrics import motion_score
from unstill.models.calling import parameters


HELD_OUT = 77_000_000
"""Seeds from here on are not those of a training run, which are hashes."""
LIVELY = (0.15, 1.0)
"""Motion levels of the world's clips: what hardly moves says nothing about motion."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A clip: `video` (F, 3, H, W) in [0, 1]; `motion`: its level, 1 is lively; `others` (N, F, 3, H, W): what could
    have followed its first frame, itself first."""

    video: Tensor
    motion: float
    others: Tensor | None = None


def flow_of(video: Tensor) -> float:
    """Mean optical flow (DIS) of a clip `(F, 3, H, W)` in [0, 1], in picture sides per frame. Small frames are
    enlarged to 256 pixels, where the estimator is reliable."""
    height, width = video.shape[-2:]
    scale = 256 / min(height, width)
    size = (round(height * scale), round(width * scale))
    return motion_score(video, flow="dis", size=size, reduction="mean") / min(size)


def from_world(n: int, frames: int, size: tuple[int, int], seed: int = 0, others: int = 0) -> Iterator[Subject]:
    """`n` clips of one toy in front of waves, held out from training; with `others` > 0 as many alternatives each."""
    made, index, side = 0, 0, max(size)
    while made < n:
        g = torch.Generator().manual_seed(HELD_OUT + 100_000 * seed + index)
        index += 1
        scene = world.sample_scene(1, g, toys=1, collage=0.0, size=side)
        motion = world.sample_motion(scene, g)
        clip = world.render(scene, motion, frames, side)
        level = clip.motion.item()
        if not LIVELY[0] < level < LIVELY[1]:
            continue
        made += 1
        if others:
            video = candidates(scene, motion, g, others, frames, side).video
        else:
            video = clip.video
        fitted = _eight_bits(resize_and_crop(video.flatten(0, 1), size)).unflatten(0, video.shape[:2])
        yield Subject(fitted[0], level, fitted if others else None)


def from_folder(
    folder: Path, n: int, frames: int, fps: float | None, size: tuple[int, int], seed: int = 0
) -> Iterator[Subject]:
    """Up to `n` clips of a folder of videos; those that cannot be read are left out with a warning."""
    each = -(-n // len(video_files(folder)))
    clips = ClipFolder(folder=folder, frames=frames, fps=fps, size=size, seed=seed, clips_per_video=each)
    for made, clip in enumerate(clips):
        if made == n:
            return
        yield Subject(clip.pixels, min(flow_of(clip.pixels) / world.SCORE_UNIT, 1.0))


def picture_of(subject: Subject) -> Image.Image:
    """The first frame, which is the model's image."""
    return Image.fromarray((subject.video[0] * 255).round().byte().permute(1, 2, 0).numpy())


def motion_argument(pipe: Any, subject: Subject) -> float | None:
    """The clip's own motion level, for the embedded model, which knows that unit; others are left to their default."""
    return subject.motion if "motion" in parameters(type(pipe)) else None


def _eight_bits(frames: Tensor) -> Tensor:
    """As the clip would be read from a file: the pipeline's image has eight bits as well."""
    return (frames.clamp(0, 1) * 255).round() / 255
