"""EasyAnimate (Xu et al., https://huggingface.co/papers/2405.18991)."""

from typing import Any

import torch

from unstill.families.base import Family
from unstill.families.vae_adapters import VideoAdapter


class EasyAnimate(VideoAdapter):
    """Text to video."""

    def compression(self, pipe: Any) -> tuple[int, int]:
        return pipe.vae_spatial_compression_ratio, pipe.vae_temporal_compression_ratio


class EasyAnimateImage(EasyAnimate):
    """
    Image to video: the image is a video whose frames after the first are masked. A separate input holds the mask and
    the latents of that video.
    """

    image_latents_from = last_setup_call = "prepare_mask_latents"
    denoisers = ("transformer",)
    condition_input = "inpaint_latents"

    def image_latents(self, pipe: Any, result: Any, video: torch.Tensor) -> torch.Tensor:
        return result[1][:, :, :1]

    def condition_view(self, x: torch.Tensor, channels: int) -> torch.Tensor:
        return x[:, -channels:, :1]


FAMILY = Family(
    adapters={"EasyAnimatePipeline": EasyAnimate(), "EasyAnimateInpaintPipeline": EasyAnimateImage()},
    image_inputs={"EasyAnimateInpaintPipeline": "an input of its own, as a masked video"},
)
