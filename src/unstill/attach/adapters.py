"""
What unstill must know of each pipeline class: one adapter per family, one row of `ADAPTERS` per class.

An adapter is stateless and gets the pipeline as an argument. Inside the library video latents are `(B, C, F, H, W)`; the
adapter translates. `held_frames` are dropped before and put back after the hooks by `unstill.attach.apply`.
"""

from __future__ import annotations

from typing import Any

import torch

from ..errors import UnstillError
from ..process import Kind


class Adapter:
    """
    What holds for most pipelines; a family overrides what differs.

    Attributes:
        kind: forward process, where the scheduler's class does not tell it (see `ForwardProcess.of`).
        frames_first: whether the pipeline's latents are `(B, F, C, H, W)` instead of `(B, C, F, H, W)`.
        captures: the method of the pipeline whose result holds the image latents; `None` if it has no image latents.
        starts_at: the call of the pipeline after which the noise levels, the first latents and the image latents are all
            known, and up to which nobody has read the first latents: here `on_start` hooks run.
        denoisers: components that see image latents which can be changed (see `condition_view`), for `on_condition` hooks.
        condition_input: name of the denoisers' argument that holds the image latents.
        zero_unconditional: whether the unconditional half of the denoiser's batch sees zeros instead of the image.
    """

    kind: Kind | None = None
    frames_first: bool = False
    captures: str | None = None
    starts_at: str = "prepare_latents"
    denoisers: tuple[str, ...] = ()
    condition_input: str = "hidden_states"
    zero_unconditional: bool = False

    def held_frames(self, pipe: Any) -> int:
        """Leading latent frames that the pipeline fills with the image and does not denoise."""
        return 0

    # The first latents: what `prepare_latents` returns (or the first value of it), with the arguments of that call.
    def first_to_video(self, pipe: Any, latents: torch.Tensor, arguments: dict[str, Any]) -> torch.Tensor:
        return latents.transpose(1, 2) if self.frames_first else latents

    def first_from_video(self, pipe: Any, video: torch.Tensor, arguments: dict[str, Any]) -> torch.Tensor:
        return video.transpose(1, 2) if self.frames_first else video

    # Outputs and samples: what the scheduler's `step` receives and returns.
    def step_to_video(self, x: torch.Tensor, frames: int) -> torch.Tensor:
        return x.transpose(1, 2) if self.frames_first else x

    def step_from_video(self, video: torch.Tensor) -> torch.Tensor:
        return video.transpose(1, 2) if self.frames_first else video

    def first_scale(self, pipe: Any, image_latents: torch.Tensor | None) -> tuple[Any, Any]:
        """(scale, offset) of what `prepare_latents` makes of unit noise: latents = scale * noise + offset."""
        return getattr(pipe.scheduler, "init_noise_sigma", 1.0), 0.0  # flow matching schedulers have none

    def image_latents(self, pipe: Any, result: Any, batch: int, channels: int) -> torch.Tensor:
        """From the result of the method `captures`: `(B, C, F or 1, H, W)`, normalised as the video latents."""
        raise NotImplementedError

    def condition_view(self, x: torch.Tensor, channels: int) -> torch.Tensor:
        """The part of the denoiser's input that holds the image latents, as a view `(rows, C, F or 1, H, W)`."""
        raise NotImplementedError

    def condition_scale(self, pipe: Any) -> float:
        """Image latents normalised as the video latents = this x image latents as the denoiser sees them."""
        return 1.0

    # Pixels.
    def encode_video(self, pipe: Any, video: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
        """
        The normalised video latents `(1, C, F', h, w)`, float32, of a clip `(F, 3, H, W)` in [0, 1], by the pipeline's own
        VAE: a sample of the posterior drawn with `generator`, or its mode without one.

        Raises `UnstillError` for a size that the VAE cannot take.
        """
        space, time = self.compression(pipe)
        frames, _, height, width = video.shape
        if height % space or width % space or (frames - 1) % time:
            raise UnstillError(
                f"{type(pipe).__name__} encodes clips of k * {time} + 1 frames whose sides are multiples of {space}, "
                f"but this one has {frames} frames of {height}x{width}; cut or resize it."
            )
        vae = pipe.vae
        dtype = vae.dtype
        upcast = dtype == torch.float16 and vae.config.get("force_upcast", False)
        if upcast:
            vae.to(torch.float32)
        with torch.no_grad():
            latents = self.encode(pipe, (2 * video - 1).to(pipe._execution_device, vae.dtype), generator)
        if upcast:
            vae.to(dtype)
        return latents

    def decode_video(self, pipe: Any, latents: torch.Tensor) -> torch.Tensor:
        """The clip `(F, 3, H, W)` in [0, 1], float32, of normalised video latents `(1, C, F', h, w)`."""
        with torch.no_grad():
            video = self.decode(pipe, latents.to(pipe._execution_device, pipe.vae.dtype))
        return (video[0].transpose(0, 1).float() / 2 + 0.5).clamp(0, 1)

    def compression(self, pipe: Any) -> tuple[int, int]:
        """Pixels per latent pixel, frames per latent frame."""
        return pipe.vae_scale_factor, 1

    def encode(self, pipe: Any, frames: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
        raise NotImplementedError

    def decode(self, pipe: Any, latents: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError


def _posterior(encoded: Any, generator: torch.Generator | None) -> torch.Tensor:
    distribution = encoded.latent_dist
    return (distribution.mode() if generator is None else distribution.sample(generator)).float()


class FrameVAE(Adapter):
    """Pipelines on a Stable Diffusion VAE, which encodes frame by frame."""

    def encode(self, pipe: Any, frames: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
        latents = torch.cat([_posterior(pipe.vae.encode(frame[None]), generator) for frame in frames])  # F, C, h, w
        return latents.transpose(0, 1)[None] * pipe.vae.config.scaling_factor

    def decode(self, pipe: Any, latents: torch.Tensor) -> torch.Tensor:
        return pipe.decode_latents(latents)


class AnimateDiff(FrameVAE):
    """Text to video; `unstill.apply(..., image=...)` gives the image."""


class StableVideoDiffusion(FrameVAE):
    """Latents `(B, F, C, H, W)`; image latents not scaled, repeated over frames and concatenated to the channels."""

    frames_first = True
    captures = "_encode_vae_image"
    denoisers = ("unet",)
    condition_input = "sample"
    zero_unconditional = True

    def image_latents(self, pipe: Any, result: Any, batch: int, channels: int) -> torch.Tensor:
        # (2B, C, h, w) under guidance, and then the first B are zeros
        return result[-batch:].unsqueeze(2) * self.condition_scale(pipe)

    def condition_view(self, x: torch.Tensor, channels: int) -> torch.Tensor:
        return x[:, :, channels:].transpose(1, 2)

    def condition_scale(self, pipe: Any) -> float:
        return pipe.vae.config.scaling_factor

    def decode(self, pipe: Any, latents: torch.Tensor) -> torch.Tensor:
        return pipe.decode_latents(latents.transpose(1, 2), latents.shape[2], latents.shape[2])


class CogVideoX(Adapter):
    """Latents `(B, F, C, H, W)`; the image is frame 0 of a second block of channels, whose other frames are zero."""

    frames_first = True
    captures = "prepare_latents"
    denoisers = ("transformer",)

    def image_latents(self, pipe: Any, result: Any, batch: int, channels: int) -> torch.Tensor:
        return result[1][:, :1].transpose(1, 2) * self.condition_scale(pipe)

    def condition_view(self, x: torch.Tensor, channels: int) -> torch.Tensor:
        return x[:, :1, channels:].transpose(1, 2)

    def condition_scale(self, pipe: Any) -> float:
        # With invert_scale_latents (CogVideoX 1.5) the image is divided by the factor that videos are multiplied by.
        return pipe.vae.config.scaling_factor**2 if pipe.vae.config.invert_scale_latents else 1.0

    def compression(self, pipe: Any) -> tuple[int, int]:
        return pipe.vae_scale_factor_spatial, pipe.vae_scale_factor_temporal

    def encode(self, pipe: Any, frames: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
        return _posterior(pipe.vae.encode(frames.transpose(0, 1)[None]), generator) * pipe.vae.config.scaling_factor

    def decode(self, pipe: Any, latents: torch.Tensor) -> torch.Tensor:
        return pipe.vae.decode(latents / pipe.vae.config.scaling_factor).sample


class Wan(Adapter):
    """
    The image is encoded as a video whose other frames are empty, and concatenated behind a mask: channels C, 4, C. With
    `expand_timesteps` (Wan 2.2 5B) it takes the place of frame 0 instead.
    """

    captures = "prepare_latents"
    denoisers = ("transformer", "transformer_2")

    def held_frames(self, pipe: Any) -> int:
        return int(pipe.config.expand_timesteps)

    def image_latents(self, pipe: Any, result: Any, batch: int, channels: int) -> torch.Tensor:
        return result[1][:, -channels:, :1]

    def condition_view(self, x: torch.Tensor, channels: int) -> torch.Tensor:
        return x[:, -channels:, :1]

    def compression(self, pipe: Any) -> tuple[int, int]:
        return pipe.vae_scale_factor_spatial, pipe.vae_scale_factor_temporal

    def encode(self, pipe: Any, frames: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
        mean, std = self._moments(pipe, frames.device)
        return (_posterior(pipe.vae.encode(frames.transpose(0, 1)[None]), generator) - mean) / std

    def decode(self, pipe: Any, latents: torch.Tensor) -> torch.Tensor:
        mean, std = self._moments(pipe, latents.device)
        return pipe.vae.decode((latents * std + mean).to(pipe.vae.dtype)).sample

    @staticmethod
    def _moments(pipe: Any, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        config = pipe.vae.config
        return tuple(
            torch.tensor(values, device=device).view(1, -1, 1, 1, 1)
            for values in (config.latents_mean, config.latents_std)
        )


ADAPTERS: dict[str, Adapter] = {
    "StableVideoDiffusionPipeline": StableVideoDiffusion(),
    "PicoPipeline": StableVideoDiffusion(),
    "AnimateDiffPipeline": AnimateDiff(),
    "CogVideoXImageToVideoPipeline": CogVideoX(),
    "WanImageToVideoPipeline": Wan(),
}


def adapter_for(pipe: Any) -> Adapter:
    """The adapter of a pipeline's class, or of the nearest class that it inherits from; `UnstillError` if there is none."""
    for cls in type(pipe).__mro__:
        if cls.__name__ in ADAPTERS:
            return ADAPTERS[cls.__name__]
    raise UnstillError(
        f"{type(pipe).__name__} is not a pipeline that unstill knows; it supports {', '.join(sorted(ADAPTERS))}."
    )
