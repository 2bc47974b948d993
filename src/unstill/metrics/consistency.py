"""
Similarity of the frames to each other, to the image and to the text, from features of an image encoder.

The formulas take features of one video, (F, d) with any norm; the encoders are in `unstill.metrics.encoders`. The
groups `clip_scores` and `dino_scores` compute the features of a video once for all scores of one encoder.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from unstill.errors import UnstillError
from unstill.metrics.encoders import FrameEncoder, aesthetic_quality
from unstill.metrics.registry import Value, metric, metric_group
from unstill.metrics.video_checks import check_uint8


def _cosine(x: Tensor, y: Tensor) -> Tensor:
    return functional.cosine_similarity(x.double(), y.double(), dim=-1)


def _check_several(frames: Tensor) -> None:
    if frames.ndim != 2 or len(frames) < 2:
        raise UnstillError(f"Features of at least 2 frames (F, d) are needed, got {tuple(frames.shape)}.")


def image_fidelity(frames: Tensor, image: Tensor) -> float:
    """Mean cosine of the frames (F, d) with the conditional image (d,), frame 0 included (noise rectification's)."""
    return float(_cosine(frames, image[None]).mean())


def text_alignment(frames: Tensor, text: Tensor) -> float:
    """Mean cosine of the frames (F, d) with the prompt (d,). VBench's `appearance_style` is this, for a style."""
    return float(_cosine(frames, text[None]).mean())


def temporal_coherence(frames: Tensor, pairs: Literal["neighbours", "all"] = "neighbours") -> float:
    """Mean cosine between frames (F, d): of neighbours, or of all pairs. Papers often do not say which they mean."""
    _check_several(frames)
    if pairs == "neighbours":
        return float(_cosine(frames[:-1], frames[1:]).mean())
    if pairs != "all":
        raise UnstillError(f"Unknown pairs {pairs!r}; choose neighbours or all.")
    unit = functional.normalize(frames.double(), dim=1)
    n = len(unit)
    return float(((unit @ unit.T).sum() - n) / (n * (n - 1)))


def frame_consistency(frames: Tensor) -> Tensor:
    """
    VBench's subject (DINO) and background (CLIP) consistency of the frames after the first: (F-1,) in [0, 1].

    Each is the mean of its cosines with the frame before and with the first frame, negative ones counted as 0. VBench
    averages over all frames of all videos, so long videos count for more: average these values, not video means.
    """
    _check_several(frames)
    before, first = _cosine(frames[1:], frames[:-1]), _cosine(frames[1:], frames[:1])
    return (before.clamp_min(0) + first.clamp_min(0)) / 2


def image_consistency(frames: Tensor, image: Tensor) -> float:
    """VBench-I2V's `i2v_subject` (DINO): 0.4 best cosine with the image + 0.3 mean and 0.3 least of neighbours'."""
    _check_several(frames)
    to_image = _cosine(frames, image[None]).clamp_min(0)
    neighbours = _cosine(frames[1:], frames[:-1]).clamp_min(0)
    return float(0.4 * to_image.max() + 0.3 * neighbours.mean() + 0.3 * neighbours.min())


@metric(
    "temporal_flickering",
    label="steadiness, unfiltered (VBench)",
    topic="coherence",
    better="higher",
    vbench=(0.6293, 1.0),
)
def temporal_flickering(video: Tensor) -> float:
    """
    VBench's temporal flickering, exactly: 1 - mean |difference of neighbouring frames| / 255. Higher is steadier.

    VBench scores static videos only (it filters with RAFT first); on moving video the value falls with motion as well.

    Args:
        video: uint8 or float in [0, 1], (F, 3, H, W), F >= 2.
    """
    frames = check_uint8(video, frames=2).to(torch.int16)
    return 1 - float((frames[1:] - frames[:-1]).abs().double().mean()) / 255


@metric_group(
    Value("clip_image_fidelity", "resembles the image (CLIP)", "image", better="higher"),
    Value("clip_temporal_coherence", "neighbouring frames agree (CLIP)", "coherence", better="higher"),
    Value(
        "background_consistency", "background consistency (VBench)", "coherence", better="higher", vbench=(0.2615, 1)
    ),
    Value("clip_text_alignment", "matches the text (CLIP)", "text", better="higher", needs=("prompt",)),
    Value(
        "aesthetic_quality",
        "aesthetic quality (VBench)",
        "quality",
        better="higher",
        vbench=(0, 1),
        needs=("aesthetic",),
    ),
    needs={"clip"},
    optional={"image"},
)
def clip_scores(
    video: Tensor,
    clip: FrameEncoder,
    image: Tensor | None = None,
    prompt: str | None = None,
    aesthetic: str | None = None,
) -> dict[str, float | Tensor]:
    """
    All scores from CLIP features; those of VBench use frames resized without antialiasing.

    Args:
        video: uint8 (F, 3, H, W).
        image: uint8 (3, H, W); None compares with frame 0.
        prompt, aesthetic: text and file of the aesthetic head; None leaves their scores out.
    """
    frames = clip.images(video)
    vbench_frames = FrameEncoder(clip.model, clip.name, clip=True, antialias=False).images(video)
    values: dict[str, float | Tensor] = {
        "clip_image_fidelity": image_fidelity(frames, frames[0] if image is None else clip.images(image[None])[0]),
        "clip_temporal_coherence": temporal_coherence(frames),
        "background_consistency": frame_consistency(vbench_frames),
    }
    if prompt:
        values["clip_text_alignment"] = text_alignment(frames, clip.text(prompt))
    if aesthetic:
        values["aesthetic_quality"] = aesthetic_quality(vbench_frames, aesthetic)
    return values


@metric_group(
    Value("i2v_subject", "subject stays that of the image (VBench-I2V)", "image", better="higher"),
    Value("subject_consistency", "subject consistency (VBench)", "coherence", better="higher", vbench=(0.1462, 1)),
    needs={"dino"},
    optional={"image"},
)
def dino_scores(video: Tensor, dino: FrameEncoder, image: Tensor | None = None) -> dict[str, float | Tensor]:
    """All scores from DINO features. Args: as `clip_scores`."""
    frames = dino.images(video)
    return {
        "subject_consistency": frame_consistency(frames),
        "i2v_subject": image_consistency(frames, frames[0] if image is None else dino.images(image[None])[0]),
    }
