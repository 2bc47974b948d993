"""
Schedules that start at a lower noise level.

Starting at a level M keeps the number of steps and re-spaces them over [0, M] by the scheduler's own spacing rule:

- Schedulers with a training table (DDIM, DDPM, Euler, DPM-Solver++, UniPC ...): the rule is applied to the table
  truncated at M, as in the released code of Conditional Image Leakage (arXiv 2406.15735), which passes M for T.
  `trailing` and `linspace` then start at M - 1. `leading` never starts at its maximum: it is stretched to M - 1 (kind
  `vp`) or replaced by `linspace`. LCM and TCD, whose grids are evenly spaced from the top, use `trailing`.
- Karras, exponential and beta ramps: the same ramp from the requested sigma.
- Flow matching: every level is a Moebius map (shift, dynamic `mu`, terminal stretch) of an even ramp. The ramp is
  recovered from the current levels and starts later; its lower end and the map are unchanged. The shift is read from
  the configuration; a dynamic one, known only to the pipeline, is solved for from three of the current levels.
- Linear-quadratic levels, which MochiPipeline and LTXConditionPipeline give their scheduler: the map of an even ramp
  of step numbers, which starts later.
- A single step is at the requested level, also under `linspace` and `leading`, whose single step is the lowest level.

Where a scheduler rounds timesteps to integers its sigmas stay exact, and the first timestep is the nearest integer.
"""

import copy
import math
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import torch

from unstill.errors import UnstillError
from unstill.forward_process import ForwardProcess, is_flow
from unstill.noise_schedule import Grid, level_of, training_sigmas
from unstill.sigma_schedule import linear_quadratic, moebius


_RAMPS = {
    "use_karras_sigmas": "_convert_to_karras",
    "use_exponential_sigmas": "_convert_to_exponential",
    "use_beta_sigmas": "_convert_to_beta",
}


def respace(scheduler: Any, process: ForwardProcess, start: float | None = None, sigma: float | None = None) -> Grid:
    """
    Re-spaces the scheduler's steps by its own rule so that they begin exactly at the requested level.

    Args:
        scheduler: after its `set_timesteps`; not changed, see `install`.
        process: of the scheduler.
        start: see `level_of`; 1.0, like the scheduler's own first level, returns its own grid.
        sigma: see `level_of`.

    Returns:
        A grid with as many steps as the scheduler has.

    Raises:
        UnstillError: as `level_of`, for schedulers that cannot be re-spaced exactly, and when fewer levels than steps
            lie below the start.
    """
    own = Grid.of(scheduler)
    if not process.inverted:
        return _respaced(scheduler, process, own, start, sigma)
    falling = _inverted(own, scheduler)
    grid = _respaced(scheduler, process, falling, start, sigma)
    return own if grid is falling else _inverted(grid, scheduler)


def _inverted(grid: Grid, scheduler: Any) -> Grid:
    """A grid of flow matching with 1 - s for every sigma s, for schedulers with `invert_sigmas` and back."""
    assert grid.sigmas is not None
    sigmas = 1 - grid.sigmas
    return replace(
        grid, sigmas=sigmas, timesteps=(sigmas[:-1] * scheduler.config.num_train_timesteps).to(grid.timesteps)
    )


def _respaced(scheduler: Any, process: ForwardProcess, own: Grid, start: float | None, sigma: float | None) -> Grid:
    """`respace` where the levels of `own`, the scheduler's grid, go down."""
    timestep, alpha, level = level_of(process, start, sigma)
    name = type(scheduler).__name__
    if not (own.nodes.diff() < 0).all() or getattr(scheduler, "solver_p", None) is not None:
        raise UnstillError(f"{name} does not visit each level once, going down, so it has no lower start; use DDIM.")
    if start == 1 or (sigma == 1 and process.kind == "flow"):
        return own
    if process.kind == "flow" and own.nodes[0] > 1:
        raise UnstillError(
            f"{name} visits sigma={own.nodes[0]:g} with use_flow_sigmas=True, where levels end at 1; switch its "
            "Karras, exponential, beta or Lu ramp off."
        )
    crowded = UnstillError(f"Fewer than {own.steps} levels lie below this start; start higher or take fewer steps.")
    if training_sigmas(process) is not None and timestep + 1 < own.steps:
        raise crowded
    if own.sigmas is None:
        grid = Grid(_integer_timesteps(scheduler, int(timestep) + 1, own))
        top = timestep
    else:
        top = level / alpha if process.kind == "vp_sigma" else level  # as the scheduler counts sigma
        if math.isclose(top, own.nodes[0].item(), rel_tol=1e-6):
            return own
        flow = process.kind == "flow" and not scheduler.config.get("use_karras_sigmas")
        if flow or _is_flow_match(scheduler):
            grid = _flow_grid(scheduler, top, own)
        else:
            grid = _ramp_grid(scheduler, round(timestep) + 1, top, own)
    if not math.isclose(grid.nodes[0].item(), top, rel_tol=1e-5):
        raise UnstillError(f"{name} in this configuration cannot begin at {top:g}; use another scheduler.")
    if not (grid.nodes.diff() < 0).all() or len(grid.timesteps) != len(own.timesteps):
        raise crowded
    if grid.sigmas is not None and not 0 <= grid.sigmas[-1] <= grid.nodes[-1]:
        raise UnstillError(
            f"{name} ends at sigma={grid.sigmas[-1]:g}, above {grid.nodes[-1]:g}, its lowest level from this start; "
            "start higher or take fewer steps."
        )
    return grid


