"""Frechet distance between two sets of features, and the inception score."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from unstill.errors import UnstillError
from unstill.metrics.c3d import FRAMES
from unstill.metrics.registry import SetScore, set_metric


def frechet_distance(x: Tensor, y: Tensor, unbiased: bool = True) -> float:
    """
    |m_x - m_y|^2 + tr(C_x + C_y - 2 (C_x C_y)^(1/2)) of the Gaussians fitted to two sets of features, in float64.

    The trace of the square root is the nuclear norm of X Y^T for centred X, Y (divided by the root of their counts).
    This needs no matrix square root, and is exact for sets with fewer rows than dimensions, whose covariances are
    singular; `sqrtm` of their product is wrong from the sixth digit on.

    Args:
        x, y: (n, d) and (m, d), n, m >= 2.
        unbiased: divide the covariances by n - 1 (TATS, VideoGPT, common practice); False: by n (StyleGAN-V's code).
    """
    for features in (x, y):
        if features.ndim != 2 or len(features) < 2:
            raise UnstillError(f"Features must be (n, d) with n of at least 2, got {tuple(features.shape)}.")
    if x.shape[1] != y.shape[1]:
        raise UnstillError(f"The two sets have {x.shape[1]} and {y.shape[1]} features; use one extractor for both.")
    x, y = x.double().cpu(), y.double().cpu()
    means = x.mean(0), y.mean(0)
    if not (means[0] + means[1]).isfinite().all():
        raise UnstillError("Some features are not finite; leave these videos out.")
    counts = len(x) - unbiased, len(y) - unbiased
    gap = (means[0] - means[1]).square().sum()
    if min(len(x), len(y)) > x.shape[1]:
        covariances = _scatter(x, means[0]).div_(counts[0]), _scatter(y, means[1]).div_(counts[1])
        roots = _roots_by_cholesky(*covariances)
        if roots is not None:
            return _distance(gap, covariances[0].trace() + covariances[1].trace(), roots)
    x, y = x - means[0], y - means[1]
    # X = Q_x R_x and Y = Q_y R_y: the orthogonal factors leave singular values alone.
    roots = torch.linalg.svdvals(_small(x) @ _small(y).T).sum() / (counts[0] * counts[1]) ** 0.5
    return _distance(gap, x.square().sum() / counts[0] + y.square().sum() / counts[1], roots)


def frechet_from_moments(mean_x: Tensor, covariance_x: Tensor, mean_y: Tensor, covariance_y: Tensor) -> float:
    """The same distance where only means (d,) and covariances (d, d) are known. Less exact if both are singular."""
    a, b = covariance_x.double().cpu(), covariance_y.double().cpu()
    roots = _roots_by_cholesky(a, b)
    if roots is None:
        values, vectors = torch.linalg.eigh(a)
        root = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
        roots = torch.linalg.eigvalsh(root @ b @ root).clamp_min(0).sqrt().sum()
    return _distance((mean_x.double() - mean_y.double()).square().sum(), a.trace() + b.trace(), roots)


def _distance(gap: Tensor, traces: Tensor, roots: Tensor) -> float:
    return max(float(gap + traces - 2 * roots), 0.0)


def _roots_by_cholesky(a: Tensor, b: Tensor) -> Tensor | None:
    """
    tr (A B)^(1/2) of covariances; None if both are close to singular, where this would lose digits.

    With A = L L^T the eigenvalues of A B are those of the symmetric L^T B L: several times as fast as a matrix root.
    """
    for first, second in ((a, b), (b, a)):
        lower, failed = torch.linalg.cholesky_ex(first)
        diagonal = lower.diagonal()
        if not failed and diagonal.min() > 1e-5 * diagonal.max():
            # (numpy's LAPACK finds eigenvalues in two thirds of the time of torch's.)
            values = np.linalg.eigvalsh(_congruent(lower, second).numpy(), UPLO="L")
            return torch.from_numpy(values).clamp_min(0).sqrt().sum()
    return None


def _congruent(lower: Tensor, matrix: Tensor) -> Tensor:
    """
    The lower triangle of L^T B L for a lower triangular L and a symmetric B; the upper one is undefined.

    Computed in two blocks, which skips zeros and the upper half: 5/8 of the multiplications.
    """
    half = len(lower) // 2
    left, corner = lower[:, :half], lower[half:, half:]
    first, second = matrix @ left, matrix[half:, half:] @ corner
    result = torch.zeros_like(matrix)
    result[:half, :half] = left.T @ first
    result[half:, :half] = corner.T @ first[half:]
    result[half:, half:] = corner.T @ second
    return result


def _scatter(x: Tensor, mean: Tensor) -> Tensor:
    """
    (X - m)^T (X - m), as X^T X - n m m^T where that loses no more than three of its sixteen digits: a centred copy of
    the features would take a fifth of the time of the whole distance.
    """
    result = torch.from_numpy(_gram(x))
    own = result.diagonal().clone()
    result.addr_(mean, mean, alpha=-len(x))
    if (own > 1e3 * result.diagonal()).any():
        return torch.from_numpy(_gram(x - mean))
    return result


def _gram(x: Tensor) -> np.ndarray:
    """X^T X. numpy knows that the product with its own transpose is symmetric and does half the work."""
    rows = x.numpy()
    product: np.ndarray = rows.T @ rows
    return product


def _small(x: Tensor) -> Tensor:
    return torch.linalg.qr(x, mode="r").R if len(x) > x.shape[1] else x


def inception_score(probabilities: Tensor, splits: int = 10, shuffle_seed: int | None = None) -> tuple[float, float]:
    """
    exp of the mean Kullback-Leibler divergence of class probabilities from their average: mean and std over splits.

    Args:
        probabilities: (n, classes), each row summing to 1.
        splits: number of contiguous parts; 10 is common, tgan2's script scores 1 part of 2,048 and repeats ten times.
        shuffle_seed: shuffle first with `numpy.random.RandomState(seed)`; StyleGAN-V uses 42. A data set ordered by
            class scores too low without.
    """
    if probabilities.ndim != 2 or not 1 <= splits <= len(probabilities):
        raise UnstillError(
            f"The inception score needs (n, classes) with at least one row for each of {splits} splits, "
            f"got {tuple(probabilities.shape)}."
        )
    rows = probabilities.double()
    if not torch.allclose(rows.sum(1), rows.new_ones(len(rows)), atol=1e-3):
        raise UnstillError("The rows are not probabilities (they do not sum to 1); take the softmax of the logits.")
    if shuffle_seed is not None:
        order = np.arange(len(rows))
        np.random.RandomState(shuffle_seed).shuffle(order)
        rows = rows[torch.from_numpy(order)]
    scores = []
    for number in range(splits):
        part = rows[number * len(rows) // splits : (number + 1) * len(rows) // splits]
        # x log x is 0 at 0, where x (log x) is not a number
        divergence = torch.special.xlogy(part, part) - torch.special.xlogy(part, part.mean(0))
        scores.append(divergence.sum(1).mean().exp())
    stacked = torch.stack(scores)
    return float(stacked.mean()), float(stacked.std(correction=0))


@set_metric("fvd", of="i3d_logits", label="Frechet video distance", better="lower", needs={"reference", "unbiased"})
@set_metric(
    "proxy_frechet_distance",
    of="proxy_features",
    label="Frechet distance of random features",
    better="lower",
    proxy=True,
    needs={"reference", "unbiased"},
)
def _distance_of_sets(generated: Tensor, reference: Tensor, unbiased: bool) -> SetScore:
    sizes = len(generated), len(reference)
    if min(sizes) < 2:
        return SetScore(None, note="A distance needs at least 2 videos on each side.")
    few = f"Frechet distances grow as sets shrink; compare only with {sizes[0]} against {sizes[1]} videos."
    return SetScore(frechet_distance(generated, reference, unbiased), note=few if min(sizes) < 2048 else None)


@set_metric(
    "inception_score", of="c3d_probabilities", label="inception score (C3D)", better="higher", needs={"splits"}
)
def _inception_of_set(generated: Tensor, splits: int) -> SetScore:
    splits = min(splits, len(generated))
    # Names often begin with their class: in that order each split would hold few classes and score too low.
    mean, deviation = inception_score(generated, splits, shuffle_seed=42)
    return SetScore(mean, deviation, f"Inception score over {splits} splits, shuffled; {FRAMES} frames per video.")
