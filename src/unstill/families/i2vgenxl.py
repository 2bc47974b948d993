"""I2VGen-XL (Zhang et al., https://huggingface.co/papers/2311.04145)."""

from typing import Any

import torch

from unstill.families.base import Family
from unstill.families.model_card import Model
from unstill.families.modelscope import FoldedFrames


class I2VGenXL(FoldedFrames):
    """Image latents are a separate input: the image in frame 0, then frames of constants that increase to 1."""

    image_latents_from = "prepare_image_latents"
    denoisers = ("unet",)
    condition_input = "image_latents"
    reuses_input = True

    def image_latents(self, pipe: Any, result: Any, video: torch.Tensor) -> torch.Tensor:
        return result[: len(video), :, :1]

    def condition_view(self, x: torch.Tensor, channels: int) -> torch.Tensor:
        return x[:, :, :1]


FAMILY = Family(
    adapters={"I2VGenXLPipeline": I2VGenXL()},
    image_inputs={
        "I2VGenXLPipeline": "an input of its own; CLIP",
    },
    models=(
        Model(
            name="i2vgen-xl",
            pipeline="I2VGenXLPipeline",
            weights="ali-vilab/i2vgen-xl",
            licence="MIT; research, non-commercial (their model card)",
            parameters="1.4 B",
            needs="a GPU of 16 GB with --offload",
            dtype="float16",
            size=(704, 1280),
            frames=16,
            fps=8,
            steps=50,
            input="image and prompt",
            start=("start", 0.96),
            variant="fp16",
        ),
    ),
)
