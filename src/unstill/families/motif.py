"""Motif-Video."""

from typing import Any

import torch

from unstill.families.base import Family, VideoAdapter


class MotifVideoText(VideoAdapter):
    """Text to video."""

    last_setup_call = "set_timesteps"


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
)
