"""Motif-Video."""

from typing import Any

import torch

from unstill.families.base import Family
from unstill.families.model_card import Model
from unstill.families.vae_adapters import VideoAdapter


class MotifVideoText(VideoAdapter):
    """Text to video."""

    last_setup_call = "set_timesteps"
    two_calls = True


class MotifVideo(MotifVideoText):
    """Channels C, C with the image in frame 0, 1 of a mask."""

    image_latents_from = "_prepare_first_frame_conditioning"
    denoisers = ("transformer",)

    def image_latents(self, pipe: Any, result: Any, video: torch.Tensor) -> torch.Tensor:
        return result[0][:, :, :1]

    def condition_view(self, x: torch.Tensor, channels: int) -> torch.Tensor:
        return x[:, channels:-1, :1]


FAMILY = Family(
    adapters={
        "MotifVideoPipeline": MotifVideoText(),
        "MotifVideoImage2VideoPipeline": MotifVideo(),
    },
    image_inputs={
        "MotifVideoImage2VideoPipeline": "channels, frame 0; vision tokens",
    },
    models=(
        Model(
            name="motif-video-2b",
            pipeline="MotifVideoImage2VideoPipeline",
            weights="Motif-Technologies/Motif-Video-2B",
            licence="Apache-2.0",
            parameters="2 B",
            needs="a GPU of 24 GB with --offload",
            dtype="bfloat16",
            size=(736, 1280),
            frames=121,
            fps=24,
            steps=50,
            input="image and prompt",
            start=("start", 0.96),
        ),
    ),
)
