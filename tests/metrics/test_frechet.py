"""Frechet distance and inception score against recorded values, closed forms and plain numpy."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from unstill.errors import UnstillError
from unstill.metrics import frechet_distance, frechet_from_moments, inception_score
from unstill.metrics.frechet import _congruent


GOLDEN = load_file(Path(__file__).parents[1] / "golden" / "metrics" / "frechet.safetensors")


def features(n: int, d: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(d, d, generator=generator, dtype=torch.float64)
    return torch.randn(n, d, generator=generator, dtype=torch.float64) @ mix + seed


@pytest.mark.parametrize("tag", ["full", "lowrank"])
def test_matches_recorded_values(tag: str) -> None:
    x, y = GOLDEN[f"{tag}.x"], GOLDEN[f"{tag}.y"]
    assert frechet_distance(x, y) == pytest.approx(GOLDEN[f"{tag}.unbiased"].item(), rel=1e-10)
    assert frechet_distance(x, y, unbiased=False) == pytest.approx(GOLDEN[f"{tag}.biased"].item(), rel=1e-10)


@pytest.mark.parametrize(("n", "m"), [(200, 150), (200, 20), (20, 200), (20, 15)])
def test_matches_the_definition_by_eigenvalues(n: int, m: int) -> None:
    """tr (C_x C_y)^(1/2) as the sum of the roots of the eigenvalues of the plain product."""
    x, y = features(n, 30, 1), features(m, 30, 2)
    cx, cy = np.cov(x.numpy(), rowvar=False), np.cov(y.numpy(), rowvar=False)
    roots = np.sqrt(np.linalg.eigvals(cx @ cy).real.clip(0)).sum()
    expected = ((x.mean(0) - y.mean(0)) ** 2).sum().item() + np.trace(cx) + np.trace(cy) - 2 * roots
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-5 if min(n, m) < 30 else 1e-10)


@pytest.mark.parametrize("d", [1, 2, 7, 30])
def test_the_congruent_matrix_in_blocks(d: int) -> None:
    lower, b = features(50, d, 1).T.cov().reshape(d, d), features(50, d, 2).T.cov().reshape(d, d)
    lower = torch.linalg.cholesky(lower)
    torch.testing.assert_close(_congruent(lower, b).tril(), (lower.T @ b @ lower).tril(), rtol=1e-12, atol=1e-9)


@pytest.mark.parametrize("n", [200, 20])
def test_closed_forms(n: int) -> None:
    x = features(n, 30)
    scale = x.var(0).sum().item()
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-9 * scale)
    assert frechet_distance(x, x + 3) == pytest.approx(30 * 9, rel=1e-9)
    # (C, s^2 C): tr C (1 - s)^2 around the same mean
    scaled = (x - x.mean(0)) * 2.5 + x.mean(0)
    assert frechet_distance(x, scaled) == pytest.approx(scale * 1.5**2, rel=1e-9)
    rotation = torch.linalg.qr(features(30, 30, 3)).Q
    y = features(n + 5, 30, 4)
    assert frechet_distance(x @ rotation, y @ rotation) == pytest.approx(frechet_distance(x, y), rel=1e-9)
    assert frechet_distance(x, y) == pytest.approx(frechet_distance(y, x), rel=1e-9)


def test_constant_and_dependent_features_do_not_spoil_it() -> None:
    x, y = features(100, 10, 1), features(80, 10, 2)
    expected = frechet_distance(x, y)
    constant = [torch.cat([part, torch.ones(len(part), 1)], 1) for part in (x, y)]
    assert frechet_distance(*constant) == pytest.approx(expected, rel=1e-12)
    wider = torch.linalg.qr(features(16, 16, 3)).Q[:10]  # 10 orthonormal directions in 16 dimensions
    assert frechet_distance(x @ wider, y @ wider) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("offset", [1e2, 1e5])
def test_features_far_from_zero(offset: float) -> None:
    """A second moment is mostly that of the mean there, and loses the covariance's digits."""
    x, y = features(200, 30, 1), features(150, 30, 2)
    assert frechet_distance(x + offset, y + offset) == pytest.approx(frechet_distance(x, y), rel=1e-11)


def test_moments_give_the_same() -> None:
    x, y = features(200, 30, 1), features(150, 30, 2)
    assert frechet_from_moments(x.mean(0), x.T.cov(), y.mean(0), y.T.cov()) == pytest.approx(
        frechet_distance(x, y), rel=1e-9
    )


def probabilities(n: int, classes: int = 11) -> Tensor:
    return torch.randn(n, classes, generator=torch.Generator().manual_seed(0), dtype=torch.float64).mul(3).softmax(1)


@pytest.mark.parametrize(("n", "splits"), [(100, 10), (103, 10), (64, 1)])
@pytest.mark.parametrize("seed", [None, 42])
def test_inception_score_matches_plain_numpy(n: int, splits: int, seed: int | None) -> None:
    rows = probabilities(n).numpy().copy()
    if seed is not None:
        np.random.RandomState(seed).shuffle(rows)
    scores = []
    for k in range(splits):
        part = rows[k * n // splits : (k + 1) * n // splits]
        divergence = part * (np.log(part) - np.log(part.mean(0, keepdims=True)))
        scores.append(np.exp(divergence.sum(1).mean()))
    expected = (np.mean(scores), np.std(scores))
    assert inception_score(probabilities(n), splits, seed) == pytest.approx(expected, rel=1e-10)


def test_inception_score_has_its_limits() -> None:
    certain = torch.eye(7).repeat(10, 1)
    assert inception_score(certain, 1)[0] == pytest.approx(7)
    assert inception_score(torch.full((70, 7), 1 / 7), 1)[0] == pytest.approx(1)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: frechet_distance(torch.zeros(1, 4), torch.zeros(5, 4)), "at least 2"),
        (lambda: frechet_distance(torch.zeros(5, 3), torch.zeros(5, 4)), "one extractor"),
        (lambda: frechet_distance(torch.full((5, 4), torch.nan), torch.zeros(5, 4)), "not finite"),
        (lambda: inception_score(torch.randn(20, 5)), "softmax"),
        (lambda: inception_score(probabilities(5), 10), "10 splits"),
    ],
)
def test_errors(call, words: str) -> None:
    with pytest.raises(UnstillError, match=words):
        call()
