"""Motion score, as in "Identifying and Solving Conditional Image Leakage in Image-to-Video Diffusion Model"."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from unstill.errors import UnstillError
from unstill.metrics.flow import FlowEngine, optical_flow


Reduction = Literal["sum", "mean", "mean_times_frames"]
PAPER_SIZE = (450, 800)


def pair_motion(
    video: Tensor, flow: str | FlowEngine = "farneback", size: tuple[int, int] | None = PAPER_SIZE
) -> Tensor:
    """Mean flow magnitude, in pixels of the resized frame, of every pair of neighbours: (F-1,) float64.

    Args: as `unstill.metrics.optical_flow`.
    """
    return torch.stack(
        [field.norm(dim=0).mean(dtype=torch.float64).cpu() for field in optical_flow(video, flow, size)]
    )


def motion_score(
    video: Tensor,
    flow: str | FlowEngine = "farneback",
    size: tuple[int, int] | None = PAPER_SIZE,
    reduction: Reduction = "sum",
) -> float:
    """How much a video moves: the mean flow magnitude between neighbouring frames, summed over the frames.

    The unit is pixels of the resized frame, so the score depends on `size`, on the frame rate and on the estimator:
    compare only scores that share all three. Every estimator has a floor: a still video with
    sensor noise reads above 0.

    Args:
        video: uint8 or float in [0, 1], (F, 3, H, W), F >= 2.
        flow: `"farneback"`, `"dis"`, or any engine (see `unstill.metrics.flow`).
        size: (height, width) the frames are resized to; the paper's 450 x 800. None leaves them as they are.
        reduction: `"sum"` over the F-1 pairs, as the paper says; `"mean"` per pair; `"mean_times_frames"`, F times the
            mean: the numbers of the paper's tables are multiples of 0.16 = 16 frames x 0.01, which fits this reading.

    Raises:
        UnstillError: for a video of one frame, a wrong shape or range, or an unknown estimator.
    """
    if reduction not in ("sum", "mean", "mean_times_frames"):
        raise UnstillError(f"Unknown reduction {reduction!r}; choose sum, mean or mean_times_frames.")
    pairs = pair_motion(video, flow, size)
    if reduction == "sum":
        return float(pairs.sum())
    return float(pairs.mean()) * (len(video) if reduction == "mean_times_frames" else 1)
