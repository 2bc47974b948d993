"""
Schedules of noise levels that are only a list of sigmas, and their start at a lower level.

`unstill.noise_schedule` knows the rule of a diffusers scheduler from its configuration. Here nothing is known but the
levels themselves, as in ComfyUI, whose samplers take a tensor of sigmas. Their rule is recognised:

- Karras et al. 2022: sigma^(1/7) is evenly spaced; exponential: log sigma is. Both keep their lowest level.
- Flow matching: every level is a Moebius map (the shift) of an evenly spaced ramp that would reach 0 one step after the
  last level (half-open, as in the pipelines of diffusers and the `simple` scheduler of ComfyUI), or that ends at the
  last level (closed).
- Anything else is interpolated between its own levels, in log sigma, and keeps its lowest level.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from unstill.errors import UnstillError


RHO = 7.0
"""Exponent of the ramp of Karras et al. 2022, https://huggingface.co/papers/2206.00364, Eq. 5."""
EXACT = 1e-4
"""Relative deviation up to which levels follow a ramp; float32 and rounded configurations stay below it."""
NEAR = 0.05
"""Steps between the end of a half-open ramp and where it would reach 0: UniPC's ends at a thousandth."""
TABLE = 1000
"""Training steps of the tables that ComfyUI's `simple` scheduler picks its levels from, rounding each down."""


def respace_sigmas(sigmas: torch.Tensor, start: float) -> torch.Tensor:
    """
    The same number of steps by the same rule, beginning at a lower level.

    Args:
        sigmas: `(steps + 1,)`, falling, the last one 0 or where sampling ends.
        start: the sigma to begin at, above the last one and at most the first.

    Returns:
        `(steps + 1,)` of the same dtype and device, of which the first is `start` and the last is unchanged; `sigmas`
        itself where it already begins there.

    Raises:
        UnstillError: levels that do not fall, or a start that is out of range.
    """
    levels = sigmas.detach().cpu().double().numpy()
    if levels.ndim != 1 or len(levels) < 2 or not (np.diff(levels) < 0).all() or not levels[-1] >= 0:
        raise UnstillError("A schedule is two or more sigmas, each below the one before, the last at least 0.")
    if not levels[-1] < start <= levels[0] * (1 + 1e-6):
        raise UnstillError(
            f"The start {start:g} is out of range: this schedule goes from {levels[0]:g} down to {levels[-1]:g}; "
            f"choose a level above {levels[-1]:g} and at most {levels[0]:g}."
        )
    if np.isclose(start, levels[0], rtol=1e-6, atol=0):
        return sigmas
    steps = len(levels) - 1
    if steps == 1:
        visited = np.array([start])
    else:
        to_level, to_index, half_open = _rule(levels)
        first = float(to_index(np.array([start]))[0])
        # In units of steps of the given schedule: a half-open ramp ends one step after its last level.
        indices = np.linspace(first, steps, steps + 1)[:-1] if half_open else np.linspace(first, steps - 1, steps)
        visited = to_level(indices)
        visited[0] = start
        if not half_open:
            visited[-1] = levels[-2]
    return torch.from_numpy(np.append(visited, levels[-1])).to(sigmas)


Map = Callable[[np.ndarray], np.ndarray]


def _rule(levels: np.ndarray) -> tuple[Map, Map, bool]:
    """Index to level, level to index, and whether the ramp is half-open; `levels` are (steps + 1,)."""
    visited, steps = levels[:-1], len(levels) - 1
    index = np.arange(steps, dtype=np.float64)
    last = steps - 1
    if steps > 2:
        power, unpower = (lambda x: x ** (1 / RHO)), (lambda x: np.maximum(x, 0) ** RHO)
        for even, uneven in ((power, unpower), (np.log, np.exp)):
            ends = even(visited[[0, -1]])
            ramp = ends[0] + (ends[1] - ends[0]) * index / last
            if np.abs(uneven(ramp) / visited - 1).max() < EXACT:
                to_index: Map = lambda x, f=even, e=ends: (f(x) - e[0]) / (e[1] - e[0]) * last  # type: ignore[misc]
                to_level: Map = lambda i, g=uneven, e=ends: g(e[0] + (e[1] - e[0]) * i / last)  # type: ignore[misc]
                return to_level, to_index, False
    middle = steps // 2
    at, values = np.array([0.0, middle, last]), visited[[0, middle, -1]]
    rounded = np.array([0.0, middle, steps]), np.array([visited[0], visited[middle], 0.0])
    if levels[-1] == 0:
        if steps > 2 and np.abs(moebius(visited, values, at) - index).max() < EXACT * steps:
            half_open = bool(abs(moebius(0.0, values, at) - steps) < NEAR)
            return (lambda i: moebius(i, at, values)), (lambda x: moebius(x, values, at)), half_open
        at, values = rounded
        if np.abs(moebius(visited, values, at) - index).max() <= 2 * steps / TABLE:
            return (lambda i: moebius(i, at, values)), (lambda x: moebius(x, values, at)), True
    falling = np.log(visited)
    return (
        (lambda i: np.exp(np.interp(i, index, falling))),
        (lambda x: np.interp(-np.log(x), -falling, index)),
        False,
    )


def moebius(x: Any, xs: np.ndarray, ys: np.ndarray) -> Any:
    """The map (a + b x) / (1 + c x) that takes the three `xs` to the three `ys`, by equality of cross ratios."""
    (xa, xb, xc), (ya, yb, yc) = xs, ys
    p, q = (x - xa) * (xb - xc), (x - xc) * (xb - xa)
    return (ya * (yb - yc) * q - yc * (yb - ya) * p) / ((yb - yc) * q - (yb - ya) * p)
