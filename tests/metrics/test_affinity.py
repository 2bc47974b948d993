"""PIA's motion affinity against the output of its released code."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from unstill.errors import UnstillError
from unstill.metrics import affinity_coefficients, affinity_motion_level, motion_affinity


GOLDEN = load_file(Path(__file__).parents[1] / "golden" / "metrics" / "affinity.safetensors")
DOG = GOLDEN["dog.frames"]


@pytest.mark.parametrize(("edges", "name"), [(True, "edge"), (False, "hsv")])
def test_distances_match_the_released_code(edges: bool, name: str) -> None:
    torch.testing.assert_close(motion_affinity(DOG, edges=edges), GOLDEN[f"dog.{name}"], rtol=1e-5, atol=1e-5)


def test_coefficients_and_levels_match() -> None:
    coefficients = affinity_coefficients(motion_affinity(DOG))
    torch.testing.assert_close(coefficients, GOLDEN["dog.coefficients"], rtol=1e-6, atol=1e-6)
    level = affinity_motion_level(motion_affinity(DOG, edges=False), float(GOLDEN["largest"]))
    torch.testing.assert_close(level, GOLDEN["dog.level"], rtol=1e-6, atol=1e-6)


def test_distance_of_plain_colours_is_the_hsv_formula() -> None:
    red_and_dark_green = torch.zeros(2, 3, 16, 16, dtype=torch.uint8)
    red_and_dark_green[0, 0], red_and_dark_green[1, 1] = 255, 100
    # hue 0 and 120 degrees, saturation 1 and 1, value 255 and 100
    assert motion_affinity(red_and_dark_green, edges=False)[1].item() == pytest.approx((120 + 0 + 155) / 3)
    assert motion_affinity(red_and_dark_green)[1].item() == pytest.approx((120 + 0 + 155) / 4)


def test_condition_frame_is_the_zero() -> None:
    for frame in (0, 2, -1):
        distances = motion_affinity(DOG, frame)
        assert distances[frame] == 0 and (distances > 0).sum() == len(DOG) - 1
        assert affinity_coefficients(distances, frame)[frame] == 1


def test_distances_outside_the_table() -> None:
    ranges = torch.tensor([[0.0, 0.0], [1.0, 10.0], [1.0, 20.0]])
    coefficients = affinity_coefficients(torch.tensor([0.0, 0.5, 100.0]), ranges=ranges)
    expected = torch.tensor([1, 1 - 0.1 * 0.8, 1 - 0.95 * 0.8], dtype=torch.float64)
    torch.testing.assert_close(coefficients, expected)


def test_errors() -> None:
    with pytest.raises(UnstillError, match="no condition frame 9"):
        motion_affinity(DOG, 9)
    with pytest.raises(UnstillError, match="covers 16 frames"):
        affinity_coefficients(torch.zeros(17))
    with pytest.raises(UnstillError, match="above 0"):
        affinity_motion_level(torch.zeros(3), 0.0)
