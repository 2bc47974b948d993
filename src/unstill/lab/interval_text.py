"""Figures and their confidence intervals as text."""

from __future__ import annotations

import math

from unstill.lab.bootstrap import Interval


def number(value: float) -> str:
    """A number with about three digits: 0.36, 12, 200; a dash if it is not finite."""
    if not math.isfinite(value):
        return "\u2013"
    if value == 0:
        return "0"
    size = abs(value)
    text = f"{value:.0f}" if size >= 100 else f"{value:.3g}" if size >= 1 else f"{value:.3f}".rstrip("0").rstrip(".")
    return "0" if text in ("-0", "0", "") else text.replace("-", "\u2212")


def between(interval: Interval) -> str:
    """`0.5 (0.4 to 0.6)`; only the estimate if there is no interval."""
    if not interval.known:
        return number(interval.value)
    return f"{number(interval.value)} ({number(interval.low)} to {number(interval.high)})"


def signed(interval: Interval) -> str:
    """A difference with its sign and interval: `+0.5 (0.4 to 0.6)`."""
    return f"{'+' if interval.value > 0 else ''}{between(interval)}"
