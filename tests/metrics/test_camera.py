"""Camera against object motion on motions known by construction."""

import math

import pytest
import torch
from torch import Tensor

from unstill.metrics import MotionParts, fit_affine, motion_parts


HEIGHT, WIDTH = 96, 128


def camera_share(parts: MotionParts) -> float:
    return parts.camera / (parts.camera + parts.objects)


def texture(x: Tensor, y: Tensor) -> Tensor:
    """A smooth aperiodic pattern at any coordinates, (3, ...) in [0, 1]."""
    waves = [(0.31, 0.11, 0.3), (-0.17, 0.29, 1.1), (0.07, -0.23, 2.0), (0.41, 0.37, 0.7), (-0.05, 0.13, 1.9)]
    value = sum(torch.sin(a * x + b * y + c) for a, b, c in waves) / len(waves)
    return torch.stack([0.5 + 0.4 * value, 0.5 + 0.3 * value, 0.5 - 0.4 * value])


def grid() -> tuple[Tensor, Tensor]:
    rows = torch.arange(HEIGHT) - (HEIGHT - 1) / 2
    columns = torch.arange(WIDTH) - (WIDTH - 1) / 2
    return torch.meshgrid(columns, rows, indexing="xy")  # each (H, W)


def camera_video(zoom: float = 0.0, roll: float = 0.0, pan: tuple[float, float] = (0, 0), frames: int = 4) -> Tensor:
    """Picture content at p moves to (1 + zoom) R p + pan with every frame."""
    x, y = grid()
    video = [texture(x, y)]
    for _ in range(frames - 1):  # where did what is seen here come from: invert the motion once more per frame
        x, y = (x - pan[0]) / (1 + zoom), (y - pan[1]) / (1 + zoom)
        x, y = math.cos(roll) * x + math.sin(roll) * y, math.cos(roll) * y - math.sin(roll) * x
        video.append(texture(x, y))
    return torch.stack(video)


def sprite_video(speed: float, side: int = 30, frames: int = 4) -> Tensor:
    x, y = grid()
    video = []
    for frame in range(frames):
        left = 20 + speed * frame
        picture = texture(x, y)
        inside = (x - left + WIDTH / 2 - side / 2).abs().lt(side / 2) & y.abs().lt(side / 2)
        sprite = texture(2 * (x - speed * frame) + 50, 2 * y).flip(0)
        video.append(torch.where(inside, sprite, picture))
    return torch.stack(video)


def test_a_zoom_is_all_camera() -> None:
    # DIS works at a quarter of the resolution and reads 4 % low on a picture this small: enlarged, it does not.
    parts = motion_parts(camera_video(zoom=0.03), size=(4 * HEIGHT, 4 * WIDTH))
    assert parts.zoom == pytest.approx(0.03, abs=0.001)
    assert camera_share(parts) > 0.9
    assert abs(parts.roll) < 0.001 and math.hypot(*parts.pan) < 0.05


def test_a_pan_has_its_direction_and_length() -> None:
    parts = motion_parts(camera_video(pan=(3.0, -2.0)), size=None)
    assert parts.pan == pytest.approx((3.0, -2.0), abs=0.05)
    assert parts.camera == pytest.approx(13**0.5, abs=0.05)
    assert camera_share(parts) > 0.95 and abs(parts.zoom) < 0.001


def test_a_roll_has_its_angle() -> None:
    parts = motion_parts(camera_video(roll=0.02), size=None)
    assert parts.roll == pytest.approx(0.02, abs=0.001)
    assert camera_share(parts) > 0.9


def test_a_sprite_on_still_ground_is_all_object() -> None:
    parts = motion_parts(sprite_video(speed=3.0), size=None)
    covered = 30 * 30 / (HEIGHT * WIDTH)
    assert camera_share(parts) < 0.05
    assert parts.objects == pytest.approx(3 * covered, rel=0.3)  # the estimator smears the sprite's outline


def test_a_still_video_has_neither() -> None:
    parts = motion_parts(camera_video(), size=None)
    assert parts.camera == parts.objects == 0


@pytest.mark.parametrize("moving", [0.0, 0.2, 0.4])
def test_fit_ignores_what_moves_on_its_own(moving: float) -> None:
    x, y = grid()
    truth = torch.tensor([[0.02, -0.01, 1.5], [0.015, 0.03, -0.7]], dtype=torch.float64)
    flow = torch.stack([truth[i, 0] * x + truth[i, 1] * y + truth[i, 2] for i in range(2)])
    flow[:, :, : int(moving * WIDTH)] = torch.tensor([-9.0, 6.0], dtype=flow.dtype)[:, None, None]
    flow += 0.01 * torch.randn(flow.shape, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(fit_affine(flow), truth, rtol=0, atol=5e-3)
