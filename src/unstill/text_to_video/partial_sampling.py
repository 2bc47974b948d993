"""Methods that run a part of the sampling steps, and that report progress."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch

from unstill.methods.base import Method, NextSample, Run, SolverSchedule
from unstill.methods.ni_vsds import NIVSDS
from unstill.noise_schedule import Grid


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PartialSchedule(Method):
    """
    Visits only the levels `since` to `until` of the schedule. The solver steps as in the whole schedule, except that
    multistep solvers (DPM-Solver++, UniPC) start without a history.

    Args:
        since: index of the first level.
        until: index after the last level; `None`: to the end.
        sample: `(B, C, F, H, W)` at level `since`, in place of the first latents.
        state: of the generator, set before the first step.
        progress: called before every step with the number of levels done.
    """

    since: int = 0
    until: int | None = None
    sample: torch.Tensor | None = None
    state: torch.Tensor | None = None
    progress: Callable[[int], None] | None = None

    def on_schedule(self, run: Run, grid: Grid) -> Grid:
        run.set_state(self, _State(grid))
        if not self.since and self.until is None:
            return grid
        end = len(grid.timesteps) if self.until is None else self.until
        sigmas = None if grid.sigmas is None else grid.sigmas[self.since : end + 1]
        return replace(grid, timesteps=grid.timesteps[self.since : end], sigmas=sigmas, own=False)

    def on_start(self, run: Run, latents: torch.Tensor) -> torch.Tensor:
        own = run.state_of(self).own
        if run.grid is not own:
            run.solver = SolverSchedule(grid=own, offset=self.since)
        if self.state is not None:
            assert isinstance(run.generator, torch.Generator)
            run.generator.set_state(self.state)
        return latents if self.sample is None else self.sample.to(latents)

    def on_step(
        self, run: Run, output: torch.Tensor, sample: torch.Tensor, t: torch.Tensor | float
    ) -> torch.Tensor | NextSample:
        if self.progress is not None:
            self.progress(self.since + run.step)
        if self.until is not None and run.step == len(run.grid.timesteps) - 1:
            run.state_of(self).predicted = run.process.to_x0(output, sample, t, run.step)
        return output

    def predicted(self, run: Run) -> torch.Tensor:
        """The x0 that the last step of this part predicted, `(B, C, F, H, W)`."""
        predicted: torch.Tensor = run.state_of(self).predicted
        return predicted


@dataclass(slots=True)
class _State:
    own: Grid
    predicted: torch.Tensor | None = None


@dataclass(frozen=True, slots=True)
class DistilledLatents:
    """
    The result of the loop of NI-VSDS, from which the regeneration can be resumed.

    Attributes:
        video: the distilled latents, `(1, C, F, H, W)`.
        sample: `video` with fresh noise, of the same shape; the regeneration starts from it.
        since: index of the level at which it starts.
        state: of the generator at that time.
    """

    video: torch.Tensor
    sample: torch.Tensor
    since: int
    state: torch.Tensor


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ReportingNIVSDS(NIVSDS):
    """
    `NIVSDS` that reports its progress.

    Args:
        progress: called after every step with the steps done and in total, including the regeneration.
        save_distilled: called once, at the end of the loop, with its result.
    """

    progress: Callable[[int, int], None]
    save_distilled: Callable[[DistilledLatents], None]

    @classmethod
    def of(cls, method: NIVSDS, **calls: Any) -> Self:
        return cls(**{field.name: getattr(method, field.name) for field in fields(method)}, **calls)

    def on_step(
        self, run: Run, output: torch.Tensor, sample: torch.Tensor, t: torch.Tensor | float
    ) -> torch.Tensor | NextSample:
        result = NIVSDS.on_step(self, run, output, sample, t)
        loop = run.state_of(self)
        if run.step == loop.iterations - 1:
            assert isinstance(result, NextSample) and isinstance(run.generator, torch.Generator)
            state = run.generator.get_state()
            self.save_distilled(DistilledLatents(loop.video.cpu(), result.sample.cpu(), loop.first, state))
        self.progress(run.step + 1, len(run.grid.timesteps))
        return result
