"""PIA (Zhang et al., https://huggingface.co/papers/2312.13964): AnimateDiff with an image condition."""

from typing import Any

import torch

from unstill.families.base import Family
from unstill.families.model_card import Model
from unstill.families.vae_adapters import FrameAdapter


class PIA(FrameAdapter):
    """The image latents of every frame follow one channel of similarity: channels C, 1, C."""

    image_latents_from = last_setup_call = "prepare_masked_condition"
    denoisers = ("unet",)
    condition_input = "sample"

    def image_latents(self, pipe: Any, result: Any, video: torch.Tensor) -> torch.Tensor:
        return result[1][: len(video), :, :1]

    def condition_view(self, x: torch.Tensor, channels: int) -> torch.Tensor:
        return x[:, channels + 1 :]


FAMILY = Family(
    adapters={"PIAPipeline": PIA()},
    image_inputs={
        "PIAPipeline": "channels, every frame",
    },
    models=(
        Model(
            name="pia",
            pipeline="PIAPipeline",
            weights="SG161222/Realistic_Vision_V6.0_B1_noVAE",
            licence="CreativeML Open RAIL-M (base), Apache-2.0 (motion module)",
            parameters="1.3 B",
            needs="a GPU of 8 GB with --offload",
            dtype="float16",
            size=(512, 512),
            frames=16,
            fps=8,
            steps=25,
            input="image and prompt",
            start=("start", 0.96),
            parts=(("motion_adapter", "MotionAdapter", "openmmlab/PIA-condition-adapter"),),
            scheduler=("DDIMScheduler", (("beta_schedule", "linear"), ("clip_sample", False))),
        ),
    ),
)
