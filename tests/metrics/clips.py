"""Small moving patterns as video files, and what the tests of evaluations share."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from unstill.data import read_video, write_video
from unstill.metrics import EvaluationSettings


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
