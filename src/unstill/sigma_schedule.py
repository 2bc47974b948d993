"""
Schedules of noise levels that are only a list of sigmas, and their start at a lower level.

`unstill.respacing` knows the rule of a diffusers scheduler from its configuration. Here nothing is known but the
levels themselves, as in ComfyUI, whose samplers take a tensor of sigmas. Their rule is recognised:

- Karras et al. 2022: sigma^(1/7) is evenly spaced; exponential: log sigma is. Both keep their lowest level.
- Flow matching: every level is a Moebius map (the shift) of an evenly spaced ramp. It would reach 0 one step after the
  last level (half-open, as in the pipelines of diffusers and the `simple` scheduler of ComfyUI), or ends at the last
  level (closed).
- Linear-quadratic (Mochi, LTX-Video 0.9.5): half of the steps go evenly down to 0.975 of the first level, the others
  quadratically to 0.
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
THRESHOLD = 0.025
"""What the first half of a linear-quadratic schedule takes off its first level, as a share of it."""
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
        first = float(to_index(start))
        # In units of steps of the given schedule: a half-open ramp ends one step after its last level.
        indices = np.linspace(first, steps, steps + 1)[:-1] if half_open else np.linspace(first, steps - 1, steps)
        visited = to_level(indices)
        visited[0] = start
        if not half_open:
            visited[-1] = levels[-2]
    return torch.from_numpy(np.append(visited, levels[-1])).to(sigmas)


Map = Callable[[Any], Any]


def _rule(levels: np.ndarray) -> tuple[Map, Map, bool]:
    """Index to level, level to index, and whether the ramp is half-open; `levels` are (steps + 1,)."""
    visited, steps = levels[:-1], len(levels) - 1
    index, last, middle = np.arange(steps, dtype=np.float64), steps - 1, steps // 2
    if steps > 2:
        for even, uneven in ((_root, _power), (np.log, np.exp)):
            to_level, to_index = _even_ramp(even, uneven, visited)
            if np.abs(to_level(index) / visited - 1).max() < EXACT:
                return to_level, to_index, False
    if steps > 1 and levels[-1] == 0:
        to_level, to_index = linear_quadratic(steps, levels[0])
        if np.abs(to_level(index) / visited - 1).max() < EXACT / 10:
            return to_level, to_index, True
    if steps > 2 and levels[-1] == 0:
        to_level, to_index = _moebius_ramp(np.array([0.0, middle, last]), visited[[0, middle, -1]])
        if np.abs(to_index(visited) - index).max() < EXACT * steps:
            return to_level, to_index, bool(abs(to_index(0.0) - steps) < NEAR)
    if levels[-1] == 0:
        to_level, to_index = _moebius_ramp(np.array([0.0, middle, steps]), levels[[0, middle, -1]])
        if np.abs(to_index(visited) - index).max() <= 2 * steps / TABLE:
            return to_level, to_index, True
    return (
        lambda i: np.exp(np.interp(i, index, np.log(visited))),
        lambda x: np.interp(-np.log(x), -np.log(visited), index),
        False,
    )


def _even_ramp(even: Map, uneven: Map, visited: np.ndarray) -> tuple[Map, Map]:
    """The two maps of levels that are evenly spaced after the function `even`, whose inverse is `uneven`."""
    first, end = even(visited[[0, -1]])
    step = (end - first) / (len(visited) - 1)
    return (lambda i: uneven(first + step * i)), (lambda x: (even(x) - first) / step)


def _moebius_ramp(at: np.ndarray, values: np.ndarray) -> tuple[Map, Map]:
    """The two maps of the ramp that has `values` at the indices `at`."""
    return (lambda i: moebius(i, at, values)), (lambda x: moebius(x, values, at))


def linear_quadratic(steps: int, highest: float = 1.0) -> tuple[Map, Map]:
    """
    The two maps, index to level and level to index, of the linear-quadratic schedule of Mochi and LTX-Video 0.9.5.

    With L = steps // 2 the level at index u is `highest * (1 - b u - a max(u - L, 0)^2)`, where b = THRESHOLD / L and
    a makes it 0 at index `steps`: its first half and its second have one slope where they meet.

    Args:
        steps: at least 2.
        highest: the level at index 0.
    """
    linear = steps // 2
    b = THRESHOLD / linear
    a = (1 - b * steps) / (steps - linear) ** 2

    def to_level(index: Any) -> Any:
        return highest * (1 - b * index - a * np.maximum(index - linear, 0) ** 2)

    def to_index(level: Any) -> Any:
        gone = 1 - level / highest
        beyond = np.maximum(gone - THRESHOLD, 0)  # of which the quadratic half takes b v + a v^2
        return np.where(beyond > 0, linear + (np.sqrt(b * b + 4 * a * beyond) - b) / (2 * a), gone / b)

    return to_level, to_index


def _root(x: Any) -> Any:
    return x ** (1 / RHO)


def _power(x: Any) -> Any:
    return x**RHO


def moebius(x: Any, xs: np.ndarray, ys: np.ndarray) -> Any:
    """The map (a + b x) / (1 + c x) that takes the three `xs` to the three `ys`, by equality of cross ratios."""
    (xa, xb, xc), (ya, yb, yc) = xs, ys
    p, q = (x - xa) * (xb - xc), (x - xc) * (xb - xa)
    return (ya * (yb - yc) * q - yc * (yb - ya) * p) / ((yb - yc) * q - (yb - ya) * p)
