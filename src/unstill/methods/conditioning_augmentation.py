"""
Conditioning augmentation: the conditional image is noised by the model's own forward process.

Ho et al., "Cascaded Diffusion Models for High Fidelity Image Generation", https://huggingface.co/papers/2106.15282.
It is the baseline of Conditional Image Leakage whose noise does not depend on time (Fig. 9 there).
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch

from unstill.errors import UnstillError, shown
from unstill.forward_process import ForwardProcess
from unstill.methods.base import Method, Run
from unstill.methods.time_noise import Level, NoiseShape, check_noise, noise_like, per_clip


BETAS = (0.00085, 0.012)
"""First and last beta of the scaled-linear schedule of Stable Diffusion."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ConditioningAugmentation(Method):
    """
    Lets the denoiser see a noised image, so that it cannot copy it.

    Image latents y0 become alpha(s) y0 + sigma(s) eps. In training s is uniform and told to the network; at inference
    it is one fixed `level`, the smaller the more faithful. The embedded model is told of the noise there too. A model
    that was not trained for it reads the noise as part of the picture: keep the level small there.

    Args:
        level: how much noise the image gets: s at inference, a fraction of the training time in [0, 1]; 0 leaves the
            image as it is.
        maximum: how much noise it got at most in training: the largest s.
        betas: schedule of the image's noise: first and last beta of a scaled-linear schedule of 1000 steps; `None` is
            the model's own schedule (see `of_model`).
        noise_shape: what has noise of its own: each `"element"`, each `"frame"` or the whole `"clip"`, as in
            `TimeNoise`.
        schedule: `"constant"`: the same noise in every step, at `level`; `"t2"`: fresh noise in every step, less and
            less of it, `y0 + strength t^2 eps` with t the noise level of the step as a share in [0, 1], sigma / (alpha
            + sigma): LTX-Video's own (https://huggingface.co/papers/2501.00103).
        strength: how much noise with `"t2"`; 0 leaves the image as it is. LTX-Video: 0.15.
    """

    level: float = 0.02
    maximum: float = 1.0
    betas: tuple[float, float] | None = None
    noise_shape: NoiseShape = "frame"
    schedule: Literal["constant", "t2"] = "constant"
    strength: float = 0.15

    summary = "Shows the denoiser a noised image, so that it cannot copy it."
    use_when = "comes from a model that was trained with noisy images"
    cost = "nothing"
    rank = 90
    needs = frozenset({"condition"})
    presets = {"paper": {}, "ltx": {"schedule": "t2"}}

    def __post_init__(self) -> None:
        if not (0 <= self.level <= 1 and 0 < self.maximum <= 1):
            raise UnstillError(
                "ConditioningAugmentation takes fractions of the training time, level in [0, 1], maximum in (0, 1]; "
                f"got {self.level} and {self.maximum}."
            )
        if self.betas is not None and not 0 < self.betas[0] <= self.betas[1] < 1:
            raise UnstillError(f"betas are the first and last of a rising schedule in (0, 1), not {self.betas}.")
        check_noise(self.noise_shape)
        if self.schedule not in ("constant", "t2") or not 0 <= self.strength <= 1000:
            raise UnstillError(
                "ConditioningAugmentation takes a schedule 'constant' or 't2' and a strength from 0 to 1000, but got "
                f"{self.schedule!r} and {shown(self.strength)}."
            )

    def on_condition(self, run: Run, image_latents: torch.Tensor) -> torch.Tensor:
        if self.schedule == "t2":
            return self._grown(run, image_latents)
        if self.level == 0:
            return image_latents
        state = run.state_of(self)
        if state is None:  # the noise, and not the noised image, which may be repeated over the frames
            level = torch.full((len(image_latents),), self.level, device=image_latents.device)
            noise = noise_like(image_latents, self.noise_shape, run.generator)
            state = *self.alpha_sigma(level, run.process), noise
            run.set_state(self, state)
            run.image_noise = state[1]
        return augment(image_latents, *state)

    def _grown(self, run: Run, image_latents: torch.Tensor) -> torch.Tensor:
        """y0 + strength t^2 eps; both passes of a step see the same noise."""
        if self.strength == 0:
            return image_latents
        state = run.state_of(self)
        if state is None or state[0] != run.step:
            alpha, sigma = run.process.alpha_sigma(run.grid.timesteps[run.step], run.step)
            amount = growing_level(self.strength, alpha, sigma)
            state = run.step, amount, noise_like(image_latents, self.noise_shape, run.generator)
            run.set_state(self, state)
            run.image_noise = torch.full((len(image_latents),), amount, device=image_latents.device)
        return (image_latents + state[1] * state[2]).to(image_latents.dtype)

    def corrupt(
        self,
        image_latents: torch.Tensor,
        t: Level,
        generator: torch.Generator | None = None,
        process: ForwardProcess | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Noises a batch of image latents for training; arguments and results as of `TimeNoise.corrupt`, levels s.

        `t` is not used: that the level does not depend on it is what sets this apart from TimeNoise. `process` is the
        forward process of the model; without it the schedule is Stable Diffusion's.
        """
        device = generator.device if generator is not None else image_latents.device
        uniform = torch.rand(len(image_latents), generator=generator, device=device).to(image_latents.device)
        level = self.maximum * uniform
        noise = noise_like(image_latents, self.noise_shape, generator)
        return augment(image_latents, *self.alpha_sigma(level, process), noise), level

    def alpha_sigma(self, level: torch.Tensor, process: ForwardProcess | None) -> tuple[torch.Tensor, torch.Tensor]:
        """alpha and sigma `(B,)` at levels s `(B,)`, of `betas` or else of the model's own `process`."""
        if process is None or self.betas is not None:
            return vp(level, self.betas)
        return of_model(process, level)


def of_model(process: ForwardProcess, level: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """alpha and sigma `(B,)` of a model's own forward process after a share `level` `(B,)` of its training time.

    Variance-preserving models have a table of training steps, flow matching has 1 - s and s. Stable Video Diffusion
    and its like have neither, for their sigma has no end: there it is the schedule of Stable Diffusion.
    """
    if process.kind == "flow":
        return 1 - level, level
    if process.abar is None or process.kind == "edm" or process.scheduler.config.get("timestep_type") == "continuous":
        return vp(level)
    return _looked_up(process.abar, level)


def vp(level: torch.Tensor, betas: tuple[float, float] | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """alpha and sigma `(B,)` of a scaled-linear schedule after a share `level` `(B,)` of its 1000 steps."""
    first, last = (math.sqrt(beta) for beta in betas or BETAS)
    roots = torch.linspace(first, last, 1000, dtype=torch.float64)
    return _looked_up(torch.cumprod(1 - roots**2, dim=0), level)


def _looked_up(abar: torch.Tensor, level: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """After level x T steps of a table `(T,)`, of which the first is number 1; level 0 is clean."""
    table = torch.cat([abar.new_ones(1), abar]).to(level.device)
    chosen = table[(level * len(abar)).round().long()]
    return chosen.sqrt().float(), (1 - chosen).sqrt().float()


def augment(
    image_latents: torch.Tensor, alpha: torch.Tensor, sigma: torch.Tensor, noise: torch.Tensor
) -> torch.Tensor:
    """y_s = alpha(s) y0 + sigma(s) eps on `(B, C, F or 1, H, W)`, alpha and sigma `(B,)`."""
    return (per_clip(alpha, noise) * image_latents + per_clip(sigma, noise) * noise).to(image_latents.dtype)


def growing_level(strength: float, alpha: float, sigma: float) -> float:
    """Standard deviation of LTX-Video's condition noise: strength t^2 with t = sigma / (alpha + sigma)."""
    return strength * (sigma / (alpha + sigma)) ** 2


def grown(
    image_latents: torch.Tensor, strength: float, alpha: float, sigma: float, noise: torch.Tensor
) -> torch.Tensor:
    """
    y0 + strength t^2 eps, where t = sigma / (alpha + sigma) is the noise level of the video as a share: LTX-Video's
    condition noise, https://huggingface.co/papers/2501.00103.

    Args:
        image_latents: `(B, C, F or 1, H, W)`.
        strength: LTX-Video: 0.15.
        alpha, sigma: of the video at this step.
        noise: unit noise that broadcasts over the image latents.
    """
    return (image_latents + growing_level(strength, alpha, sigma) * noise).to(image_latents.dtype)
