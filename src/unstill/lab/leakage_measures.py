"""What one-step predictions of one clip measure in latent space, and the best possible prediction."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from unstill.errors import UnstillError
from unstill.lab.bayes_optimal import posterior_mean
from unstill.lab.probe_conditions import NoiseLevel


Measurements = dict[str, dict[str, np.ndarray]]
"""source -> quantity -> (clips, levels). Sources: the conditions, `"reference"`, and `"truth"` with (clips, 1)."""


def measure_latents(
    clean: Tensor, still: Tensor, predicted: dict[str, Tensor], levels: Sequence[NoiseLevel]
) -> Measurements:
    """
    Measures one-step predictions of one clip in latent space.

    Args:
        clean: latents of the clip, `(1, C, F, h, w)`.
        still: latents of a static clip of its first frame, same shape.
        predicted: by source (`"image"`, `"removed"`, ...) the predictions, `(levels, C, F, h, w)`.
        levels: of the predictions.

    Returns:
        Of the truth `moved` and `image`, energies `(1,)`; of each source `error`, and of `"removed"` the `change`,
        `(levels,)`.

    Raises:
        UnstillError: predictions with NaN or infinity.
    """
    for x0 in predicted.values():
        for level, prediction in zip(levels, x0, strict=True):
            if not prediction.isfinite().all():
                raise UnstillError(
                    f"The model's prediction at level {level.value:g} is not finite; load it in float32, or leave "
                    "that level out."
                )
    # The energy of a static video of the image: what a model that copies the image predicts.
    measured: Measurements = {"truth": {"moved": _energy(still - clean), "image": _energy(still)}}
    measured |= {source: {"error": _energy(x0 - clean)} for source, x0 in predicted.items()}
    if "removed" in predicted:
        measured["removed"]["change"] = _energy(predicted["image"] - predicted["removed"])
    return measured


def best_prediction(noisy: Tensor, others: Tensor, level: NoiseLevel) -> tuple[Tensor, float]:
    """
    E[X0 | Xt, image] over candidates, see `unstill.lab.bayes_optimal`; their mean at alpha = 0, where the noisy clip
    holds no information.

    Args:
        noisy: a noised clip, (C, F, h, w).
        others: the candidates, (N, C, F, h, w), the true clip first.
        level: of the noise.

    Returns:
        The mean, and the posterior probability of the true clip.
    """
    if level.alpha == 0:
        return others.mean(0), 1 / len(others)
    mean, probabilities = posterior_mean(noisy / level.alpha, others, level.sigma / level.alpha)
    return mean, probabilities[0].item()


def _energy(difference: Tensor) -> np.ndarray:
    """(n, C, F, h, w) to mean squares (n,)."""
    return difference.double().square().mean((1, 2, 3, 4)).numpy()
