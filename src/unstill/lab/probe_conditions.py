"""Noise levels and image conditions of one-step predictions, for any way to run a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor


Unit = Literal["start", "sigma"]
ImageCondition = Literal["image", "weakened", "removed"]
WEAKENED = 0.25
"""Deviation of the noise on a weakened image, as a share of that of the image latents."""


@dataclass(frozen=True, slots=True)
class NoiseLevel:
    """A noise level: its value as methods take it (`start=` or `sigma=`), and the scheduler's alpha and sigma."""

    value: float
    alpha: float
    sigma: float


def weaken(image_latents: Tensor, share: float = WEAKENED) -> Tensor:
    """Adds noise of a deviation of `share` times that of the image; the same noise in every call."""
    noise = torch.randn(image_latents.shape, generator=torch.Generator().manual_seed(0))
    return image_latents + noise.to(image_latents) * share * image_latents.std()
