"""Noise rectification against the released pipeline, in every prediction type, and against its own algebra."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from unstill.errors import UnstillError
from unstill.methods.noise_rectification import NoiseRectification, frame_weights, rectify


GOLDEN = Path(__file__).parents[1] / "golden" / "methods" / "noise_rectification.safetensors"


@pytest.fixture(scope="module")
def golden():
    return load_file(GOLDEN)


def test_default_weights(golden):
    torch.testing.assert_close(frame_weights(8), golden["weights"])
    expected = [1, 0.9286, 0.8571, 0.7857, 0.7143, 0.6429, 0.5714, 0.5] + [0.5] * 8
    torch.testing.assert_close(frame_weights(16), torch.tensor(expected), rtol=0, atol=5e-5)
    # Odd numbers, at which the released code fails: the flat part takes the frame in the middle.
    assert frame_weights(7).tolist() == [1.0, 0.75, 0.5, 0.5, 0.5, 0.5, 0.5]
    assert frame_weights(1).tolist() == [0.5]
    assert frame_weights(4, start=0.8, end=0.2).tolist() == pytest.approx([0.8, 0.2, 0.2, 0.2])


def test_equation_8():
    generator = torch.Generator().manual_seed(0)
    eps, noise = torch.randn(2, 2, 3, 5, 4, 4, generator=generator)
    weights = torch.rand(5, generator=generator)
    gap = noise - eps
    w = weights[:, None, None]
    result = rectify(eps, noise, weights)
    torch.testing.assert_close(result, eps + w * gap[:, :, :1] + (1 - w) * gap)
    assert torch.equal(result[:, :, 0], noise[:, :, 0])
    assert torch.equal(rectify(eps, noise, torch.zeros(5)), noise)
    torch.testing.assert_close(rectify(eps, noise, torch.ones(5)), eps + gap[:, :, :1])


@pytest.mark.parametrize("period", [(0.6, 0.6), (0.7, 0.3), (-0.1, 0.5), (0.0, 1.1)])
def test_periods_that_are_none(period):
    with pytest.raises(UnstillError, match="non-empty range"):
        NoiseRectification(period=period)
