"""Dense optical flow between neighbouring frames, by one interface over several estimators.

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

import cv2
import numpy as np
import torch
from torch import Tensor

from unstill.errors import UnstillError
from unstill.metrics.pixels import as_uint8
from unstill.metrics.raft import RAFT, RaftFlow


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


def _workers() -> int:
    return min(torch.get_num_threads(), os.cpu_count() or 1)


def _classical(estimate: Callable[[np.ndarray, np.ndarray], np.ndarray], video: Tensor) -> Iterator[Tensor]:
    pictures = [
        cv2.cvtColor(np.ascontiguousarray(frame.permute(1, 2, 0).numpy()), cv2.COLOR_RGB2GRAY) for frame in video.cpu()
    ]
    with _one_opencv_thread(), ThreadPoolExecutor(_workers()) as pool:
        for flow in pool.map(estimate, pictures[:-1], pictures[1:]):
            yield torch.from_numpy(flow).permute(2, 0, 1)


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
            f"The weights {name!r} could not be had from torchvision ({type(error).__name__}); "
            "pass a file, such as raft-things.pth of princeton-vl/RAFT."
        ) from error


def flow_engine(
    name: str, weights: str | Path | None = None, low_memory: bool = False, device: str = "cpu"
) -> FlowEngine:
    """The engine called `name`.

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
    return partial(_classical, _CLASSICAL[name])


def resize_video(video: Tensor, size: tuple[int, int]) -> Tensor:
    """uint8 (F, 3, H, W) to (F, 3, *size), aspect ratio not kept: by area where the height shrinks, else bilinear."""
    how = cv2.INTER_AREA if video.shape[2] > size[0] else cv2.INTER_LINEAR

    def resize(frame: Tensor) -> Tensor:
        picture = np.ascontiguousarray(frame.permute(1, 2, 0).numpy())
        return torch.from_numpy(cv2.resize(picture, size[::-1], interpolation=how)).permute(2, 0, 1)

    if tuple(video.shape[2:]) == tuple(size):
        return video
    with _one_opencv_thread(), ThreadPoolExecutor(_workers()) as pool:
        return torch.stack(list(pool.map(resize, video.cpu())))


def optical_flow(
    video: Tensor,
    flow: str | FlowEngine = "farneback",
    size: tuple[int, int] | None = None,
    weights: str | Path | None = None,
) -> Iterator[Tensor]:
    """Yield the F-1 flows (2, H, W), in pixels of the resized frames, between neighbouring frames of `video`.

    Args:
        video: uint8 or float in [0, 1], (F, 3, H, W), F >= 2.
        flow: `"farneback"`, `"dis"`, `"raft"`, or any engine.
        size: (height, width) the frames are resized to first, aspect ratio not kept; None leaves them.
        weights: of RAFT, see `flow_engine`.
    """
    video = as_uint8(video, frames=2)
    engine = flow_engine(flow, weights) if isinstance(flow, str) else flow
    height, width = size or video.shape[2:]
    if min(height, width) < 16:
        raise UnstillError(f"Optical flow needs frames of at least 16 x 16 pixels, got {height} x {width}.")
    return iter(engine(video if size is None else resize_video(video, size)))
