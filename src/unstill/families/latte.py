"""Latte (Ma et al., https://huggingface.co/papers/2401.03048)."""

from typing import Any

import torch

from unstill.families.base import Family, FrameAdapter


class Latte(FrameAdapter):
    """Text to video."""

    def _decode(self, pipe: Any, latents: torch.Tensor) -> torch.Tensor:
        return pipe.decode_latents(latents, latents.shape[2])


FAMILY = Family(
    adapters={"LattePipeline": Latte()},
)
