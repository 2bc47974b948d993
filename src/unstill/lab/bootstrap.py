"""Bootstrap confidence intervals of functions of sums over clips, images or seeds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np


RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Interval:
    """
    An estimate and its 95 % bootstrap interval.

    Attributes:
        value: the estimate.
        low, high: ends of the interval; NaN for a single unit, which allows none.
    """

    value: float
    low: float
    high: float

    @classmethod
    def of(
        cls, draws: np.ndarray, units: int | None = None, bounds: tuple[float, float] = (-math.inf, math.inf)
    ) -> Interval:
        """
        The percentile interval, widened for few units.

        Args:
            draws: (1 + R,), the estimate, then its value in every resample.
            units: number of resampled clips, images or seeds. Percentile intervals are too narrow for few units (for
                8 they cover 88 %), so their distances from the estimate are multiplied by `stretch(units)`. `None`
                omits that.
            bounds: range of the quantity.
        """
        value = float(draws[0])
        if (units is not None and units < 2) or not (np.isfinite(draws[1:]).any() and math.isfinite(value)):
            return cls(value, math.nan, math.nan)
        low, high = (float(x) for x in np.nanpercentile(draws[1:], [2.5, 97.5]))
        factor = 1.0 if units is None else stretch(units)
        stretched = value + factor * (low - value), value + factor * (high - value)
        return cls(value, max(min(stretched[0], low), bounds[0]), min(max(stretched[1], high), bounds[1]))

    @property
    def known(self) -> bool:
        """Whether both ends of the interval are known."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    def as_dict(self) -> dict[str, Any]:
        """The interval as JSON values; `None` for a number that is not finite."""
        return {"value": _number(self.value), "low": _number(self.low), "high": _number(self.high)}


def stretch(units: int) -> float:
    """
    The factor by which a percentile interval of a mean of n `units` is too narrow.

    It is the quantile of Student's t divided by that of the normal distribution, because the deviation is estimated,
    times sqrt(n / (n - 1)), because resampling uses the biased deviation.
    """
    z, v = 1.959964, units - 1
    few = {1: 12.7062, 2: 4.3027, 3: 3.1824, 4: 2.7764}
    terms = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96, (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    t = few.get(v) or z + sum(term / v ** (i + 1) for i, term in enumerate(terms))
    return t / z * math.sqrt(units / v)


def weights(n: int, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """
    How often each of `n` units is counted in the estimate and in every resample.

    `weights(n) @ x` are the sums of x over units. Using the same weights for all quantities keeps comparisons paired.

    Returns:
        (1 + resamples, n): ones in row 0, the estimate; in the others the counts of n draws with replacement.
    """
    drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples)
    return np.concatenate([np.ones((1, n)), drawn])


def _number(x: float) -> float | None:
    return round(x, 6) if np.isfinite(x) else None  # JSON has no NaN
