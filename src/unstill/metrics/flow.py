"""
Dense optical flow between neighbouring frames, with one interface to several estimators.

An engine is any callable that takes a uint8 video (F, 3, H, W) and yields F-1 flows (2, H, W) in pixels, channel 0
horizontal (positive to the right), channel 1 vertical (positive downwards). Engines are known to disagree by a factor
of 2 to 3 on natural video (DIS reports more in flat areas): numbers are comparable only within one engine.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
import torch
from torch import Tensor

from unstill.errors import UnstillError
from unstill.metrics.raft import RAFT, RaftFlow
from unstill.metrics.video_checks import check_uint8


T = TypeVar("T")
FlowEngine = Callable[[Tensor], Iterator[Tensor]]


def _farneback(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return cv2.calcOpticalFlowFarneback(
        first, second, None, pyr_scale=0.5, levels=5, winsize=15, iterations=3, poly_n=5, poly_sigma=1.2, flags=0
    )


def _dis(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    # A DIS object keeps buffers between calls, so it cannot be shared by threads; making one costs microseconds.
    return cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(first, second, None)


_CLASSICAL = {"farneback": _farneback, "dis": _dis}


@contextmanager
def _single_opencv_thread() -> Iterator[None]:
    # DIS splits the picture into one stripe per thread, and its result depends on the split. With one thread per pair
    # results are the same on every machine; pairs run in parallel.
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


def _workers() -> int:
    return min(torch.get_num_threads(), os.cpu_count() or 1)


def _picture(frame: Tensor) -> np.ndarray:
    """uint8 (3, H, W) on the CPU to (H, W, 3); OpenCV interleaves planes twenty times as fast as a permuted copy."""
    return cv2.merge([np.ascontiguousarray(plane) for plane in frame.numpy()])


def _resized(picture: np.ndarray, size: tuple[int, int] | None) -> np.ndarray:
    if size is None or picture.shape[:2] == tuple(size):
        return picture
    how = cv2.INTER_AREA if picture.shape[0] > size[0] else cv2.INTER_LINEAR
    return cv2.resize(picture, size[::-1], interpolation=how)


def classical_pairs(
    name: str, video: Tensor, size: tuple[int, int] | None, function: Callable[[np.ndarray], T]
) -> Iterator[T]:
    """
    `function` of the flow (H, W, 2) of every pair of neighbours, by an engine without weights.

    Every frame is resized and converted to grey once; pairs run in parallel.
    """
    estimate = _CLASSICAL[name]

    def grey(frame: Tensor) -> np.ndarray:
        return cv2.cvtColor(_resized(_picture(frame), size), cv2.COLOR_RGB2GRAY)

    def pair(first: np.ndarray, second: np.ndarray) -> T:
        return function(estimate(first, second))

    with _single_opencv_thread(), ThreadPoolExecutor(_workers()) as pool:
        pictures = list(pool.map(grey, video.cpu()))
        yield from pool.map(pair, pictures[:-1], pictures[1:])


def mean_magnitude(flow: np.ndarray) -> float:
    """
    Mean length of the vectors of a flow (H, W, 2), summed in float64.

    Computed by numpy, which always rounds the same way: the last bits of `cv2.magnitude` and `cv2.mean` depend on the
    alignment of a buffer, so that two calls on one video differ.
    """
    squares = np.square(flow[..., 0])
    squares += np.square(flow[..., 1])
    return float(np.sqrt(squares, out=squares).mean(dtype=np.float64))


def _classical(name: str, video: Tensor) -> Iterator[Tensor]:
    return classical_pairs(name, video, None, lambda flow: torch.from_numpy(flow).permute(2, 0, 1))


def is_classical(flow: str | FlowEngine, weights: str | Path | None = None) -> bool:
    """Whether `flow` names an engine of OpenCV."""
    return isinstance(flow, str) and flow in _CLASSICAL and weights is None


@lru_cache(maxsize=2)
def _raft(weights: str, low_memory: bool, device: str) -> RaftFlow:
    if re.fullmatch(r"(Raft_(Large|Small)_Weights\.)?C_T_\w+", weights):
        return RaftFlow(RAFT.of(_torchvision_weights(weights), low_memory).to(device))
    return RaftFlow(RAFT.load(weights, low_memory).to(device))


def _torchvision_weights(name: str) -> dict[str, Tensor]:
    try:
        from torchvision.models import get_weight  # type: ignore[import-not-found, unused-ignore]

        return get_weight(name if "." in name else f"Raft_Large_Weights.{name}").get_state_dict()
    except Exception as error:  # next to a torch of another build torchvision fails with a RuntimeError on import
        raise UnstillError(
            f"The weights {name!r} could not be loaded from torchvision ({type(error).__name__}); "
            "pass a file, such as raft-things.pth of princeton-vl/RAFT."
        ) from error


def flow_engine(
    name: str, weights: str | Path | None = None, low_memory: bool = False, device: str = "cpu"
) -> FlowEngine:
    """
    Creates an optical flow engine.

    Args:
        name: `"farneback"` or `"dis"`, which need no weights, or `"raft"`.
        weights: for RAFT, a checkpoint file of princeton-vl/RAFT or of torchvision, either size; or the name of
            torchvision weights, such as `"C_T_V1"` or `"Raft_Small_Weights.C_T_V2"`, where torchvision works.
        low_memory: for RAFT, do not hold the all-pairs correlation volume.
        device: for RAFT, where it runs.
    """
    if name == "raft":
        if weights is None:
            raise UnstillError(
                "RAFT needs weights: pass a file such as raft-things.pth of princeton-vl/RAFT, or the name of "
                "torchvision weights such as C_T_V1; without any, choose the flow farneback or dis."
            )
        return _raft(str(weights), low_memory, device)
    if name not in _CLASSICAL:
        raise UnstillError(f"Unknown optical flow {name!r}; choose one of {', '.join(_CLASSICAL)}, raft.")
    if weights is not None:
        raise UnstillError(f"The optical flow {name!r} has no weights; leave them out, or choose raft.")
    return partial(_classical, name)


def resize_video(video: Tensor, size: tuple[int, int]) -> Tensor:
    """uint8 (F, 3, H, W) to (F, 3, *size), aspect ratio not kept: by area where the height shrinks, else bilinear."""
    if tuple(video.shape[2:]) == tuple(size):
        return video

    def resize(frame: Tensor) -> Tensor:
        return torch.from_numpy(_resized(_picture(frame), size)).permute(2, 0, 1)

    with _single_opencv_thread(), ThreadPoolExecutor(_workers()) as pool:
        return torch.stack(list(pool.map(resize, video.cpu())))


def frames_for_flow(video: Tensor, size: tuple[int, int] | None) -> Tensor:
    """The video as uint8; raises UnstillError for fewer than 2 frames, or frames that are too small for any engine."""
    video = check_uint8(video, frames=2)
    height, width = size or video.shape[2:]
    if min(height, width) < 16:
        raise UnstillError(f"Optical flow needs frames of at least 16 x 16 pixels, got {height} x {width}.")
    return video


def optical_flow(
    video: Tensor,
    flow: str | FlowEngine = "farneback",
    size: tuple[int, int] | None = None,
    weights: str | Path | None = None,
) -> Iterator[Tensor]:
    """
    Yields the F-1 flows (2, H, W), in pixels of the resized frames, between neighbouring frames of `video`.

    Args:
        video: uint8 or float in [0, 1], (F, 3, H, W), F >= 2.
        flow: `"farneback"`, `"dis"`, `"raft"`, or any engine.
        size: (height, width) the frames are resized to first, aspect ratio not kept; None leaves them.
        weights: of RAFT, see `flow_engine`.
    """
    video = frames_for_flow(video, size)
    engine = flow_engine(flow, weights) if isinstance(flow, str) else flow
    return iter(engine(video if size is None else resize_video(video, size)))
