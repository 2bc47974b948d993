"""
Early start: sampling begins below the highest noise level of training.

At the highest levels the noisy video says almost nothing and the image almost everything, so the model copies it and
the video stands still; no copying happens at levels that are not visited. "Identifying and Solving Conditional Image
Leakage in Image-to-Video Diffusion Model", https://huggingface.co/papers/2406.15735, Section 3.2.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from unstill.methods.base import Method, Run, Target
from unstill.methods.checks import check_level
from unstill.noise_schedule import Grid, level_of
from unstill.respacing import respace


@dataclass(frozen=True, kw_only=True, slots=True)
class EarlyStart(Method):
    """
    Begins sampling at a chosen noise level, with as many steps as the pipeline was asked for.

    The first latents stay the pipeline's own, scaled for that level: N(0, I) for variance-preserving and flow
    schedulers; for the Euler family N(0, sigma^2 + 1) or N(0, sigma^2), as its `timestep_spacing` has it. Noisy data
    are not quite distributed like that, the less so the lower the level: `AnalyticInit` closes the gap.

    Args:
        start: the level as a fraction of the training time, in (0, 1]. Paper: 0.96 and 0.92 for DynamiCrafter.
        sigma: the level as a sigma, for schedulers that count in sigmas. Paper: 100 for Stable Video Diffusion.
            Exactly one of both is given.
    """

    start: float | None = None
    sigma: float | None = None

    summary = "Starts sampling below the highest noise level: more motion."
    use_when = "stands still, only zooms, moves too slowly"
    cost = "nothing"
    rank = 10
    owns = frozenset({"levels"})
    presets = {
        "paper": {"start": 0.96},
        "paper-svd": {"sigma": 100.0},
        "released": {"start": 0.94},  # DynamiCrafter and VideoCrafter as published, without fine-tuning
        "released-svd": {"sigma": 100.0},
    }

    def __post_init__(self) -> None:
        check_level(self.start, self.sigma)

    def check(self, others: Sequence[Method], target: Target) -> None:
        level_of(target.process, self.start, self.sigma)

    def on_schedule(self, run: Run, grid: Grid) -> Grid:
        return respace(run.process.scheduler, run.process, start=self.start, sigma=self.sigma)
