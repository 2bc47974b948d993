"""
ImageStart: sampling begins from the noised image on every frame (SDEdit).

Meng et al., "SDEdit: Guided Image Synthesis and Editing with Stochastic Differential Equations",
https://huggingface.co/papers/2108.01073.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from unstill.errors import UnstillError
from unstill.methods.base import Method, Run, Target
from unstill.methods.checks import check_level
from unstill.methods.noise_levels import SMALLEST_SIGNAL
from unstill.noise_schedule import Grid
from unstill.respacing import respace


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageStart(Method):
    """
    Starts from `alpha image + sigma noise`. The lower the level, the more of the image stays, and the less it moves.

    Args:
        start: the level as a fraction of the training time, in (0, 1]; as many steps as asked for are spaced below it.
        sigma: the level as a sigma. Without both, sampling begins where it always does (or where `EarlyStart` says),
            which must leave something of the image: flow matching needs a level.
    """

    start: float | None = None
    sigma: float | None = None

    summary = "Starts from the noised image on every frame: closest, with least motion."
    use_when = "must stay close to the image at any price"
    cost = "nothing; motion"
    rank = 70
    owns = frozenset({"latents"})
    needs = frozenset({"image"})

    def __post_init__(self) -> None:
        if self._lower:
            check_level(self.start, self.sigma)

    @property
    def _lower(self) -> bool:
        return self.start is not None or self.sigma is not None

    def check(self, others: Sequence[Method], target: Target) -> None:
        for other in others:
            if self._lower and "levels" in other.owns:
                raise UnstillError(
                    f"ImageStart and {other.name} both decide the noise level at which sampling starts; "
                    "give it to one of them."
                )

    def on_schedule(self, run: Run, grid: Grid) -> Grid:
        if not self._lower:
            return grid
        return respace(run.process.scheduler, run.process, start=self.start, sigma=self.sigma)

    def on_start(self, run: Run, latents: torch.Tensor) -> torch.Tensor:
        assert run.image_latents is not None  # guaranteed by `needs`
        alpha, sigma = run.process.alpha_sigma(run.grid.timesteps[0], 0)
        if alpha <= SMALLEST_SIGNAL * math.hypot(alpha, sigma):
            raise UnstillError(
                f"{type(run.process.scheduler).__name__} begins with pure noise, which keeps nothing of the image; "
                "give ImageStart a lower level, such as start=0.9."
            )
        image = run.image_latents[:, :, :1].expand_as(run.noise)
        return run.process.add_noise(image, run.noise, run.grid.timesteps[0], 0)
