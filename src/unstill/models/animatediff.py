"""AnimateDiff's motion modules as in their authors' code, where diffusers differs."""

from typing import Any

from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D
from torch import Tensor, nn

from unstill.errors import UnstillError


class FrameNorm(nn.GroupNorm):
    """Group normalisation of `(B, C, F, H, W)`, separately for each frame."""

    def forward(self, x: Tensor) -> Tensor:
        frames = x.transpose(1, 2)
        return super().forward(frames.flatten(0, 1)).unflatten(0, frames.shape[:2]).transpose(1, 2)


def use_frame_norms(module: nn.Module) -> int:
    """
    Makes every motion module normalise each frame separately, as AnimateDiff (https://huggingface.co/papers/2307.04725)
    does; diffusers computes the statistics over all frames.

    Returns:
        The number of changed modules.
    """
    blocks = [block for block in module.modules() if isinstance(block, AnimateDiffTransformer3D)]
    for block in blocks:
        pooled = block.norm
        norm = FrameNorm(pooled.num_groups, pooled.num_channels, pooled.eps, device="meta")
        norm.weight, norm.bias = pooled.weight, pooled.bias
        block.norm = norm
    return len(blocks)


def frame_norms_of(pipe: Any) -> None:
    """`use_frame_norms` for a pipeline; `UnstillError` for one without motion modules."""
    unet = getattr(pipe, "unet", None)
    if unet is None or not use_frame_norms(unet):
        raise UnstillError(f"{type(pipe).__name__} has no motion modules of AnimateDiff, so no frame_norm.")
