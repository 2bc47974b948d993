"""The same sample by diffusers and `unstill.apply`."""

from collections.abc import Sequence
from types import SimpleNamespace

import torch
from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler, WanImageToVideoPipeline, WanTransformer3DModel
from PIL import Image

import unstill


def scheduler(shift: float = 5.0) -> FlowMatchEulerDiscreteScheduler:
    return FlowMatchEulerDiscreteScheduler(shift=shift)


def diffusers_sample(
    network: WanTransformer3DModel, values: dict[str, torch.Tensor], methods: Sequence[unstill.Method]
) -> torch.Tensor:
    """Latents as the network counts them, of the conditioning, noise and number of levels in `values`."""
    torch.manual_seed(0)
    vae = AutoencoderKLWan(base_dim=8, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1)
    # What an encoder would make of the picture is given; the pipeline normalises it.
    vae.encode = lambda *_, **__: SimpleNamespace(latents=values["condition"].clone())
    pipe = WanImageToVideoPipeline(
        tokenizer=None, text_encoder=None, vae=vae, scheduler=scheduler(), transformer=network
    )
    pipe.set_progress_bar_config(disable=True)
    frames = 4 * (values["noise"].shape[2] - 1) + 1
    with torch.no_grad(), unstill.apply(pipe, *methods):
        made = pipe(
            image=Image.new("RGB", (64, 64)), height=64, width=64, num_frames=frames, guidance_scale=5.0,
            prompt_embeds=values["positive"], negative_prompt_embeds=values["negative"],
            latents=values["noise"].clone(), num_inference_steps=len(values["sigmas"]) - 1, output_type="latent",
            generator=torch.Generator().manual_seed(0),
        )  # fmt: skip
    return made.frames
