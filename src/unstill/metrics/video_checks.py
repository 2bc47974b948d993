"""The two pixel formats that every metric accepts, and the checks of their arguments."""

from __future__ import annotations

import torch
from torch import Tensor

from unstill.errors import UnstillError


_SLACK = 0.01  # decoders overshoot [0, 1] a little; a [-1, 1] video is a mistake


def check_video(video: Tensor, frames: int = 1) -> None:
    """Raises `UnstillError` unless `video` is a uint8 or floating (F, 3, H, W) tensor of at least `frames` frames."""
    if not isinstance(video, Tensor) or video.ndim != 4 or video.shape[1] != 3:
        got = tuple(video.shape) if isinstance(video, Tensor) else type(video).__name__
        raise UnstillError(f"A video here is one clip of shape (F, 3, H, W), got {got}; pass a single RGB clip.")
    if video.shape[0] < frames:
        raise UnstillError(f"This metric needs at least {frames} frames, the video has {video.shape[0]}.")
    if min(video.shape[2:]) == 0:
        raise UnstillError(f"The frames are empty (height {video.shape[2]}, width {video.shape[3]}).")
    if video.dtype != torch.uint8 and not video.is_floating_point():
        raise UnstillError(f"A video is uint8 in 0..255 or floating in [0, 1], got {video.dtype}; convert it first.")


def _check_range(pixels: Tensor) -> None:
    low, high = pixels.aminmax()
    if not (low >= -_SLACK and high <= 1 + _SLACK):  # written so that NaN fails as well
        raise UnstillError(
            f"A floating video is in [0, 1], this one spans [{low:.3g}, {high:.3g}]; "
            "rescale it, or pass uint8 for 0..255."
        )


def check_uint8(video: Tensor, frames: int = 1) -> Tensor:
    """(F, 3, H, W) in 0..255, rounded to the nearest level."""
    check_video(video, frames)
    if video.dtype == torch.uint8:
        return video
    _check_range(video)
    return video.float().mul(255).round().clamp(0, 255).to(torch.uint8)


def as_float(video: Tensor, frames: int = 1) -> Tensor:
    """(F, 3, H, W) float32 in [0, 1]."""
    check_video(video, frames)
    if video.dtype == torch.uint8:
        return video.float() / 255
    _check_range(video)
    return video.float().clamp(0, 1)
