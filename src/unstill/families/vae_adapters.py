"""The base adapters of the two kinds of VAE: one that encodes frame by frame, and causal video VAEs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from unstill.families.base import Adapter


def _posterior(pipe: Any, pixels: Tensor, generator: torch.Generator | None) -> Tensor:
    """A sample of the posterior of `pixels` in [-1, 1], or its mode without a generator; float32."""
    distribution = pipe.vae.encode(pixels).latent_dist
    return (distribution.mode() if generator is None else distribution.sample(generator)).float()


class FrameAdapter(Adapter):
    """Pipelines on a VAE of Stable Diffusion, which encodes frame by frame. Used unchanged for VideoCrafter, LaVie."""

    def _encode(self, pipe: Any, frames: Tensor, generator: torch.Generator | None) -> Tensor:
        latents = torch.cat([_posterior(pipe, frame[None], generator) for frame in frames])  # (F, C, h, w)
        return latents.transpose(0, 1)[None] * pipe.vae.config.scaling_factor

    def _decode(self, pipe: Any, latents: Tensor) -> Tensor:
        return pipe.decode_latents(latents)


class VideoAdapter(Adapter):
    """Pipelines on a causal video VAE."""

    reuses_input = True  # once with the prompt, once without it
    usual_scheduler = ("FlowMatchEulerDiscreteScheduler", {})

    def compression(self, pipe: Any) -> tuple[int, int]:
        return pipe.vae_scale_factor_spatial, pipe.vae_scale_factor_temporal

    def moments(self, pipe: Any, latents: Tensor) -> tuple[Any, Any]:
        """
        Mean and standard deviation by which the pipeline normalises the latents of its VAE.

        Args:
            latents: `(B, C, F, h, w)`.

        Returns:
            (mean, deviation): numbers, or tensors `(1, C, 1 or F, 1, 1)`.
        """
        config = pipe.vae.config
        # LTX has them in the buffers of its VAE, Wan in the configuration.
        values = {**dict(pipe.vae.named_buffers(recurse=False)), **config}
        if values.get("latents_mean") is None:
            return 0.0, 1 / config.scaling_factor
        mean, deviation = (
            torch.as_tensor(values[name])
            .to(latents.device, torch.float32)
            .view(1, latents.shape[1], -1, 1, 1)[:, :, : latents.shape[2]]
            for name in ("latents_mean", "latents_std")
        )
        return mean, deviation / config.get("scaling_factor", 1.0)

    def _encode(self, pipe: Any, frames: Tensor, generator: torch.Generator | None) -> Tensor:
        latents = _posterior(pipe, frames.transpose(0, 1)[None], generator)
        mean, deviation = self.moments(pipe, latents)
        return (latents - mean) / deviation

    def _decode(self, pipe: Any, latents: Tensor) -> Tensor:
        mean, deviation = self.moments(pipe, latents)
        return pipe.vae.decode((latents * deviation + mean).to(latents.dtype)).sample


class FirstFrameAdapter(VideoAdapter):
    """
    Pipelines on a causal video VAE in which latent frame 0 holds the image during all steps; the scheduler steps only
    the frames after it. Used unchanged for Sana Video.
    """

    image_latents_from = "prepare_latents"

    def conditioning_frames(self, pipe: Any) -> int:
        return 1

    def image_latents(self, pipe: Any, result: Any, video: Tensor) -> Tensor:
        return video[:, :, :1]