def _is_flow_match(scheduler: Any) -> bool:
    """Whether `set_timesteps` is that of the flow-matching schedulers, which have no training table."""
    return is_flow(scheduler) and not hasattr(scheduler, "alphas_cumprod")


def _rule(scheduler: Any, **config: Any) -> Any:
    """A copy whose `set_timesteps` can be run; a shallow copy of a hooked scheduler is a plain one."""
    rule = copy.copy(scheduler)
    rule.register_to_config(**config)  # replaces the configuration, so the scheduler keeps its own
    return rule


def _not_own_rule(scheduler: Any) -> UnstillError:
    return UnstillError(
        f"{type(scheduler).__name__} was given timesteps or sigmas that do not follow its own spacing rule, so they "
        "cannot be re-spaced; give the pipeline only a number of steps, or no start."
    )


def _integer_timesteps(scheduler: Any, size: int, own: Grid) -> torch.Tensor:
    """The scheduler's rule over training steps [0, size), for schedulers that step by timesteps alone."""
    steps = len(own.timesteps)
    if steps == 1:
        return torch.tensor([size - 1]).to(own.timesteps)
    if "original_inference_steps" in scheduler.config:
        timesteps = [round(Fraction(size * (steps - k), steps)) - 1 for k in range(steps)]
        return torch.tensor(timesteps).to(own.timesteps)
    rule = _rule(scheduler, num_train_timesteps=_without_float_tail(scheduler, size, steps))
    rule.set_timesteps(steps, device=own.timesteps.device)
    if scheduler.config.timestep_spacing == "leading":
        last = rule.timesteps[-1].item()
        return torch.linspace(size - 1, last, steps, dtype=torch.float64).round().to(own.timesteps)
    visited: torch.Tensor = rule.timesteps
    return visited


def _ramp_grid(scheduler: Any, size: int, top: float, own: Grid) -> Grid:
    """The scheduler's rule over sigmas up to `top`, the level of training step size - 1."""
    assert own.sigmas is not None
    rule = _rule(scheduler)
    rule.set_timesteps(own.steps)
    if not torch.equal(rule.sigmas, own.sigmas.cpu()):
        raise _not_own_rule(scheduler)
    config: dict[str, Any] = {}
    if scheduler.config.get("sigma_max") is not None or scheduler.config.get("use_flow_sigmas"):
        config["sigma_max"] = top / (1 - top) if scheduler.config.get("use_flow_sigmas") else top
        if own.steps == 1:  # a single step of EDM's exponential ramp is its lower end
            config["sigma_min"] = config["sigma_max"]
    else:
        config["num_train_timesteps"] = _without_float_tail(scheduler, size, own.steps)
        if own.steps == 1:
            config["timestep_spacing"] = "trailing"
        elif scheduler.config.get("timestep_spacing") == "leading":
            config["timestep_spacing"] = "linspace"
    rule = _rule(scheduler, **config)
    if "num_train_timesteps" in config:
        rule.alphas_cumprod = scheduler.alphas_cumprod[:size].clone()
        rule.alphas_cumprod[-1] = 1 / (1 + top**2)
        if hasattr(scheduler, "lambda_t"):
            rule.lambda_t = scheduler.lambda_t[:size]
    rule.set_timesteps(own.steps, device=own.timesteps.device)
    if not rule.timesteps.is_floating_point():
        rule.timesteps[0] = size - 1  # some rules round towards zero
    return replace(Grid.of(rule), own=False)


def _without_float_tail(scheduler: Any, size: int, steps: int) -> float:
    """
    `size`, or the float just below it for which diffusers' `trailing` has no extra entry at t = -1.

    arange(size, 0, -size / steps) counts ceil(size / (size / steps)) entries, and the quotient can round to above
    `steps`: for 50 steps at 920, the paper's own start of 0.92. Below float32 the difference would be lost in
    DPM-Solver++.
    """
    if scheduler.config.get("timestep_spacing") != "trailing":
        return size
    number = np.float32(size)
    while math.ceil(float(number) / (float(number) / steps)) > steps:
        number = np.nextafter(number, np.float32(0))
    return float(number)


