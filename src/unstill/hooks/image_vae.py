"""Adapters of pipelines on a VAE of Stable Diffusion."""

import functools
from collections.abc import Callable
from typing import Any

import torch

from unstill.hooks.adapter import FrameAdapter


class StableVideoDiffusion(FrameAdapter):
    """Image latents, not scaled, are repeated over the frames and concatenated to the channels."""

    frames_first = True
    captures = "_encode_vae_image"
    denoisers = ("unet",)
    condition_input = "sample"
    zero_unconditional = True
    usual_scheduler = (
        "EulerDiscreteScheduler",
        {"prediction_type": "v_prediction", "timestep_type": "continuous", "sigma_max": 700.0, "sigma_min": 0.002},
    )

    def image_latents(self, pipe: Any, result: Any, video: torch.Tensor) -> torch.Tensor:
        return result[-len(video) :].unsqueeze(2) * self.condition_scale(pipe)  # under guidance the first B are zeros

    def condition_view(self, x: torch.Tensor, channels: int) -> torch.Tensor:
        return x[:, :, channels:].transpose(1, 2)

    def condition_scale(self, pipe: Any) -> float:
        return pipe.vae.config.scaling_factor

    def _decode(self, pipe: Any, latents: torch.Tensor) -> torch.Tensor:
        return pipe.decode_latents(latents.transpose(1, 2), num_frames=latents.shape[2])


class Latte(FrameAdapter):
    """Text to video."""

    def _decode(self, pipe: Any, latents: torch.Tensor) -> torch.Tensor:
        return pipe.decode_latents(latents, latents.shape[2])


class Pico(StableVideoDiffusion):
    """The embedded model: a transformer that is called as Stable Video Diffusion's U-Net."""

    denoisers = ("transformer",)

    def tell_image_noise(
        self, pipe: Any, noise: torch.Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Callable[[], Any] | None:
        ids = kwargs["added_time_ids"] if "added_time_ids" in kwargs else args[3]
        told = ids[-len(noise) :, 2]  # a view; under guidance the first half has no image
        own = told.clone()  # of `noise_aug_strength`: independent noises add up in variance
        told.copy_(torch.hypot(own, pipe.image_noise_id(noise).to(own)))
        return functools.partial(told.copy_, own)

    def _decode(self, pipe: Any, latents: torch.Tensor) -> torch.Tensor:
        return pipe.decode_latents(latents.transpose(1, 2))


class DynamiCrafter(FrameAdapter):
    """Image latents are repeated over the frames and concatenated to the channels, in every branch of guidance."""

    captures = starts_at = "prepare_image_latents"
    denoisers = ("unet",)
    condition_input = "sample"
    usual_scheduler = ("DDIMScheduler", {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"})

    def image_latents(self, pipe: Any, result: Any, video: torch.Tensor) -> torch.Tensor:
        return result[:, :, :1]

    def condition_view(self, x: torch.Tensor, channels: int) -> torch.Tensor:
        return x[:, channels:]


class FoldedFrames(FrameAdapter):
    """The scheduler steps `(B F, C, H, W)`. As it stands: ModelScope's text to video."""

    def step_to_video(self, x: torch.Tensor, frames: int) -> torch.Tensor:
        return x.unflatten(0, (-1, frames)).transpose(1, 2)

    def step_from_video(self, video: torch.Tensor) -> torch.Tensor:
        return video.transpose(1, 2).flatten(0, 1)


class I2VGenXL(FoldedFrames):
    """Image latents are an input of their own: the image in frame 0, then frames of constants that count up to 1."""

    captures = "prepare_image_latents"
    denoisers = ("unet",)
    condition_input = "image_latents"
    reuses_input = True

    def image_latents(self, pipe: Any, result: Any, video: torch.Tensor) -> torch.Tensor:
        return result[: len(video), :, :1]

    def condition_view(self, x: torch.Tensor, channels: int) -> torch.Tensor:
        return x[:, :, :1]


class PIA(FrameAdapter):
    """The image latents of every frame, behind one channel of similarity, are concatenated: channels C, 1, C."""

    captures = starts_at = "prepare_masked_condition"
    denoisers = ("unet",)
    condition_input = "sample"

    def image_latents(self, pipe: Any, result: Any, video: torch.Tensor) -> torch.Tensor:
        return result[1][: len(video), :, :1]

    def condition_view(self, x: torch.Tensor, channels: int) -> torch.Tensor:
        return x[:, channels + 1 :]
