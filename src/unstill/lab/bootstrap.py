"""Confidence intervals by resampling: of anything that is a function of sums over clips, images or seeds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np


RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and its 95 % bootstrap interval; of a single unit there is none: its ends are NaN."""

    value: float
    low: float
    high: float

    @classmethod
    def of(
        cls, draws: np.ndarray, units: int | None = None, bounds: tuple[float, float] = (-math.inf, math.inf)
    ) -> Interval:
        """
        Args:
            draws: (1 + R,), the estimate, then the same from every resample.
            units: how many clips, images or seeds were resampled. Percentiles alone are too narrow for few (of 8 they
                cover 88 %), so their distances from the estimate are stretched as those of Student's t; of one unit
                nothing is known. `None`: so many that it does not matter.
            bounds: what the quantity cannot go beyond.
        """
        value = float(draws[0])
        if (units is not None and units < 2) or not (np.isfinite(draws[1:]).any() and math.isfinite(value)):
            return cls(value, math.nan, math.nan)
        low, high = (float(x) for x in np.nanpercentile(draws[1:], [2.5, 97.5]))
        wider = 1.0 if units is None else stretch(units)
        stretched = value + wider * (low - value), value + wider * (high - value)
        return cls(value, max(min(stretched[0], low), bounds[0]), min(max(stretched[1], high), bounds[1]))

    @property
    def known(self) -> bool:
        """Whether there is an interval, and not an estimate alone."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    def as_dict(self) -> dict[str, Any]:
        return {"value": _number(self.value), "low": _number(self.low), "high": _number(self.high)}


def stretch(units: int) -> float:
    """
    How much wider than its percentiles the bootstrap interval of a mean of `units` has to be: Student's t over the
    normal, for the deviation is estimated, and sqrt(n / (n - 1)), for resampling takes the biased one.
    """
    z, v = 1.959964, units - 1
    few = {1: 12.7062, 2: 4.3027, 3: 3.1824, 4: 2.7764}
    terms = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96, (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    t = few.get(v) or z + sum(term / v ** (i + 1) for i, term in enumerate(terms))
    return t / z * math.sqrt(units / v)


def weights(n: int, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """
    How often each of `n` units counts, `(1 + resamples, n)`: once each in row 0, the estimate; then as drawn with
    replacement. `weights @ x` are sums over units. The same rows for every quantity keep comparisons paired.
    """
    drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples)
    return np.concatenate([np.ones((1, n)), drawn])


def _number(x: float) -> float | None:
    return round(x, 6) if np.isfinite(x) else None  # JSON has no NaN
