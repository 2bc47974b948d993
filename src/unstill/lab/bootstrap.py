"""Confidence intervals by resampling: of anything that is a function of sums over clips, images or seeds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and its 95 % bootstrap interval (percentiles)."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, draws: np.ndarray) -> Interval:
        """`draws` (1 + R,): the estimate, then the same from every resample."""
        low, high = np.nanpercentile(draws[1:], [2.5, 97.5]) if np.isfinite(draws[1:]).any() else (np.nan, np.nan)
        return cls(float(draws[0]), float(low), float(high))

    def as_dict(self) -> dict[str, Any]:
        return {"value": _number(self.value), "low": _number(self.low), "high": _number(self.high)}


def weights(n: int, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """
    How often each of `n` units counts, `(1 + resamples, n)`: once each in row 0, the estimate; then as drawn with
    replacement. `weights @ x` are sums over units. The same rows for every quantity keep comparisons paired.
    """
    drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples)
    return np.concatenate([np.ones((1, n)), drawn])


def _number(x: float) -> float | None:
    return round(x, 6) if np.isfinite(x) else None  # JSON has no NaN
