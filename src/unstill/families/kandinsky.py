"""Kandinsky 5."""

from typing import Any

import torch

from unstill.families.base import Family
from unstill.families.model_card import Model
from unstill.families.vae_adapters import FirstFrameAdapter, VideoAdapter


class KandinskyText(VideoAdapter):
    """
    Text to video. The latents are `(B, F, H, W, C)`, and the pipeline writes each step into them: they are cloned
    here, so that tensors kept by methods do not change. Some networks take C + 1 more channels, which are zero.
    """

    def first_to_video(self, pipe: Any, latents: torch.Tensor, arguments: dict[str, Any]) -> torch.Tensor:
        return latents[..., : pipe.transformer.config.in_visual_dim].permute(0, 4, 1, 2, 3).clone()

    def first_from_video(self, pipe: Any, video: torch.Tensor, arguments: dict[str, Any]) -> torch.Tensor:
        latents = video.permute(0, 2, 3, 4, 1)
        if not pipe.transformer.visual_cond:
            return latents
        mask = torch.zeros_like(latents[..., :1])
        mask[:, : self.conditioning_frames(pipe)] = 1
        return torch.cat([latents, torch.zeros_like(latents), mask], -1)

    def step_to_video(self, pipe: Any, x: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        return x.permute(0, 4, 1, 2, 3).clone()

    def step_from_video(self, pipe: Any, video: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
        return video.permute(0, 2, 3, 4, 1)


class Kandinsky(KandinskyText, FirstFrameAdapter):
    """Frame 0 is the image in every step; after the last one, the pipeline corrects the first frames' brightness."""


FAMILY = Family(
    adapters={
        "Kandinsky5T2VPipeline": KandinskyText(),
        "Kandinsky5I2VPipeline": Kandinsky(),
    },
    image_inputs={
        "Kandinsky5I2VPipeline": "frame 0",
    },
    models=(
        Model(
            name="kandinsky-5-i2v-pro",
            pipeline="Kandinsky5I2VPipeline",
            weights="kandinskylab/Kandinsky-5.0-I2V-Pro-sft-5s-Diffusers",
            licence="MIT",
            parameters="19 B",
            needs="a GPU of 60 GB with --offload",
            dtype="bfloat16",
            size=(512, 768),
            frames=121,
            fps=24,
            steps=50,
            input="image and prompt",
            start=("start", 0.96),
            tiled=True,
        ),
    ),
)
