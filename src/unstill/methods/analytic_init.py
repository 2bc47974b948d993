"""
Analytic-Init: an early start from latents that are distributed like noisy videos.

Of all Gaussians N(m, s^2 I), the one nearest to the noisy data of a level (least KL divergence) has the mean and the
mean variance of noisy data. "Identifying and Solving Conditional Image Leakage in Image-to-Video Diffusion Model",
https://huggingface.co/papers/2406.15735, Section 3.2, Proposition 1 and Eq. 5.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch

from unstill.errors import UnstillError, shown
from unstill.latent_statistics import LatentStatistics
from unstill.methods.base import Method, Run, Target
from unstill.methods.checks import check_level
from unstill.noise_schedule import Grid, level_of
from unstill.respacing import respace
from unstill.statistics_hub import check_vae


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class AnalyticInit(Method):
    """
    Begins sampling at a chosen noise level, from alpha E[X0] + sqrt(sigma^2 + alpha^2 Var[X0]) noise.

    Args:
        statistics: E[X0] and Var[X0] of videos like those the model was trained on, in the pipeline's own latents, or
            the file that holds them (`unstill statistics` makes it), a folder of `save_pretrained`, or a name on the
            Hugging Face hub (`owner/name`). Those of a folder or the hub are interpolated to the size of the call.
        start: the level as a fraction of the training time, in (0, 1]. Paper: 0.96 and 0.92 for DynamiCrafter.
        sigma: the level as a sigma, for schedulers that count in sigmas. Paper: 100 for Stable Video Diffusion.
            Exactly one of both is given.
        resize: whether statistics of another size or number of frames are interpolated.
        data_scale: what the model was trained to multiply videos by at this level: DynamiCrafter's dynamic rescale is
            0.7 (512) and 0.3 (1024). Paper and released code do not take it into account.
        extra_variance: makes the start noisier: added to Var[X0]. The released code for Stable Video Diffusion takes
            sigma^2 + 1 for sigma^2, which counts the variance of the data twice.
    """

    statistics: LatentStatistics | str | os.PathLike[str]
    start: float | None = None
    sigma: float | None = None
    resize: bool = False
    data_scale: float = 1.0
    extra_variance: float = 0.0

    summary = "Starts below the highest noise level, from latents like noised videos."
    use_when = "stands still, and you have videos like those you want"
    cost = "statistics, once"
    rank = 20
    owns = frozenset({"levels", "latents"})
    not_in_forms = frozenset({"statistics"})  # they come with the model; a path that a visitor types is never read
    presets = {
        "paper": {"start": 0.96},
        "paper-svd": {"sigma": 100.0},
        "released": {"start": 0.94},  # DynamiCrafter and VideoCrafter as published, without fine-tuning
        "released-svd": {"sigma": 100.0, "extra_variance": 1.0},
    }

    def __post_init__(self) -> None:
        check_level(self.start, self.sigma)
        if not (0 <= self.data_scale <= 1000 and 0 <= self.extra_variance <= 1e6):
            raise UnstillError(
                "AnalyticInit takes a data_scale from 0 to 1000 and an extra_variance from 0 to a million, but got "
                f"data_scale={shown(self.data_scale)}, extra_variance={shown(self.extra_variance)}."
            )
        if not isinstance(self.statistics, LatentStatistics):
            if not Path(self.statistics).is_file():  # made by others, for their size
                object.__setattr__(self, "resize", True)
            object.__setattr__(self, "statistics", LatentStatistics.from_pretrained(self.statistics))

    @classmethod
    def example(cls, **level: float) -> Self:
        statistics = LatentStatistics().update(torch.zeros(2, 1, 1, 1, 1))
        return cls(statistics=statistics, start=level.get("start"), sigma=level.get("sigma"))

    def check(self, others: Sequence[Method], target: Target) -> None:
        level_of(target.process, self.start, self.sigma)
        assert isinstance(self.statistics, LatentStatistics)
        check_vae(self.statistics, target.vae)

    def on_schedule(self, run: Run, grid: Grid) -> Grid:
        return respace(run.process.scheduler, run.process, start=self.start, sigma=self.sigma)

    def on_start(self, run: Run, latents: torch.Tensor) -> torch.Tensor:
        channels, _, height, width = latents.shape[1:]
        assert isinstance(self.statistics, LatentStatistics)
        shape = channels, run.conditioning_frames + run.frames, height, width
        statistics = statistics_for(self.statistics, shape, self.resize)
        mean = self.data_scale * statistics.mean[:, run.conditioning_frames :].to(latents)
        variance = self.data_scale**2 * float(statistics.variance) + self.extra_variance
        alpha, sigma = run.process.alpha_sigma(run.grid.timesteps[0], step=0)
        return initial_latents(mean, variance, alpha, sigma, run.noise)


def statistics_for(statistics: LatentStatistics, shape: tuple[int, int, int, int], resize: bool) -> LatentStatistics:
    """
    The statistics of latents of a shape.

    Args:
        statistics: of the model's latents.
        shape: `(C, F, H, W)` of the latents to make.
        resize: whether other frames, heights and widths are interpolated.

    Raises:
        UnstillError: other channels, or another size without `resize`.
    """
    if statistics.mean.shape[0] != shape[0]:
        raise UnstillError(
            f"The statistics are of latents with {statistics.mean.shape[0]} channels, but this pipeline's have "
            f"{shape[0]}; make them with the pipeline's own VAE."
        )
    if resize:
        return statistics.resized(shape[1:])
    if tuple(statistics.mean.shape) != shape:
        have, want = ("x".join(map(str, s)) for s in (statistics.mean.shape[1:], shape[1:]))
        raise UnstillError(
            f"The statistics are of {have} latents (frames, height, width), but this call makes {want}; ask the "
            "pipeline for that size, make statistics of this one, or pass resize=True."
        )
    return statistics


def initial_latents(
    mean: torch.Tensor,
    variance: float | torch.Tensor,
    alpha: float | torch.Tensor,
    sigma: float | torch.Tensor,
    noise: torch.Tensor,
) -> torch.Tensor:
    """
    alpha * mean + sqrt(sigma^2 + alpha^2 * variance) * noise (Prop. 1, Eq. 5).

    Args:
        mean: E[X0], `(C, F, H, W)`.
        variance: Var[X0], its mean over all elements.
        alpha, sigma: of the level x = alpha x0 + sigma eps at which sampling begins (VE: alpha = 1).
        noise: N(0, I), `(B, C, F, H, W)`.
    """
    return alpha * mean + (sigma**2 + alpha**2 * variance) ** 0.5 * noise
