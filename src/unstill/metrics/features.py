"""Features of videos: an extractor that needs no weights, and a cache on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from unstill.data.files import replacing
from unstill.metrics.video_checks import as_float, as_uint8


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
    digest = hashlib.sha256(f"{tuple(pixels.shape)} ".encode())
    digest.update(pixels.numpy().data)
    records = Records(folder)
    key = records.key(digest.hexdigest(), extractor.name)
    found = records.load(key)
    if found is None:
        found = {"features": extractor(video)}
        records.save(key, found)
    return found["features"]


class Records:
    """Small named tensors on disk, one file per key, each written whole or not at all."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    @staticmethod
    def key(content: str, settings: str) -> str:
        """A file name for what was measured on `content` (a digest) under `settings` (any text)."""
        return f"{content[:24]}-{hashlib.sha256(settings.encode()).hexdigest()[:16]}"

    def load(self, key: str) -> dict[str, Tensor] | None:
        """What was saved under `key`; None if nothing was, or if it cannot be read any more."""
        try:
            return load_file(self.folder / f"{key}.safetensors")
        except (OSError, SafetensorError):
            return None

    def save(self, key: str, values: Mapping[str, Tensor]) -> None:
        with replacing(self.folder / f"{key}.safetensors") as temporary:
            save_file({name: value.contiguous() for name, value in values.items()}, temporary)
