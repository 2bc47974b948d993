"""Small moving patterns as video files, and what the tests of evaluations share."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor

import unstill.metrics
from unstill.data import read_video, write_video
from unstill.metrics import EvaluationSettings, registry
from unstill.metrics.registry import set_metrics, video_metrics


SETTINGS = EvaluationSettings(size=(48, 64))


def drifting(speed: float, seed: int, frames: int = 4) -> Tensor:
    """A smooth pattern that moves `speed` pixels per frame, uint8 (F, 3, 32, 48)."""
    generator = torch.Generator().manual_seed(seed)
    a, b, phase = torch.rand(3, generator=generator).tolist()
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(48.0), indexing="ij")
    waves = [
        ((x - speed * f) * (0.2 + 0.2 * a) + 6 * phase).sin() * (y * (0.2 + 0.2 * b)).cos() for f in range(frames)
    ]
    picture = torch.stack(waves)[:, None] * torch.tensor([100.0, 80.0, -60.0])[:, None, None]
    return (picture + 127).byte()


def folder(path: Path, speed: float, count: int = 3) -> Path:
    path.mkdir(parents=True)
    for number in range(count):
        write_video(path / f"clip{number}.mp4", drifting(speed, number), fps=8)
    return path


def counting_reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The list that every file is added to when its frames are read, which is when something is measured."""
    files: list[Path] = []

    def read(file: Path, **options):
        files.append(file)
        return read_video(file, **options)

    monkeypatch.setattr("unstill.metrics.evaluator.read_video", read)
    return files


@contextmanager
def metric_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """A function that writes text into `file`, whose folder is on the path of the package of metrics meanwhile."""
    module = f"unstill.metrics.{file.stem}"
    videos, sets = (
        {entry.name: entry for entry in video_metrics()},
        {entry.value.name: entry for entry in set_metrics()},
    )
    monkeypatch.setattr(registry, "_REGISTRY", registry._Registry(videos, sets))
    monkeypatch.setattr(unstill.metrics, "__path__", [*unstill.metrics.__path__, str(file.parent)])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    file.parent.mkdir()

    def write(text: str) -> None:
        sys.modules.pop(module, None)
        file.write_text(text)

    try:
        yield write
    finally:
        sys.modules.pop(module, None)
        vars(unstill.metrics).pop(file.stem, None)
