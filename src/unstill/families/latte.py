"""Latte (Ma et al., https://huggingface.co/papers/2401.03048)."""

from typing import Any

import torch

from unstill.families.base import Family
from unstill.families.model_card import Model
from unstill.families.vae_adapters import FrameAdapter


class Latte(FrameAdapter):
    """Text to video."""

    def _decode(self, pipe: Any, latents: torch.Tensor) -> torch.Tensor:
        return pipe.decode_latents(latents, latents.shape[2])


FAMILY = Family(
    adapters={"LattePipeline": Latte()},
    models=(
        Model(
            name="latte",
            pipeline="LattePipeline",
            weights="maxin-cn/Latte-1",
            licence="Apache-2.0",
            parameters="1.1 B",
            needs="a GPU of 16 GB with --offload",
            dtype="float16",
            size=(512, 512),
            frames=16,
            fps=8,
            steps=50,
            input="prompt",
            start=("start", 0.96),
        ),
    ),
)
