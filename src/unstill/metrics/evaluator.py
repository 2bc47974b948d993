"""Measures single video files with all metrics that apply; results are cached."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from torch import Tensor

from unstill.data import as_frames, read_image, read_video, resize_and_crop
from unstill.data.images import PICTURE_SUFFIXES
from unstill.errors import UnstillError
from unstill.metrics.inputs import EvaluationSettings, load_inputs
from unstill.metrics.record_cache import RecordCache
from unstill.metrics.registry import VideoMetric, metric, video_metrics


_OF_THE_VIDEO = {"fps", "image", "prompt"}


@metric("frames", label=None)
def frame_count(video: Tensor) -> int:
    """The number of frames that were read, for the note on unequal lengths."""
    return len(video)


class Evaluator:
    """
    Measures files with one set of settings.

    The cache has one record per file and metric. Its key consists of a hash of the file's content, the name and
    version of the metric, how the file is read, and the identity of every input that the metric uses. A new metric
    therefore leaves the records of the others valid.
    """

    def __init__(self, settings: EvaluationSettings, cache: RecordCache) -> None:
        self.settings, self.cache = settings, cache
        inputs = load_inputs(settings)
        self.inputs: dict[str, Any] = {name: entry.value for name, entry in inputs.items()}
        self.identities = {name: entry.identity for name, entry in inputs.items()}
        self.metrics = [entry for entry in video_metrics() if entry.needs <= inputs.keys() | _OF_THE_VIDEO]

    def measure(self, file: Path, image: Path | None = None, prompt: str | None = None) -> dict[str, Tensor]:
        """
        All values of a video, each (n,), from the cache where possible.

        Args:
            file: a video.
            image: its conditional image, a picture or a video whose first frame it is.
            prompt: its prompt.

        Raises:
            UnstillError: a file that cannot be read, or that a metric refuses.
        """
        content = _digest(file)
        identities = self.identities | {"fps": ""}  # it follows from the rest of the key
        if image is not None:
            identities["image"] = _digest(image)
        if prompt:
            identities["prompt"] = prompt
        values: dict[str, Tensor] = {}
        video, inputs = None, self.inputs
        for entry in self.metrics:
            if not entry.needs <= identities.keys():
                continue
            key = self.cache.key(content, self._settings_of(entry, identities))
            record = self.cache.load(key)
            if record is None:
                if video is None:
                    clip = read_video(file, fps=self.settings.fps, frames=self.settings.frames)
                    video, inputs = clip.frames, {**self.inputs, "fps": clip.fps}
                    if image is not None:
                        inputs["image"] = _read_picture(image, (video.shape[2], video.shape[3]))
                    if prompt:
                        inputs["prompt"] = prompt
                record = entry(video, inputs)
                self.cache.save(key, record)
            values |= record
        return values

    def _settings_of(self, entry: VideoMetric, identities: dict[str, str]) -> str:
        used = sorted((entry.needs | entry.optional) & identities.keys())
        read = {"frames": self.settings.frames, "fps": self.settings.fps}
        chosen = {name: identities[name] for name in used}
        return json.dumps({"metric": entry.name, "version": entry.version, "read": read, "inputs": chosen})


def _digest(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise UnstillError(f"{file} cannot be read ({error.strerror}).") from error


def _read_picture(file: Path, size: tuple[int, int]) -> Tensor:
    """A picture, or the first frame of a video, as uint8 (3, *size)."""
    if file.suffix.lower() in PICTURE_SUFFIXES:
        return as_frames([read_image(file, size)])[0]
    return resize_and_crop(read_video(file, frames=1).frames, size)[0]
