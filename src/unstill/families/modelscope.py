"""ModelScope's text to video (Wang et al., https://huggingface.co/papers/2308.06571)."""

from contextlib import nullcontext
from typing import Any

import torch

from unstill.families.base import Family
from unstill.families.model_card import Model
from unstill.families.vae_adapters import FrameAdapter


class FoldedFrames(FrameAdapter):
    """The scheduler steps `(B F, C, H, W)`. Used unchanged for ModelScope's text to video."""

    def step_to_video(self, pipe: Any, x: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        return x.unflatten(0, (-1, shape[2])).transpose(1, 2)

    def step_from_video(self, pipe: Any, video: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
        return video.transpose(1, 2).flatten(0, 1)


FAMILY = Family(
    adapters={"TextToVideoSDPipeline": FoldedFrames()},
    image_modes={"TextToVideoSDPipeline": nullcontext},
    models=(
        Model(
            name="modelscope",
            pipeline="TextToVideoSDPipeline",
            weights="ali-vilab/text-to-video-ms-1.7b",
            licence="CC BY-NC 4.0",
            parameters="1.4 B",
            needs="a GPU of 8 GB with --offload",
            dtype="float16",
            size=(256, 256),
            frames=16,
            fps=8,
            steps=25,
            input="prompt",
            start=("start", 0.96),
            variant="fp16",
        ),
    ),
)
