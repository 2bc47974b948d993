"""A cache on disk for measurements of videos, keyed by the content of the video and by the measurement."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from unstill.data.files import replacing
from unstill.metrics.features import VideoFeatures
from unstill.metrics.video_checks import check_uint8


log = logging.getLogger(__name__)


def cached_features(video: Tensor, extractor: VideoFeatures, folder: str | Path | None) -> Tensor:
    """
    `extractor(video)`, from the cache where possible.

    Args:
        video: uint8 or float in [0, 1], (F, 3, H, W).
        extractor: its `name` is part of the key and must differ between weights and settings.
        folder: of the cache; None caches nothing.

    Returns:
        The features (d,). The key contains a hash of the pixels, so that a renamed or copied video keeps its features.
    """
    if folder is None:
        return extractor(video)
    pixels = check_uint8(video).cpu().contiguous()
    digest = hashlib.sha256(f"{tuple(pixels.shape)} ".encode())
    digest.update(pixels.numpy().data)
    cache = RecordCache(folder)
    key = cache.key(digest.hexdigest(), extractor.name)
    record = cache.load(key)
    if record is None:
        record = {"features": extractor(video)}
        cache.save(key, record)
    return record["features"]


class RecordCache:
    """Small named tensors in a folder, one file per key, each written atomically."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    @staticmethod
    def key(content: str, settings: str) -> str:
        """File name without suffix for a measurement of `content` (a hex digest) with `settings` (any text)."""
        return f"{content[:24]}-{hashlib.sha256(settings.encode()).hexdigest()[:16]}"

    def load(self, key: str) -> dict[str, Tensor] | None:
        """The record saved under `key`; `None` if it does not exist or cannot be read."""
        try:
            return load_file(self.folder / f"{key}.safetensors")
        except (OSError, SafetensorError):
            return None

    def save(self, key: str, values: Mapping[str, Tensor]) -> None:
        """Writes a record. An existing file of its name is kept, even if it cannot be read."""
        path = self.folder / f"{key}.safetensors"
        if os.path.lexists(path):
            log.warning("%s cannot be read and is kept; delete it, so that its results can be cached.", path)
            return
        with replacing(path) as temporary:
            save_file({name: value.contiguous() for name, value in values.items()}, temporary)
