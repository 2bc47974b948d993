"""The noise levels of a sampling run, the level of a requested start, and replacing the levels of a scheduler."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from typing import Any, Self

import torch

from unstill.errors import UnstillError
from unstill.forward_process import ForwardProcess


# Further tables of solvers with two evaluations per step (KDPM2), indexed as `sigmas`.
_COMPANIONS = ("sigmas_interpol", "sigmas_up", "sigmas_down")


@dataclass(frozen=True, eq=False)
class Grid:
    """
    The noise levels of a sampling run, in the representation of its scheduler.

    Attributes:
        timesteps: (n,) timesteps that condition the network, in the scheduler's dtype and on its device; descending,
            except with `ForwardProcess.inverted`, where they and the sigmas ascend.
        sigmas: (n + 1,) the scheduler's sigmas, including the final one; `None` for schedulers that step by timesteps
            alone (kind `vp`).
        order: model calls per level; at 2 the tensors are interleaved as in Heun and KDPM2.
        companions: further tables of the scheduler, indexed as `sigmas`, by attribute name.
        own: whether this is the scheduler's own spacing. Otherwise `before_step` makes DDIM-family steps exact.
    """

    timesteps: torch.Tensor
    sigmas: torch.Tensor | None = None
    order: int = 1
    companions: Mapping[str, torch.Tensor] = field(default_factory=dict)
    own: bool = False

    @classmethod
    def of(cls, scheduler: Any) -> Self:
        """The current levels of `scheduler`, after its `set_timesteps`."""
        companions = {name: getattr(scheduler, name) for name in _COMPANIONS if hasattr(scheduler, name)}
        return cls(scheduler.timesteps, getattr(scheduler, "sigmas", None), scheduler.order, companions, own=True)

    @property
    def steps(self) -> int:
        """The number of solver steps, that is of distinct levels."""
        return (len(self.timesteps) + self.order - 1) // self.order

    @property
    def nodes(self) -> torch.Tensor:
        """(steps,) the distinct levels in the scheduler's unit (sigma, or timestep), float64 on the CPU."""
        nodes = (self.timesteps if self.sigmas is None else self.sigmas[:-1]).cpu().double()
        return torch.cat([nodes[:1], nodes[1 :: self.order]])[: self.steps]

    @cached_property
    def strides(self) -> list[int]:
        """Training steps from each timestep to the next; the last leads to -1, the clean sample."""
        timesteps = self.timesteps.tolist()
        return [t - following for t, following in zip(timesteps, [*timesteps[1:], -1], strict=True)]


def level_of(
    process: ForwardProcess, start: float | None = None, sigma: float | None = None
) -> tuple[float, float, float]:
    """
    The noise level of a requested start.

    Args:
        process: of the scheduler.
        start: a fraction of training time in (0, 1]: a training table of T steps starts at timestep
            round(start * T) - 1, flow matching at sigma = start.
        sigma: the noise level itself, for VE, EDM and flow matching.

    Returns:
        (timestep, alpha, sigma).

    Raises:
        UnstillError: not exactly one of the two is given, in the unit of the scheduler and in range.
    """
    scheduler, table = process.scheduler, training_sigmas(process)
    name = type(scheduler).__name__
    if start is not None and sigma is None:
        requested, unit, highest = start, "start", 1.0
        if table is None and process.kind != "flow":
            raise UnstillError(f"{name} counts noise levels in sigma: give sigma=, e.g. sigma=100, instead of start=.")
    elif sigma is not None and start is None:
        requested, unit, highest = sigma, "sigma", 1.0 if process.kind == "flow" else math.inf
        if process.kind in ("vp", "vp_sigma"):
            raise UnstillError(f"{name} counts noise levels in time: give start=, e.g. start=0.96, instead of sigma=.")
        if table is not None:
            highest = table[-1].item()
    else:
        raise UnstillError("Give the level at which sampling starts as start= or as sigma=, exactly one of them.")
    if not 0 < requested <= highest:
        raise UnstillError(f"{unit}={requested:g} is out of range: {name} starts above 0 and at most at {highest:g}.")
    if process.kind == "flow":
        time = 1 - requested if process.inverted else requested
        return time * scheduler.config.num_train_timesteps, 1 - requested, requested
    if table is None:
        by_log = not hasattr(scheduler, "scale_noise")
        return math.log(requested) / 4 if by_log else requested * scheduler.config.num_train_timesteps, 1.0, requested
    if start is None:
        return (table.log() - math.log(requested)).abs().argmin().item(), 1.0, requested
    timestep = max(round(start * len(table)), 1) - 1
    if process.kind == "ve":
        return timestep, 1.0, table[timestep].item()
    assert process.abar is not None
    abar = process.abar[timestep].item()
    return timestep, math.sqrt(abar), math.sqrt(1 - abar)


def install(scheduler: Any, grid: Grid) -> None:
    """Writes `grid` into `scheduler`. Call it after the scheduler's own `set_timesteps`, which would overwrite it."""
    more = (len(grid.timesteps) - len(scheduler.timesteps)) // grid.order
    if more and hasattr(scheduler, "step_index"):
        scheduler.num_inference_steps += more
        if hasattr(scheduler, "order_list"):  # one entry per step: DPM-Solver++ single-step
            scheduler.order_list = scheduler.get_order_list(scheduler.num_inference_steps)
    scheduler.timesteps = grid.timesteps
    if grid.sigmas is not None:
        scheduler.sigmas = grid.sigmas
    for name, table in grid.companions.items():
        setattr(scheduler, name, table)


def before_step(scheduler: Any, grid: Grid, step: int) -> None:
    """
    Makes the next `scheduler.step` lead exactly to the next timestep of `grid`. Call it before every step.

    The DDIM family and CogVideoX ignore `timesteps` and step down by `num_train_timesteps // num_inference_steps`,
    which is wrong on any grid but their own. A fractional `num_inference_steps` yields the required stride. Other
    schedulers look up the next level and are not changed.
    """
    if grid.own or grid.sigmas is not None or hasattr(scheduler, "step_index"):
        return
    scheduler.num_inference_steps = Fraction(scheduler.config.num_train_timesteps, grid.strides[step])


def training_sigmas(process: ForwardProcess) -> torch.Tensor | None:
    """(T,) sigma / alpha over training time, ascending, float64; None for a scheduler without a training table."""
    config = process.scheduler.config
    if process.kind == "flow" or process.abar is None or config.get("timestep_type") == "continuous":
        return None
    return ((1 - process.abar) / process.abar).sqrt()
