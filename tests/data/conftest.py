"""Tiny videos whose pixels tell which one they are and where a clip was taken."""

from pathlib import Path

import pytest
import torch

from unstill.data import write_video


def make_video(path: Path, count: int = 24, base: int = 0, fps: float = 8) -> Path:
    """Flat grey 16 x 16 frames that tell their number: base + 4 * index."""
    values = base + 4 * torch.arange(count)
    return write_video(path, values[:, None, None, None].expand(-1, 3, 16, 16).to(torch.uint8), fps)


def numbers(video: torch.Tensor, base: int = 0) -> list[int]:
    """The numbers of the frames of a clip (F, 3, H, W) in [0, 1]."""
    return [round((float(frame.mean()) * 255 - base) / 4) for frame in video]


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """webvid/000001_000050/11.mp4, webvid/000051_000100/22.mp4, webvid/33.mp4: bases 20, 40, 60."""
    folder = tmp_path / "webvid"
    make_video(folder / "000001_000050" / "11.mp4", base=20)
    make_video(folder / "000051_000100" / "22.mp4", base=40)
    make_video(folder / "33.mp4", base=60)
    return folder
