"""
TimeNoise: noise on the conditional image in training, more of it the noisier the video is.

Zhao et al., "Identifying and Solving Conditional Image Leakage in Image-to-Video Diffusion Model", NeurIPS 2024,
https://huggingface.co/papers/2406.15735, Eq. 6.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch

from unstill.errors import UnstillError, shown
from unstill.methods.base import Method, Target


NoiseShape = Literal["element", "frame", "clip"]
Level = float | torch.Tensor
Generator = torch.Generator | list[torch.Generator] | None


@dataclass(frozen=True, kw_only=True, slots=True)
class TimeNoise(Method):
    """
    For training only: noises the image, the more the noisier the video is, so that a model learns to move it.

    Image latents y0 become y0 + beta eps with `beta = maximum * sigmoid(mu(t) + n)` and n ~ N(0, 1). At high noise the
    model cannot copy the image any more and has to read motion from the video; at inference the image stays clean. A
    training recipe uses this through `corrupt`; it cannot be attached to a pipeline.

    Args:
        maximum: beta_m, the largest level, in units of the image latents. Paper: 100 for DynamiCrafter and SVD, 25 for
            VideoCrafter.
        exponent: a of mu(t): how late in t the noise grows.
        scale: mu_max, the range of mu(t).
        noise_shape: `"element"`: independent in every frame; `"frame"`: one picture of noise for all frames; `"clip"`:
            one number for the whole clip, which shifts all latents alike.
    """

    maximum: float = 100.0
    exponent: float = 5.0
    scale: float = 1.0
    noise_shape: NoiseShape = "frame"

    summary = "Training: noises the image so that the model learns to move it."
    use_when = "comes from a model that you train"
    cost = "a fine-tuning"
    place = frozenset({"condition"})
    stage = "training"
    rank = 95
    presets = {
        "paper": {},
        "paper-videocrafter": {"maximum": 25.0},
        "released": {"noise_shape": "element"},  # DynamiCrafter
        "released-videocrafter": {"scale": 4.0, "noise_shape": "element"},  # on CLIP tokens only
        "released-svd": {"maximum": 15.0, "noise_shape": "clip"},  # t = sigma / 700: mu(t) all but constant
    }

    def __post_init__(self) -> None:
        if not (0 <= self.maximum <= 1e6 and 0 < self.exponent <= 1e6 and abs(self.scale) <= 1e6):
            raise UnstillError(
                "TimeNoise needs a maximum of at least 0, an exponent above 0 and a scale, each at most a million, "
                f"but got maximum={shown(self.maximum)}, exponent={shown(self.exponent)}, scale={shown(self.scale)}."
            )
        check_noise(self.noise_shape)

    def check(self, others: Sequence[Method], target: Target) -> None:
        raise UnstillError(
            "TimeNoise is for training (at inference the image stays clean); train with it, or use AnalyticInit here."
        )

    def corrupt(
        self, image_latents: torch.Tensor, t: Level, generator: torch.Generator | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Noises a batch of image latents for training.

        Args:
            image_latents: clean, `(B, C, F or 1, H, W)`; with `noise_shape="element"` of any shape that begins with B,
                such as image tokens.
            t: the training time of each clip as a fraction in [0, 1], number or `(B,)`.
            generator: draws first the levels, then the noise.

        Returns:
            The noised latents, of the same shape and dtype, and their levels beta `(B,)`, float32.

        Raises:
            UnstillError: a t of another shape, or outside [0, 1], such as a timestep of 0 to 1000.
        """
        t = _checked_time(t, len(image_latents)).to(image_latents.device)
        normal = _randn((len(image_latents),), image_latents, generator)
        level = sample_level(t, self.maximum, self.exponent, normal, self.scale)
        noise = noise_like(image_latents, self.noise_shape, generator)
        return corrupt(image_latents, level, noise), level


def _checked_time(t: Level, clips: int) -> torch.Tensor:
    """`t`, float32. A timestep taken for a time would be the largest level for every clip, without a sign of it."""
    time = torch.as_tensor(t)
    if time.ndim and time.shape != (clips,):
        raise UnstillError(
            f"t of TimeNoise has shape {tuple(time.shape)}; give one number per clip, ({clips},), or a single one."
        )
    if bool((time < 0).any() | (time > 1.01).any()):  # trainers that count timesteps from 1 reach 1.001
        raise UnstillError(
            f"t of TimeNoise is in [0, 1], but got values from {float(time.min()):g} to {float(time.max()):g}; "
            "divide a timestep by 1000."
        )
    return time.float()


def center(t: Level, exponent: float, scale: float = 1.0) -> Level:
    """mu(t) = scale (2 t^exponent - 1) for training times t in [0, 1]."""
    return scale * (2 * t**exponent - 1)


def sample_level(t: Level, maximum: float, exponent: float, normal: Level, scale: float = 1.0) -> torch.Tensor:
    """Noise levels of the logit-normal distribution, Eq. 6: maximum * sigmoid(mu(t) + normal).

    Args:
        t: training times in [0, 1], number or tensor.
        maximum: beta_m.
        exponent: a of `center`.
        normal: standard normal draws, number or tensor of a shape that goes with t.
        scale: mu_max of `center`.
    """
    return maximum * torch.sigmoid(torch.as_tensor(center(t, exponent, scale) + normal))


def corrupt(image_latents: torch.Tensor, level: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """y = y0 + beta eps on `(B, C, F or 1, H, W)`, levels `(B,)`, noise that broadcasts; not rescaled."""
    return (image_latents + per_clip(level, noise) * noise).to(image_latents.dtype)


def noise_like(latents: torch.Tensor, shape: NoiseShape, generator: Generator) -> torch.Tensor:
    """Unit noise that broadcasts over `latents` `(B, C, F, H, W)`, float32."""
    if shape == "element":
        return _randn(tuple(latents.shape), latents, generator)
    batch, channels, _, height, width = latents.shape
    size = (batch, channels, 1, height, width) if shape == "frame" else (batch, 1, 1, 1, 1)
    return _randn(size, latents, generator)


def check_noise(noise: str) -> None:
    if noise not in get_args(NoiseShape):
        raise UnstillError(f"Noise on image latents is one of {', '.join(get_args(NoiseShape))}, not {noise!r}.")


def per_clip(level: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """`(B,)` to the dimensions of `like`: `(B, 1, ..., 1)`."""
    return level.view(-1, *[1] * (like.ndim - 1))


def _randn(shape: tuple[int, ...], like: torch.Tensor, generator: Generator) -> torch.Tensor:
    from diffusers.utils.torch_utils import randn_tensor

    return randn_tensor(shape, generator=generator, device=like.device, dtype=torch.float32)
