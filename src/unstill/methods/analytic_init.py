"""
Analytic-Init: an early start from latents that are distributed like noisy videos.

Of all isotropic Gaussians N(m, s^2 I), the one nearest (in KL) to the noisy data at a level has the mean and the mean variance of
noisy data. "Identifying and Solving Conditional Image Leakage in Image-to-Video Diffusion Model",
https://huggingface.co/papers/2406.15735, Section 3.2, Proposition 1 and Eq. 5.
"""

import os
from dataclasses import dataclass

import torch

from unstill.errors import UnstillError
from unstill.grid import Grid, respace
from unstill.methods.base import Method, Run, check_level
from unstill.statistics import LatentStatistics


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class AnalyticInit(Method):
    """
    Begins sampling at a chosen noise level, from alpha E[X0] + sqrt(sigma^2 + alpha^2 Var[X0]) noise.

    Args:
        statistics: E[X0] and Var[X0] of videos like those the model was trained on, in the pipeline's own latents; or the
            file they were saved to (see `unstill statistics`).
        start: the level as a fraction of the training time, in (0, 1]. Paper: 0.96 and 0.92 for DynamiCrafter.
        sigma: the level as a sigma, for schedulers that count in sigmas. Paper: 100 for Stable Video Diffusion. Exactly
            one of both is given.
        resize: whether statistics of another number of frames or another size are interpolated to the latents.
        data_scale: what the model was trained to multiply videos by at this level. DynamiCrafter's "dynamic rescale" is 0.7
            (512) or 0.3 (1024), which neither paper nor released code takes into account here.
        extra_variance: added to Var[X0]. The released code for Stable Video Diffusion takes sigma^2 + 1 for sigma^2, which
            counts the variance of the data twice.
    """

    statistics: LatentStatistics | str | os.PathLike[str]
    start: float | None = None
    sigma: float | None = None
    resize: bool = False
    data_scale: float = 1.0
    extra_variance: float = 0.0

    owns = frozenset({"levels", "latents"})
    presets = {
        "paper": {"start": 0.96},
        "paper-svd": {"sigma": 100.0},
        "released": {"start": 0.94},
        "released-svd": {"sigma": 100.0, "extra_variance": 1.0},
    }

    def __post_init__(self) -> None:
        check_level(self.start, self.sigma)
        if not isinstance(self.statistics, LatentStatistics):
            object.__setattr__(self, "statistics", LatentStatistics.load(self.statistics))

    def on_schedule(self, run: Run, grid: Grid) -> Grid:
        return respace(run.process.scheduler, run.process, start=self.start, sigma=self.sigma)

    def on_start(self, run: Run, latents: torch.Tensor) -> torch.Tensor:
        alpha, sigma = run.process.alpha_sigma(run.grid.timesteps[0], step=0)
        mean = self._mean((latents.shape[1], run.held + run.frames, *latents.shape[3:]))[:, run.held :].to(latents)
        variance = self.data_scale**2 * self.statistics.variance + self.extra_variance
        return initial_latents(self.data_scale * mean, variance, alpha, sigma, run.noise)

    def _mean(self, shape: tuple[int, ...]) -> torch.Tensor:
        """E[X0] as `(C, F, H, W)` of the asked shape."""
        mean = self.statistics.mean
        if tuple(mean.shape) == shape:
            return mean
        have, want = ("x".join(map(str, s)) for s in (mean.shape, shape))
        if mean.shape[0] != shape[0]:
            raise UnstillError(
                f"The statistics have {mean.shape[0]} latent channels, the pipeline {shape[0]}; make statistics with this "
                "pipeline's own VAE."
            )
        if not self.resize:
            raise UnstillError(
                f"The statistics are of latents of {have} (channels, frames, height, width), but this call samples {want}; ask for that "
                "number of frames and size, make statistics of this one, or pass resize=True."
            )
        return torch.nn.functional.interpolate(mean[None], size=shape[1:], mode="trilinear")[0]


def initial_latents(
    mean: torch.Tensor,
    variance: float | torch.Tensor,
    alpha: float | torch.Tensor,
    sigma: float | torch.Tensor,
    noise: torch.Tensor,
) -> torch.Tensor:
    """
    alpha * mean + sqrt(sigma^2 + alpha^2 * variance) * noise (Eq. 5): the Gaussian nearest to noisy data (Prop. 1).

    Args:
        mean: E[X0], `(C, F, H, W)` or what broadcasts to `noise`.
        variance: Var[X0], averaged over elements.
        alpha, sigma: of the level x = alpha x0 + sigma eps at which sampling begins; VP, VE (alpha = 1) and flow alike.
        noise: unit noise `(B, C, F, H, W)`.
    """
    return alpha * mean + (sigma**2 + alpha**2 * variance) ** 0.5 * noise
