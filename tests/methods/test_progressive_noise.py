"""Correlated noise against ConsistI2V's, and against its definition."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from unstill.errors import UnstillError
from unstill.methods.progressive_noise import ProgressiveNoise, mixed, progressive


GOLDEN = Path(__file__).parents[1] / "golden" / "methods" / "progressive_noise.safetensors"


@pytest.fixture(scope="module")
def golden():
    return load_file(GOLDEN)


@pytest.mark.parametrize("alpha", [1, 2])
def test_golden(golden, alpha):
    base, first, independent = (golden[f"pyoco.{name}"] for name in ("base", "first", "ind"))
    torch.testing.assert_close(mixed(base, independent, alpha), golden[f"pyoco.mixed_a{alpha}"])
    torch.testing.assert_close(progressive(first, independent, alpha), golden[f"pyoco.progressive_a{alpha}"])
    assert torch.equal(progressive(first[:, :, :1], independent, alpha), progressive(first, independent, alpha))


def test_the_draws_of_consisti2v(golden):
    generator = torch.Generator().manual_seed(5)
    base = torch.randn(1, 4, 1, 8, 8, generator=generator)
    noise = mixed(base, torch.randn(1, 4, 8, 8, 8, generator=generator), 1.0)
    torch.testing.assert_close(noise, golden["consisti2v.pyoco_mixed_seed5_a1"])
    generator = torch.Generator().manual_seed(5)
    first, independent = (torch.randn(1, 4, 8, 8, 8, generator=generator) for _ in range(2))
    torch.testing.assert_close(progressive(first, independent, 1.0), golden["consisti2v.pyoco_progressive_seed5_a1"])


@pytest.mark.parametrize("alpha", [0.5, 2.0])
def test_unit_variance_and_the_stated_correlation(alpha):
    generator = torch.Generator().manual_seed(0)
    shared = torch.randn(1, 1, 1, 200, 200, generator=generator)
    independent = torch.randn(1, 1, 4, 200, 200, generator=generator)
    distance = (torch.arange(4)[:, None] - torch.arange(4)).abs()
    share = alpha**2 / (1 + alpha**2)
    for noise, expected in [
        (mixed(shared, independent, alpha), torch.where(distance == 0, 1.0, share)),
        (progressive(shared, independent, alpha), share ** (distance / 2)),
    ]:
        covariance = torch.cov(noise.flatten(3).flatten(0, 2).reshape(4, -1))
        torch.testing.assert_close(covariance, expected.float(), rtol=0, atol=0.02)


def test_wrong_parameters():
    with pytest.raises(UnstillError, match="'progressive' or 'mixed'"):
        ProgressiveNoise(kind="pyoco")
    with pytest.raises(UnstillError, match="from 0 to a million"):
        ProgressiveNoise(alpha=-1.0)
    assert ProgressiveNoise.preset("mixed") == ProgressiveNoise(kind="mixed", alpha=1.0)
