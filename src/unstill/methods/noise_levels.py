"""Noising up to a share of the training time, for methods that are not about where sampling starts."""

import math

import torch

from unstill.errors import UnstillError
from unstill.forward_process import ForwardProcess


# A sample with a smaller share of signal counts as pure noise: float32 errors would come back a thousandfold in x0.
SMALLEST_SIGNAL = 1e-3


# What methods keep of the signal where the highest level of a process keeps nothing: start=0.95 of flow matching.
LEAST_SIGNAL = 0.05


def signal_share(alpha: float, sigma: float) -> float:
    """`alpha / sqrt(alpha^2 + sigma^2)`: the share of the signal at a level, in the coordinates of any scheduler."""
    return alpha / math.hypot(alpha, sigma)


def training_level(process: ForwardProcess, fraction: float) -> tuple[float, float]:
    """
    (alpha, sigma) after a fraction of the training time, in coordinates in which pure noise is N(0, I), whatever those
    of the sampler. 0.85 is timestep 850 of 1000 for schedulers with a training table, sigma = 0.85 for flow matching,
    and 0.85 of the way up the ramp of training levels that diffusers' EDM schedulers hold in place of a table.
    """
    if process.kind == "flow":
        return 1 - fraction, fraction
    config = process.scheduler.config
    if "sigma_schedule" in config:  # of EDM schedulers
        low, high = config.sigma_min, config.sigma_max
        if config.sigma_schedule == "karras":
            sigma = ((1 - fraction) * low ** (1 / config.rho) + fraction * high ** (1 / config.rho)) ** config.rho
        else:
            sigma = low ** (1 - fraction) * high**fraction
        return 1 / math.hypot(1, sigma), sigma / math.hypot(1, sigma)
    if process.abar is None:
        raise UnstillError(
            f"{type(process.scheduler).__name__} has no training time, which this method counts in; use AnalyticInit."
        )
    steps = len(process.abar)
    abar = process.abar[min(round(fraction * steps), steps - 1)].item()
    return math.sqrt(abar), math.sqrt(1 - abar)


def diffuse(process: ForwardProcess, video: torch.Tensor, noise: torch.Tensor, fraction: float) -> torch.Tensor:
    """alpha video + sigma noise at `training_level`."""
    alpha, sigma = training_level(process, fraction)
    return alpha * video + sigma * noise


def check_signal(process: ForwardProcess, fraction: float, name: str) -> None:
    """Raises `UnstillError` where `diffuse` would keep nothing of the video, as at the end of flow matching."""
    alpha, _ = training_level(process, fraction)
    if alpha <= SMALLEST_SIGNAL:
        raise UnstillError(
            f"{type(process.scheduler).__name__} keeps nothing of a video that is noised to level={fraction:g}; "
            f"give {name} a lower level, such as 0.95."
        )
