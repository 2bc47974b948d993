"""Motion score, as in "Identifying and Solving Conditional Image Leakage in Image-to-Video Diffusion Model"."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from unstill.errors import UnstillError
from unstill.metrics.flow import (
    FlowEngine,
    classical_pairs,
    frames_for_flow,
    is_classical,
    mean_magnitude,
    optical_flow,
)
from unstill.metrics.registry import SetScore, metric, set_metric


Reduction = Literal["sum", "mean", "mean_times_frames"]
PAPER_SIZE = (450, 800)
VISIBLE_SHARE = 0.0015
"""Of the shorter side per frame: smaller motion is invisible, and flow estimators read this much from noise."""


def pair_motion(
    video: Tensor,
    flow: str | FlowEngine = "farneback",
    size: tuple[int, int] | None = PAPER_SIZE,
    weights: str | Path | None = None,
) -> Tensor:
    """
    Mean flow magnitude, in pixels of the resized frame, of every pair of neighbours: (F-1,) float64.

    Args: as `unstill.metrics.optical_flow`.
    """
    if is_classical(flow, weights):
        pairs = classical_pairs(str(flow), frames_for_flow(video, size), size, mean_magnitude)
        return torch.tensor(list(pairs), dtype=torch.float64)
    return torch.stack(
        [field.norm(dim=0).mean(dtype=torch.float64).cpu() for field in optical_flow(video, flow, size, weights)]
    )


def motion_score(
    video: Tensor,
    flow: str | FlowEngine = "farneback",
    size: tuple[int, int] | None = PAPER_SIZE,
    reduction: Reduction = "sum",
    weights: str | Path | None = None,
) -> float:
    """
    How much a video moves: the mean flow magnitude between neighbouring frames, summed over the frames.

    The unit is pixels of the resized frame, so the score depends on `size`, on the frame rate and on the estimator:
    compare only scores that share all three. Farneback measures almost nothing on pictures that were enlarged several
    times: for videos much smaller than `size` use `"dis"`, or `size=None`. No estimator returns 0 for a still video
    with sensor noise.

    Args:
        video: uint8 or float in [0, 1], (F, 3, H, W), F >= 2.
        flow: `"farneback"`, `"dis"`, `"raft"` (the paper's), or any engine (see `unstill.metrics.flow`).
        size: (height, width) the frames are resized to; the paper's 450 x 800. None leaves them as they are.
        reduction: `"sum"` over the F-1 pairs, as the paper says; `"mean"` per pair; `"mean_times_frames"`, F times the
            mean: the numbers of the paper's tables are multiples of 0.16 = 16 frames x 0.01, which fits this reading.
        weights: of RAFT: a checkpoint file, or the name of torchvision weights.

    Raises:
        UnstillError: for a video of one frame, a wrong shape or range, or an unknown estimator.
    """
    if reduction not in ("sum", "mean", "mean_times_frames"):
        raise UnstillError(f"Unknown reduction {reduction!r}; choose sum, mean or mean_times_frames.")
    pairs = pair_motion(video, flow, size, weights)
    if reduction == "sum":
        return float(pairs.sum())
    return float(pairs.mean()) * (len(video) if reduction == "mean_times_frames" else 1)


def top_motion(
    video: Tensor, flow: str | FlowEngine = "raft", weights: str | Path | None = None, share: float = 0.05
) -> Tensor:
    """Mean of the largest `share` of the flow magnitudes of every pair of neighbours: (F-1,) float64."""
    result = []
    for field in optical_flow(video, flow, None, weights):
        magnitudes = field.norm(dim=0).flatten()
        largest = magnitudes.topk(max(int(len(magnitudes) * share), 1)).values
        result.append(largest.mean(dtype=torch.float64).cpu())
    return torch.stack(result)


def is_dynamic(
    video: Tensor, fps: float = 8, flow: str | FlowEngine = "raft", weights: str | Path | None = None
) -> bool:
    """
    Whether VBench counts a video as moving; the dynamic degree of a set is the fraction of such videos.

    The video is subsampled to about 8 frames/s. A pair moves if the top 5 % of its flow exceeds 6 px per 256 px of the
    shorter side; the video, if at least round(F / 4) of its pairs do. VBench uses RAFT with the weights `raft-things`
    and leaves the border that pads frames to multiples of 8 in; here it is cut off.

    Args:
        video: uint8 or float in [0, 1], (F, 3, H, W).
        fps: frames per second of `video`.
    """
    if not fps > 0:
        raise UnstillError(f"The frame rate must be above 0, got {fps}.")
    thinned = video[:: max(1, round(fps / 8))]
    threshold = 6 * min(video.shape[-2:]) / 256
    moving = int((top_motion(thinned, flow, weights) > threshold).sum())
    return moving >= round(4 * len(thinned) / 16)


@metric(
    "dynamic_degree",
    label="share of videos that move (VBench)",
    topic="motion",
    better="higher",
    vbench=(0, 1),
    needs={"fps", "raft"},
)
def dynamic_degree(video: Tensor, fps: float, raft: FlowEngine) -> float:
    """1 if VBench counts the video as moving, else 0; see `is_dynamic`."""
    return float(is_dynamic(video, fps, raft))


@set_metric(
    "motion_score_error",
    of="motion_score",
    label="motion score differs from that of its reference video",
    topic="motion",
    unit="px",
    better="lower",
    needs={"reference"},
    paired=True,
)
def _motion_score_error(generated: Tensor, reference: Tensor) -> SetScore:
    return SetScore.mean((generated - reference).abs().flatten().tolist())


@dataclass(frozen=True, kw_only=True, slots=True)
class MotionResponse:
    """How a model follows a requested motion level, from pairs of requested and measured motion scores."""

    error: float
    """Mean of |measured - requested|, the motion-score error."""
    bias: float
    """Mean of measured - requested: above 0, the model moves too much."""
    slope: float
    """Least-squares slope of measured on requested: 1 follows the request, 0 ignores it. NaN for a single level."""


def motion_response(requested: Tensor, measured: Tensor) -> MotionResponse:
    """Compares motion scores (n,) measured on generated videos with the requested ones, in the same unit."""
    requested, measured = requested.double(), measured.double()
    if requested.shape != measured.shape or requested.ndim != 1 or not len(requested):
        raise UnstillError(
            f"One measured score (n,) per requested one is needed, got {tuple(measured.shape)} for "
            f"{tuple(requested.shape)}."
        )
    gap, centred = measured - requested, requested - requested.mean()
    slope = (centred * measured).sum() / centred.square().sum()
    return MotionResponse(error=float(gap.abs().mean()), bias=float(gap.mean()), slope=float(slope))
