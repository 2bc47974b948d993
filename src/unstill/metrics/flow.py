"""Dense optical flow between neighbouring frames, by one interface over several estimators.

An engine is any callable that takes a uint8 video (F, 3, H, W) and yields F-1 flows (2, H, W) in pixels, channel 0
horizontal (positive to the right), channel 1 vertical (positive downwards). Engines are known to disagree by a factor
of 2 to 3 on natural video (DIS reports more in flat areas): numbers are comparable only within one engine.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import cv2
import numpy as np
import torch
from torch import Tensor

from unstill.errors import UnstillError
from unstill.metrics.pixels import as_uint8


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
def _one_opencv_thread() -> Iterator[None]:
    # DIS splits the picture into one stripe per thread and its result depends on the split; with one thread per pair
    # results are the same on every machine, and the pairs themselves run in parallel.
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


def _classical(video: Tensor, size: tuple[int, int] | None, name: str) -> Iterator[Tensor]:
    estimate = _CLASSICAL[name]

    def grey(frame: Tensor) -> np.ndarray:
        picture = np.ascontiguousarray(frame.permute(1, 2, 0).numpy())  # (H, W, 3)
        if size is not None and picture.shape[:2] != size:
            shrinking = picture.shape[0] > size[0]
            picture = cv2.resize(picture, size[::-1], interpolation=cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR)
        return cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)

    workers = min(torch.get_num_threads(), os.cpu_count() or 1)
    with _one_opencv_thread(), ThreadPoolExecutor(workers) as pool:
        pictures = list(pool.map(grey, video.cpu()))
        for flow in pool.map(estimate, pictures[:-1], pictures[1:]):
            yield torch.from_numpy(flow).permute(2, 0, 1)


def optical_flow(
    video: Tensor, flow: str | FlowEngine = "farneback", size: tuple[int, int] | None = None
) -> Iterator[Tensor]:
    """Yield the F-1 flows (2, H, W), in pixels of the resized frames, between neighbouring frames of `video`.

    Args:
        video: uint8 or float in [0, 1], (F, 3, H, W), F >= 2.
        flow: `"farneback"`, `"dis"`, or any engine.
        size: (height, width) the frames are resized to first, aspect ratio not kept; None leaves them.
    """
    video = as_uint8(video, frames=2)
    if callable(flow):
        return iter(flow(video))
    if flow not in _CLASSICAL:
        raise UnstillError(f"Unknown optical flow {flow!r}; choose one of {', '.join(_CLASSICAL)}.")
    height, width = size or video.shape[2:]
    if min(height, width) < 16:
        raise UnstillError(f"Optical flow needs frames of at least 16 x 16 pixels, got {height} x {width}.")
    return _classical(video, size, flow)