def _flow_grid(scheduler: Any, top: float, own: Grid) -> Grid:
    """Flow-matching sigmas from `top` downwards, by the rule that spaced `own`."""
    assert own.sigmas is not None
    nodes, steps, config = own.nodes.numpy(), own.steps, scheduler.config
    ramp = next((own_ramp for flag, own_ramp in _RAMPS.items() if config.get(flag)), None)
    if steps == 1:
        levels = np.array([top])
    elif ramp is not None:
        rule = _rule(scheduler, sigma_max=top, sigma_min=nodes[-1])
        levels = getattr(rule, ramp)(in_sigmas=np.array([top, nodes[-1]]), num_inference_steps=steps)
    elif steps == 2 and config.get("shift_terminal"):
        levels = np.array([top, nodes[-1]])
    elif _is_linear_quadratic(nodes):
        to_level, to_index = linear_quadratic(steps)
        levels = to_level(np.linspace(to_index(top), steps, steps + 1)[:-1])
        levels[0] = top
    else:
        levels = _shifted_levels(scheduler, top, nodes)
    sigmas = torch.from_numpy(levels)
    timesteps = sigmas * config.num_train_timesteps
    if not own.timesteps.is_floating_point():
        timesteps = timesteps.round()
    # DEIS, SASolver and `final_sigmas_type="sigma_min"` end on the last visited level.
    end = sigmas[-1:] if own.sigmas[-1] == own.nodes[-1] else own.sigmas[-1:].to(sigmas)
    sigmas = torch.cat([sigmas, end])
    if own.order == 2:  # (s0, s1, s1, s2, s2, ..., end), (t0, t1, t1, t2, t2, ...)
        sigmas = torch.cat([sigmas[:1], sigmas[1:-1].repeat_interleave(2), sigmas[-1:]])
        timesteps = torch.cat([timesteps[:1], timesteps[1:].repeat_interleave(2)])
    return Grid(timesteps.to(own.timesteps), sigmas.to(own.sigmas), own.order)


def _is_linear_quadratic(nodes: np.ndarray) -> bool:
    to_level, _ = linear_quadratic(len(nodes))
    return bool(np.abs(to_level(np.arange(len(nodes))) - nodes).max() < 1e-5)


def _shifted_levels(scheduler: Any, top: float, nodes: np.ndarray) -> np.ndarray:
    """Recovers the even ramp behind `nodes` (at least two levels), starts it at `top` and applies the same shift."""
    steps, config = len(nodes), scheduler.config
    in_table = hasattr(scheduler, "alphas_cumprod")  # UniPC, DPM-Solver++ and others with use_flow_sigmas
    if config.get("use_dynamic_shifting") or config.get("shift_terminal"):
        if steps == 2:  # u = (1, 1/2), the half-open ramp that pipelines give
            levels, ramp = np.array([0.0, nodes[1], 1.0]), np.array([0.0, 0.5, 1.0])
        else:  # The first level is avoided where possible: UniPC lowers it from 1 by 1e-6.
            ramp = np.array([min(1, steps - 3), steps // 2, steps - 1], dtype=np.float64)
            levels = nodes[ramp.astype(int)]
    else:  # u = 0, 1/2, 1 at s u / (1 + (s - 1) u)
        # set_shift changes the attribute and leaves the configuration.
        own_shift = scheduler.shift if hasattr(type(scheduler), "shift") else config.get("shift", 1.0)
        shift = config.flow_shift if in_table else own_shift
        levels, ramp = np.array([0.0, shift / (1 + shift), 1.0]), np.array([0.0, 0.5, 1.0])
    unshifted = moebius(nodes, levels, ramp)
    last = unshifted[-1]
    step = (last - unshifted[1]) / (steps - 2) if steps > 2 else unshifted[1] - unshifted[0]
    even = last - step * np.arange(steps - 2.0, -1, -1)
    if np.abs(moebius(even, ramp, levels) - nodes[1:]).max() > 1e-4:
        raise _not_own_rule(scheduler)
    # A half-open ramp stops one step before its end: always for schedulers with a table; for flow-matching ones where
    # the pipeline supplies the ramp, which ends at 0. Their own ramp, and a stretched one, include their end.
    end, zero = last + step, moebius(0.0, levels, ramp)
    half_open = not config.get("shift_terminal") and (in_table or abs(end - zero) < 0.01 * abs(step))
    if half_open and (zero - end) * step < 0:  # rounding to float32 has moved the end just below 0
        end = zero
    first = moebius(top, levels, ramp)
    even = np.linspace(first, end, steps + 1)[:-1] if half_open else np.linspace(first, last, steps)
    shifted: np.ndarray = moebius(even, ramp, levels)
    shifted[0] = top
    return shifted
