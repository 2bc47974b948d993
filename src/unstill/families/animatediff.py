"""AnimateDiff (Guo et al., https://huggingface.co/papers/2307.04725): motion modules in Stable Diffusion."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from unstill.families.base import Family
from unstill.families.model_card import Model
from unstill.families.reference_keys import ReferenceKeys
from unstill.families.vae_adapters import FrameAdapter


# As diffusers' documentation recommends: the first level is then pure noise. The code of the authors and of I4VGen
# starts below it ("leading": level 961 of 1000 with 25 steps).
SCHEDULER = (
    "DDIMScheduler",
    (("beta_schedule", "linear"), ("clip_sample", False), ("timestep_spacing", "linspace"), ("steps_offset", 1)),
)


class AnimateDiff(FrameAdapter):
    """Motion modules attend over the frames at one position."""

    attends = ("unet",)
    temporal_attention = "AnimateDiffTransformer3D"

    def reference_keys(self, pipe: Any, network: Any, x: Tensor, shape: torch.Size) -> ReferenceKeys:
        return ReferenceKeys(shape[2], 1, temporal=True)


@contextmanager
def without_motion(pipe: Any) -> Iterator[None]:
    """
    Makes motion modules return their input unchanged: the pipeline is then its text-to-image base model, applied to
    each frame separately.
    """
    from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D

    blocks = [block for block in pipe.unet.modules() if isinstance(block, AnimateDiffTransformer3D)]
    before = [vars(block).get("forward") for block in blocks]  # offloading may have replaced it
    try:
        for block in blocks:
            block.forward = _identity
        yield
    finally:
        for block, forward in zip(blocks, before, strict=True):
            del block.forward
            if forward is not None:
                block.forward = forward


def _identity(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return hidden_states


FAMILY = Family(
    adapters={
        "AnimateDiffPipeline": AnimateDiff(),
        "AnimateDiffControlNetPipeline": AnimateDiff(),
        "AnimateDiffPAGPipeline": FrameAdapter(),  # the attention in its third pass is different
        "AnimateDiffSDXLPipeline": AnimateDiff(),
        "AnimateDiffSparseControlNetPipeline": AnimateDiff(),
    },
    image_modes={
        "AnimateDiffPipeline": without_motion,
        "AnimateDiffPAGPipeline": without_motion,
        "AnimateDiffSDXLPipeline": without_motion,
    },
    models=(
        Model(
            name="animatediff",
            pipeline="AnimateDiffPipeline",
            weights="stable-diffusion-v1-5/stable-diffusion-v1-5",
            licence="CreativeML Open RAIL-M (base), Apache-2.0 (motion module)",
            parameters="1.3 B",
            needs="a GPU of 8 GB with --offload",
            dtype="float16",
            size=(512, 512),
            frames=16,
            fps=8,
            steps=25,
            input="prompt",
            start=("start", 0.96),
            parts=(("motion_adapter", "MotionAdapter", "guoyww/animatediff-motion-adapter-v1-5-2"),),
            scheduler=SCHEDULER,
        ),
        Model(
            name="animatediff-sparsectrl",
            pipeline="AnimateDiffSparseControlNetPipeline",
            weights="stable-diffusion-v1-5/stable-diffusion-v1-5",
            licence="CreativeML Open RAIL-M (base), Apache-2.0 (others)",
            parameters="1.3 B",
            needs="a GPU of 12 GB with --offload",
            dtype="float16",
            size=(512, 512),
            frames=16,
            fps=8,
            steps=25,
            input="image and prompt",
            start=("start", 0.96),
            parts=(
                ("motion_adapter", "MotionAdapter", "guoyww/animatediff-motion-adapter-v1-5-3"),
                ("controlnet", "SparseControlNetModel", "guoyww/animatediff-sparsectrl-rgb"),
            ),
            scheduler=SCHEDULER,
        ),
        Model(
            name="animatediff-sdxl",
            pipeline="AnimateDiffSDXLPipeline",
            weights="stabilityai/stable-diffusion-xl-base-1.0",
            licence="CreativeML Open RAIL++-M (base), Apache-2.0 (motion module)",
            parameters="2.8 B",
            needs="a GPU of 24 GB with --offload",
            dtype="float16",
            size=(1024, 1024),
            frames=16,
            fps=8,
            steps=20,
            input="prompt",
            start=("start", 0.96),
            variant="fp16",
            parts=(("motion_adapter", "MotionAdapter", "guoyww/animatediff-motion-adapter-sdxl-beta"),),
            scheduler=SCHEDULER,
        ),
    ),
)
