"""
Predict and perturb: in the first steps the prediction is noised anew and predicted again before the step is taken.

"Self-Refine Video", https://huggingface.co/papers/2601.18577.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from unstill.errors import UnstillError, shown
from unstill.methods.base import Method, NextSample, Run, SolverSchedule, Target
from unstill.noise_schedule import Grid


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictAndPerturb(Method):
    """
    Predicts the clean video, noises the prediction anew to the same level and predicts again, `repeats` times, in the
    first steps; then takes the step.

    What hardly changed from one prediction to the next is certain and keeps its value. The steps that are refined are
    taken without the solver, from the prediction to the next level along the noise it implies (Euler's method in flow
    matching, DDIM otherwise). At the same number of the network's calls an audit found no gain over plain sampling
    (https://huggingface.co/papers/2609.13257): compare it with plain sampling in more steps.

    Args:
        repeats: calls of the network more in each of these steps, k, from 0 to 100; 0 changes nothing.
        until: share of the steps, from the first on, that is refined, in [0, 1].
        tau: how much a place must change between two predictions to be uncertain: the change of x0, as a mean over
            channels; 0 replaces everything.
        stop: a level is not refined further once more than this share of a video is certain, in [0, 1]; at 1, never.
            The remaining calls of that level are made nevertheless, since a pipeline's loop cannot be shortened, and
            change nothing. Paper: 0.999.
    """

    repeats: int = 3
    until: float = 0.2
    tau: float = 0.25
    stop: float = 1.0

    summary = "Predicts the first steps several times from fresh noise: steadier motion."
    use_when = "moves implausibly, and you can pay for many more calls"
    cost = "`repeats` more calls in each of the first steps"
    rank = 82
    owns = frozenset({"levels"})
    presets = {"paper": {"stop": 0.999}, "unmasked": {"tau": 0.0}}

    def __post_init__(self) -> None:
        whole = isinstance(self.repeats, int) and 0 <= self.repeats <= 100
        if not (whole and 0 <= self.until <= 1 and 0 <= self.tau <= 1e6 and 0 <= self.stop <= 1):
            raise UnstillError(
                "PredictAndPerturb takes 0 to 100 repeats, until and stop in [0, 1] and a tau of at least 0, but got "
                f"repeats={shown(self.repeats)}, until={shown(self.until)}, tau={shown(self.tau)}, "
                f"stop={shown(self.stop)}."
            )

    def check(self, others: Sequence[Method], target: Target) -> None:
        if target.order != 1:
            scheduler = type(target.process.scheduler).__name__
            raise UnstillError(
                f"PredictAndPerturb needs one model call per noise level, and {scheduler} makes {target.order}; use "
                "e.g. EulerDiscreteScheduler or DDIMScheduler."
            )
        if target.has_audio_scheduler:
            raise UnstillError(
                f"PredictAndPerturb visits levels several times, which the sound of {target.pipeline} cannot follow; "
                "use EarlyStart."
            )

    def on_schedule(self, run: Run, grid: Grid) -> Grid:
        refined = math.ceil(self.until * len(grid.timesteps) - 1e-9)
        refined = min(refined, len(grid.timesteps) - 1)  # the last step goes to level 0
        if self.repeats == 0 or refined < 1:
            run.set_state(self, None)
            return grid
        visits = [i for i in range(refined) for _ in range(self.repeats + 1)]
        order = [*visits, *range(refined, len(grid.timesteps))]
        sigmas = None
        if grid.sigmas is not None:
            sigmas = torch.cat([grid.sigmas[order], grid.sigmas[len(grid.timesteps) :]])
        run.set_state(self, _State(own=grid, refined=refined))
        return replace(grid, timesteps=grid.timesteps[order], sigmas=sigmas, own=False)

    def on_step(
        self, run: Run, output: torch.Tensor, sample: torch.Tensor, t: torch.Tensor | float
    ) -> torch.Tensor | NextSample:
        state: _State | None = run.state_of(self)
        if state is None:
            return output
        level, visit = divmod(run.step, self.repeats + 1)
        if level >= state.refined:
            run.solver = SolverSchedule(grid=state.own, offset=-state.refined * self.repeats)
            return output
        process = run.process
        x0 = process.to_x0(output, sample, t, run.step)
        if visit == 0:
            state.x0, state.sample = x0, sample.clone()
            state.stopped = torch.zeros(len(x0), dtype=torch.bool, device=x0.device).view(-1, 1, 1, 1, 1)
        else:
            assert state.x0 is not None and state.sample is not None and state.stopped is not None
            uncertain = (x0 - state.x0).abs().mean(1, keepdim=True) > self.tau
            if self.tau == 0:
                uncertain = torch.ones_like(uncertain)
            certain = 1 - uncertain.float().mean((1, 2, 3, 4), keepdim=True)
            uncertain = uncertain & ~state.stopped
            state.stopped = state.stopped | (certain > self.stop)
            state.x0 = torch.where(uncertain, x0, state.x0)
            state.sample = torch.where(uncertain, sample, state.sample)
        if visit < self.repeats:
            return NextSample(process.add_noise(state.x0, run.draw(x0.shape), t, run.step + 1))
        alpha, sigma = process.alpha_sigma(t, run.step)
        noise = (state.sample - alpha * state.x0) / sigma
        step = run.step + 1
        return NextSample(process.add_noise(state.x0, noise, run.grid.timesteps[step], step))


@dataclass(slots=True)
class _State:
    """
    The levels without repeats, how many of them are refined, and at the current one x0 and the sample so far, and
    which videos are not refined further.
    """

    own: Grid
    refined: int
    x0: torch.Tensor | None = None  # (B, C, F, H, W)
    sample: torch.Tensor | None = None
    stopped: torch.Tensor | None = None  # (B, 1, 1, 1, 1)
