"""Features of videos: an extractor that needs no weights, and a cache on disk."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Protocol

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from unstill.data.atomic import replacing
from unstill.metrics.pixels import as_float, as_uint8


class VideoFeatures(Protocol):
    """Anything that turns a uint8 video (F, 3, H, W) into one vector (d,); `name` tells weights and settings apart."""

    name: str

    def __call__(self, video: Tensor) -> Tensor: ...


class ProxyFeatures:
    """Proxy: 3-D convolutions with fixed random weights, no training, no download. 96 features.

    Frechet distances over them follow a trend (one model at two settings, on the same images), in units of their own.
    They are not FVD, and no number from them belongs next to a published one. Every pixel enters as colour and as
    change since the frame before, so that a frozen video is far from a moving one.
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


def cached_features(video: Tensor, extractor: VideoFeatures, folder: str | Path | None) -> Tensor:
    """`extractor(video)`, kept in `folder` under a hash of the pixels and of the extractor's name; None keeps nothing.

    The key is the content, so renaming or copying a video costs nothing and re-rendering one is noticed.
    """
    if folder is None:
        return extractor(video)
    pixels = as_uint8(video).cpu().contiguous()
    digest = hashlib.sha256(f"{extractor.name} {tuple(pixels.shape)} ".encode())
    digest.update(pixels.numpy().data)
    file = Path(folder) / f"{digest.hexdigest()[:40]}.safetensors"
    if not file.exists():
        with replacing(file) as temporary:
            save_file({"features": extractor(video).contiguous()}, temporary)
    return load_file(file)["features"]
