"""Features of videos: the interface of an extractor, and an extractor that needs no weights."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from unstill.metrics.registry import metric
from unstill.metrics.video_checks import as_float


class VideoFeatures(Protocol):
    """Maps a uint8 video (F, 3, H, W) to one vector (d,); `name` identifies weights and settings."""

    name: str

    def __call__(self, video: Tensor) -> Tensor: ...


class ProxyFeatures:
    """
    Proxy: 96 features of 3-D convolutions with fixed random weights; nothing is trained or downloaded.

    Frechet distances between them show a trend (one model with two settings on the same images). They are not FVD and
    not comparable to published numbers. The inputs are colours and differences to the previous frame, so that a frozen
    video is far from a moving one.
    """

    name = "proxy-random-3d-convolutions-v1"
    _WIDTHS = (6, 32, 64, 96)
    _SIDE = 64

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.weights = [
            torch.randn(after, before, 3, 3, 3, generator=generator) * (2 / (27 * before)) ** 0.5
            for before, after in zip(self._WIDTHS, self._WIDTHS[1:], strict=False)
        ]

    @torch.no_grad()
    def __call__(self, video: Tensor) -> Tensor:
        pixels = as_float(video).cpu()
        pixels = functional.interpolate(pixels, (self._SIDE, self._SIDE), mode="bilinear", antialias=True)
        change = torch.diff(pixels, dim=0, prepend=pixels[:1])
        x = torch.cat([pixels * 2 - 1, change * 4], 1).transpose(0, 1)[None]  # (1, 6, F, 64, 64)
        for weight in self.weights:
            x = functional.leaky_relu(functional.conv3d(x, weight, stride=(1, 2, 2), padding=1), 0.2)
        return x.mean((0, 2, 3, 4))


@metric("proxy_features", label=None, needs={"proxy_features"})
def proxy_features(video: Tensor, proxy_features: ProxyFeatures) -> Tensor:
    """The features of `ProxyFeatures`, for `proxy_frechet_distance`."""
    return proxy_features(video)
