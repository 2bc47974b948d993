"""
Motion affinity of PIA (Zhang et al., CVPR 2024): how far each frame is from the condition frame, in HSV and edges.

The distance is that of PIA's training code: hue in degrees, saturation in 0..1 (which therefore hardly counts), value
and edges in 0..255, absolute differences averaged over pixels and channels. The released code subtracts edges in 8
bits: an edge that appears counts 255, one that vanishes wraps around to 1. Its table of ranges was made that way, so
the same is done here.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import torch
from torch import Tensor

from unstill.errors import UnstillError
from unstill.metrics.registry import metric
from unstill.metrics.video_checks import check_uint8


# [smallest, largest] distance over WebVid-10M by |frame - condition frame|, from PIA's training configuration.
_PIA_RANGES = [
    (0.0, 0.0),
    (0.3535855, 24.23687346),
    (0.91609545, 30.65091947),
    (1.41165152, 34.40093286),
    (1.56943881, 36.99639585),
    (1.73182842, 39.42044163),
    (1.82733002, 40.94703526),
    (1.88060527, 42.66233244),
    (1.96208071, 43.73070788),
    (2.02723091, 44.25965378),
    (2.10820894, 45.66120213),
    (2.21115041, 46.29561324),
    (2.23412351, 47.08810863),
    (2.29430165, 47.9515062),
    (2.32986362, 48.69085638),
    (2.37310751, 49.19931439),
]


def _hsv(frame: Tensor) -> np.ndarray:
    """uint8 (3, H, W) to float32 (H, W, 3): hue 0..360, saturation 0..1, value 0..255."""
    picture = np.ascontiguousarray(frame.permute(1, 2, 0).numpy()).astype(np.float32)
    return cv2.cvtColor(picture, cv2.COLOR_RGB2HSV)


def _thick_edges(value: np.ndarray) -> np.ndarray:
    """uint8 (H, W) to uint8 (H, W), 0 or 255: Canny edges, dilated."""
    height, width = value.shape
    median = float(np.median(value))
    low, high = int(max(0, median * 2 / 3)), int(min(255, median * 4 / 3))
    side = 4 + round(math.sqrt(width * height) / 192)
    side += 1 - side % 2  # odd, so that lines thicken evenly
    return cv2.dilate(cv2.Canny(value, low, high), np.ones((side, side), np.uint8))


def motion_affinity(video: Tensor, condition_frame: int = 0, edges: bool = True) -> Tensor:
    """
    Distance of every frame to the condition frame: (F,) float64, 0 at `condition_frame`, larger for more motion.

    Args:
        video: uint8 or float in [0, 1], (F, 3, H, W).
        condition_frame: index of the frame compared with; negative counts from the end.
        edges: add dilated Canny edges as a fourth channel, as PIA's training does.
    """
    video = check_uint8(video).cpu()
    if not -len(video) <= condition_frame < len(video):
        raise UnstillError(f"There is no condition frame {condition_frame} in a video of {len(video)} frames.")
    pictures = [_hsv(frame) for frame in video]
    reference = pictures[condition_frame]
    distances = [np.abs(picture - reference).mean((0, 1), dtype=np.float64) for picture in pictures]
    if edges:
        lines = [_thick_edges(picture[..., 2].astype(np.uint8)) for picture in pictures]
        change = [(line - lines[condition_frame]).mean(dtype=np.float64) for line in lines]  # uint8: wraps around
        distances = [np.append(*pair) for pair in zip(distances, change, strict=True)]
    return torch.from_numpy(np.stack(distances)).mean(1)


@metric("motion_affinity", label="differs from the first frame (PIA)", topic="kind of motion", unit="levels")
def mean_motion_affinity(video: Tensor) -> float:
    """Mean over the frames of `motion_affinity`, the first frame included."""
    return float(motion_affinity(video).mean())


def affinity_coefficients(
    distances: Tensor,
    condition_frame: int = 0,
    ranges: Tensor | None = None,
    similarity: tuple[float, float] = (0.2, 1.0),
) -> Tensor:
    """
    PIA's conditioning coefficients (F,): 1 for the condition frame, less for frames that are further away.

    Args:
        distances: (F,), from `motion_affinity`.
        ranges: (D, 2), smallest and largest distance in a data set by |frame - condition frame|; PIA's for WebVid-10M
            when None (16 rows). A distance above the largest counts as 0.95 of it, below the smallest as the smallest.
        similarity: the range the coefficients are mapped to.
    """
    table = torch.tensor(_PIA_RANGES, dtype=torch.float64) if ranges is None else ranges.double()
    gaps = (torch.arange(len(distances)) - condition_frame % len(distances)).abs()
    if int(gaps.max()) >= len(table):
        raise UnstillError(
            f"The table of ranges covers {len(table)} frames, the video needs {int(gaps.max()) + 1}; pass a longer."
        )
    smallest, largest = table[gaps].unbind(1)
    distances = torch.where(distances > largest, 0.95 * largest, distances.double().maximum(smallest))
    coefficients = similarity[1] - distances / largest * (similarity[1] - similarity[0])
    return torch.where(gaps == 0, 1.0, coefficients)


def affinity_motion_level(distances: Tensor, largest: float, similarity: tuple[float, float] = (0.2, 1.0)) -> Tensor:
    """
    Motion level in [0, 0.8] as in appendix B of the leakage paper: one largest distance for a whole data set.

    Args:
        distances: (...,), of `motion_affinity`; the paper's has no edges.
        largest: the largest distance in the data set.
    """
    if not largest > 0:
        raise UnstillError(f"The largest distance of the data set must be above 0, got {largest}.")
    return distances.double() / largest * (similarity[1] - similarity[0])
