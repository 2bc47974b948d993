"""
NI-VSDS: score distillation that sets a still video in motion, then a regeneration from the result (I4VGen).

Guo et al., "I4VGen: Image as Free Stepping Stone for Text-to-Video Generation",
https://huggingface.co/papers/2406.02230.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from unstill.errors import UnstillError
from unstill.methods.base import Method, NextSample, Run, SolverSchedule, Target
from unstill.methods.noise_levels import LEAST_SIGNAL, SMALLEST_SIGNAL, signal_share, training_level
from unstill.noise_schedule import Grid


log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class NIVSDS(Method):
    """
    Distils motion into the image, repeated as a still video, then samples again from the noised result: a
    text-to-video model animates an image that way. The first loop costs a model call per level, without a solver.

    Args:
        tau: how far the loop goes down the levels of the schedule: to this fraction of the training time, in [0, 1).
        step_size: how far an iteration moves the video, alpha of Eq. 5: a number, a function of the iteration (from
            0), or one number per iteration, the last of which is kept for the rest.
        regenerate: how much of the sampling is repeated after the loop, the share p_re of the steps, in (0, 1]; below
            1 it begins lower. By default 1, the paper's; where the first level keeps nothing of the video (flow
            matching, zero terminal SNR), the steps from the highest level on that keeps a twentieth of it
            (`LEAST_SIGNAL`).
        counted: count the levels as the released code does: `int(steps * (1 - tau)) + 1` of them, whatever they are.
    """

    tau: float = 0.4
    step_size: float | Sequence[float] | Callable[[int], float] = 1.0
    regenerate: float | None = None
    counted: bool = False

    summary = "Distils motion into the image, then samples again from the result."
    use_when = "comes from a text-to-video model, and you have an image"
    cost = "up to twice the steps"
    rank = 80
    owns = frozenset({"levels", "latents"})
    needs = frozenset({"image"})
    presets = {
        "paper": {},
        "paper-lavie": {"regenerate": 0.8},
        "released": {"step_size": (10.0, 10.0, 10.0, 1.0), "counted": True},  # AnimateDiff
        "released-lavie": {"regenerate": 0.8, "counted": True},
    }

    def __post_init__(self) -> None:
        if not (0 <= self.tau < 1 and (self.regenerate is None or 0 < self.regenerate <= 1)):
            raise UnstillError(
                f"NIVSDS takes tau in [0, 1) and regenerate in (0, 1], not {self.tau} and {self.regenerate}."
            )
        if not callable(self.step_size) and not isinstance(self.step_size, int | float):
            object.__setattr__(self, "step_size", tuple(map(float, self.step_size)))
            if not self.step_size:
                raise UnstillError("NIVSDS was given an empty list of step sizes; give a number or one per iteration.")
        sizes = () if callable(self.step_size) else self.step_size
        if not all(abs(size) <= 1e6 for size in (sizes if isinstance(sizes, tuple) else (sizes,))):
            raise UnstillError("NIVSDS takes step sizes of at most a million, as numbers.")

    def check(self, others: Sequence[Method], target: Target) -> None:
        if target.order != 1:
            raise UnstillError(
                f"NIVSDS needs one model call per noise level, and {type(target.process.scheduler).__name__} makes "
                f"{target.order}; use e.g. EulerDiscreteScheduler or DDIMScheduler."
            )
        if target.has_audio_scheduler:
            raise UnstillError(
                f"NIVSDS visits levels twice, which the sound of {target.pipeline} cannot follow; use ImageStart."
            )
        for other in others:
            if other.implements("on_step"):
                raise UnstillError(
                    f"NIVSDS and {other.name} both act on every step towards another end; use one of them."
                )
        training_level(target.process, self.tau)  # raises where there is no training time

    def on_schedule(self, run: Run, grid: Grid) -> Grid:
        steps, iterations = len(grid.timesteps), self._iterations(run, grid)
        falls = -grid.timesteps.diff() if not run.process.inverted else grid.timesteps.diff()
        if not (falls > 0).all():
            raise UnstillError(
                f"{type(run.process.scheduler).__name__} does not visit every level once, downwards, as NIVSDS needs; "
                "use e.g. DDIMScheduler."
            )
        first = self._first(run, grid)
        if not 0 < iterations <= steps or first == steps:
            raise UnstillError(
                f"NIVSDS has no noise level above tau={self.tau} or none to regenerate from in {steps} steps; "
                "take more steps or other shares."
            )
        run.set_state(self, _State(iterations, grid, first))
        join = lambda levels: torch.cat([levels[:iterations], levels[first:]])  # noqa: E731
        sigmas = None if grid.sigmas is None else join(grid.sigmas)
        return replace(grid, timesteps=join(grid.timesteps), sigmas=sigmas, own=False)

    def on_start(self, run: Run, latents: torch.Tensor) -> torch.Tensor:
        assert run.image_latents is not None  # guaranteed by `needs`
        state: _State = run.state_of(self)
        state.video = run.image_latents[:, :, :1].expand_as(run.noise)
        return run.process.add_noise(state.video, run.noise, run.grid.timesteps[0], 0)

    def on_step(
        self, run: Run, output: torch.Tensor, sample: torch.Tensor, t: torch.Tensor | float
    ) -> torch.Tensor | NextSample:
        state: _State = run.state_of(self)
        if run.step >= state.iterations:
            state.video = None
            # The solver has not seen the loop.
            run.solver = SolverSchedule(grid=state.own, offset=state.first - state.iterations)
            return output
        assert state.video is not None
        process, step_size = run.process, self._step_size(run.step)
        alpha, sigma = process.alpha_sigma(t, run.step)
        if process.prediction == "epsilon":
            state.video = update(state.video, output, run.noise, weight(alpha, sigma), step_size)
        else:  # the same through x0, which these networks also give where alpha = 0
            x0 = process.to_x0(output, sample, t, run.step)
            state.video = state.video + share(alpha, sigma, step_size) * (x0 - state.video)
        step = run.step + 1
        # One noise for all of the loop, another for the regeneration.
        noise = run.noise if step < state.iterations else run.draw(run.noise.shape)
        return NextSample(process.add_noise(state.video, noise, run.grid.timesteps[step], step))

    def _first(self, run: Run, grid: Grid) -> int:
        """Index of the level at which the regeneration begins; the number of steps, if there is none."""
        shares = [signal_share(*run.process.alpha_sigma(t, i)) for i, t in enumerate(grid.timesteps)]
        name = type(run.process.scheduler).__name__
        if self.regenerate is not None:
            first = len(shares) - int(len(shares) * self.regenerate)
            if first < len(shares) and shares[first] <= SMALLEST_SIGNAL:
                log.warning(
                    "NIVSDS regenerates from a level at which %s keeps nothing of the image; leave regenerate out, or "
                    "give less than %g.",
                    name,
                    self.regenerate,
                )
            return first
        if shares[0] > SMALLEST_SIGNAL:
            return 0
        first = next((i for i, share in enumerate(shares) if share >= LEAST_SIGNAL), len(shares))
        if first < len(shares):
            log.warning(
                "NIVSDS regenerates from step %d of %d, where %s keeps %.0f %% of the signal: the first level keeps "
                "nothing of the image.",
                first + 1,
                len(shares),
                name,
                100 * shares[first],
            )
        return first

    def _iterations(self, run: Run, grid: Grid) -> int:
        steps = len(grid.timesteps)
        if self.counted:
            return min(int(steps * (1 - self.tau)) + 1, steps)
        alpha_tau, sigma_tau = training_level(run.process, self.tau)
        levels = [run.process.alpha_sigma(t, i) for i, t in enumerate(grid.timesteps)]
        # As noise to signal, so that it holds in the coordinates of every scheduler; with room for rounding.
        return sum(sigma * alpha_tau >= alpha * sigma_tau * (1 - 1e-6) for alpha, sigma in levels)

    def _step_size(self, iteration: int) -> float:
        if callable(self.step_size):
            return self.step_size(iteration)
        if isinstance(self.step_size, Sequence):
            return self.step_size[min(iteration, len(self.step_size) - 1)]
        return self.step_size


@dataclass(slots=True)
class _State:
    """
    `iterations` levels of the loop; of the `own` levels, the `first` of the regeneration; during the loop, the video.
    """

    iterations: int
    own: Grid
    first: int
    video: torch.Tensor | None = None  # (B, C, F, H, W)


def update(
    video: torch.Tensor, eps: torch.Tensor, noise: torch.Tensor, weight: float, step_size: float
) -> torch.Tensor:
    """
    Eq. 5: `video - step_size * weight * (eps - noise)`.

    Args:
        video: latents `(B, C, F, H, W)` that are distilled.
        eps: noise predicted, with guidance, for `alpha * video + sigma * noise`.
        noise: the noise that was added, the same in every iteration.
        weight: w(t), see `weight`.
        step_size: alpha in the paper.
    """
    return video - step_size * weight * (eps - noise)


def weight(alpha: float, sigma: float) -> float:
    """w(t) = 1 - abar_t, for forward processes of any scale: `sigma^2 / (alpha^2 + sigma^2)`."""
    return sigma**2 / (alpha**2 + sigma**2)


def share(alpha: float, sigma: float, step_size: float) -> float:
    """
    What one iteration replaces of the video by the predicted x0: Eq. 5 is `video + share * (x0 - video)` with
    `share = step_size * sqrt(abar_t (1 - abar_t))`. It is 0 at both ends of the process, where eps or x0 is unknown.
    """
    return step_size * alpha * sigma / (alpha**2 + sigma**2)
