"""Motion onset: how long a video stands still before it moves."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from unstill.errors import UnstillError
from unstill.metrics.flow import FlowEngine
from unstill.metrics.motion import PAPER_SIZE, VISIBLE_SHARE, pair_motion


ONSET_SHARE = 0.25
"""The default share of a clip's mean motion; see `onset_time`."""


def onset_time(motion: Tensor, fps: float, floor: float = 0.0, share: float = ONSET_SHARE) -> float | None:
    """
    Seconds until the motion between neighbouring frames exceeds a share of its own mean, and stays above it.

    It must exceed it for two consecutive pairs (or up to the end), so that a jump from the first frame to the second
    does not count.

    Args:
        motion: of every pair of neighbouring frames (F-1,), see `pair_motion`.
        fps: frames per second.
        floor: smallest visible motion of a pair, in the unit of `motion`.
        share: of the mean over all pairs.

    Returns:
        0 for a video that moves from its first frame on; None for one that never moves by more than `floor`.
    """
    if not fps > 0:
        raise UnstillError(f"The frame rate must be above 0, got {fps}.")
    moving = motion > max(floor, share * float(motion.mean()))
    lasting = moving & torch.cat([moving[1:], moving.new_ones(1)])
    return int(lasting.int().argmax()) / fps if lasting.any() else None


def motion_onset(
    video: Tensor,
    fps: float,
    flow: str | FlowEngine = "dis",
    size: tuple[int, int] | None = PAPER_SIZE,
    weights: str | Path | None = None,
    share: float = ONSET_SHARE,
) -> float | None:
    """
    Seconds that a video stands still before it moves, as defined in `onset_time`.

    Motion counts as visible from 0.15 % of the shorter side per pair of frames.

    Args:
        video: uint8 or float in [0, 1], (F, 3, H, W), F >= 2.
        fps: its frames per second.
        flow, size, weights: as `unstill.metrics.optical_flow`.
        share: of the mean motion of the video.

    Returns:
        Seconds; None for a video that never moves visibly.
    """
    motion = pair_motion(video, flow, size, weights)
    return onset_time(motion, fps, VISIBLE_SHARE * min(size or video.shape[2:]), share)
