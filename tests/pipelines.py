"""
Tiny pipelines with random weights, one row per supported class: no network, no text encoders (prompts come as
embeddings).

They show that methods reach the pipeline, not that videos get better.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import diffusers
import numpy as np
import torch
from PIL import Image


VP = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": False}


@dataclass(frozen=True)
class Case:
    """
    A pipeline and how to call it.

    `level` is a start that its schedulers know, `frames` the latent frames that hooks see, `held` those they do not,
    `encoded` the pixel frames that its VAE turns into all of them.
    """

    build: Callable[[], Any]
    call: dict[str, Any]
    level: dict[str, float]
    latents: tuple[int, ...]  # C, F, H, W
    encoded: int
    image: bool = True
    condition: bool = True
    held: int = 0
    schedulers: dict[str, Callable[[], Any]] = field(default_factory=dict)  # besides the one that `build` uses


def picture(size: int = 16) -> Image.Image:
    y, x = np.mgrid[0:size, 0:size] / (size - 1)
    return Image.fromarray((np.stack([x, y, 1 - x], axis=-1) * 255).astype(np.uint8))


def embeddings(tokens: int, width: int) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(5)
    return {
        "prompt_embeds": torch.randn(1, tokens, width, generator=draw),
        "negative_prompt_embeds": torch.randn(1, tokens, width, generator=draw),
    }


def sample(case: Case, pipe: Any, seed: int = 0, **changes: Any) -> torch.Tensor:
    """The final latents of a two-step call, in the pipeline's own layout."""
    generator = torch.Generator().manual_seed(seed)
    arguments = {"num_inference_steps": 2, "generator": generator, "output_type": "latent", **case.call, **changes}
    return pipe(**arguments).frames


def _made(factory: Callable[[], Any]) -> Any:
    torch.manual_seed(0)
    pipe = factory()
    pipe.set_progress_bar_config(disable=True)
    for component in pipe.components.values():
        if isinstance(component, torch.nn.Module):
            component.eval()
    return pipe


def stable_video_diffusion() -> Any:
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

    return diffusers.StableVideoDiffusionPipeline(
        vae=diffusers.AutoencoderKLTemporalDecoder(
            block_out_channels=[32, 32], down_block_types=["DownEncoderBlock2D"] * 2, layers_per_block=1
        ),
        image_encoder=CLIPVisionModelWithProjection(
            CLIPVisionConfig(
                hidden_size=8,
                intermediate_size=8,
                projection_dim=32,
                num_hidden_layers=1,
                num_attention_heads=1,
                image_size=224,
                patch_size=112,
            )
        ),
        unet=diffusers.UNetSpatioTemporalConditionModel(
            block_out_channels=(32, 32),
            layers_per_block=1,
            sample_size=8,
            down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
            up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
            cross_attention_dim=32,
            num_attention_heads=1,
            projection_class_embeddings_input_dim=24,
            addition_time_embed_dim=8,
        ),
        scheduler=diffusers.EulerDiscreteScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            interpolation_type="linear",
            prediction_type="v_prediction",
            sigma_max=700.0,
            sigma_min=0.002,
            steps_offset=1,
            timestep_spacing="leading",
            timestep_type="continuous",
            use_karras_sigmas=True,
        ),
        feature_extractor=CLIPImageProcessor(),
    )


def _image_vae() -> Any:
    return diffusers.AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=2,
    )


def animatediff() -> Any:
    return diffusers.AnimateDiffPipeline(
        vae=_image_vae(),
        text_encoder=None,
        tokenizer=None,
        unet=diffusers.UNet2DConditionModel(
            block_out_channels=(8, 8),
            layers_per_block=1,
            sample_size=8,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=8,
            attention_head_dim=4,
            norm_num_groups=2,
        ),
        motion_adapter=diffusers.MotionAdapter(
            block_out_channels=(8, 8),
            motion_layers_per_block=1,
            motion_norm_num_groups=2,
            motion_num_attention_heads=2,
        ),
        scheduler=diffusers.DDIMScheduler(**VP),
    )


def cogvideox() -> Any:
    return diffusers.CogVideoXImageToVideoPipeline(
        tokenizer=None,
        text_encoder=None,
        vae=diffusers.AutoencoderKLCogVideoX(
            down_block_types=("CogVideoXDownBlock3D",) * 4,
            up_block_types=("CogVideoXUpBlock3D",) * 4,
            block_out_channels=(8, 8, 8, 8),
            latent_channels=4,
            layers_per_block=1,
            norm_num_groups=2,
            temporal_compression_ratio=4,
        ),
        transformer=diffusers.CogVideoXTransformer3DModel(
            num_attention_heads=2,
            attention_head_dim=16,
            in_channels=8,
            out_channels=4,
            time_embed_dim=2,
            text_embed_dim=8,
            num_layers=1,
            sample_width=2,
            sample_height=2,
            sample_frames=9,
            patch_size=2,
            temporal_compression_ratio=4,
            max_text_seq_length=4,
            use_rotary_positional_embeddings=True,
            use_learned_positional_embeddings=True,
        ),
        scheduler=_cogvideox_scheduler(diffusers.CogVideoXDDIMScheduler),
    )


def _cogvideox_scheduler(cls: type) -> Any:
    return cls(
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        snr_shift_scale=1.0,
        clip_sample=False,
    )


def wan() -> Any:
    return diffusers.WanImageToVideoPipeline(
        tokenizer=None,
        text_encoder=None,
        vae=diffusers.AutoencoderKLWan(
            base_dim=3, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True]
        ),
        transformer=diffusers.WanTransformer3DModel(
            patch_size=(1, 2, 2),
            num_attention_heads=2,
            attention_head_dim=12,
            in_channels=36,
            out_channels=16,
            text_dim=8,
            freq_dim=16,
            ffn_dim=8,
            num_layers=1,
            rope_max_seq_len=32,
        ),
        scheduler=diffusers.UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        ),
    )


CASES: dict[str, Case] = {
    "StableVideoDiffusionPipeline": Case(
        build=stable_video_diffusion,
        call={"image": picture(), "height": 16, "width": 16, "num_frames": 3, "max_guidance_scale": 2.0},
        level={"sigma": 100.0},
        latents=(4, 3, 8, 8),
        encoded=3,
    ),
    "AnimateDiffPipeline": Case(
        build=animatediff,
        call={"height": 16, "width": 16, "num_frames": 3, **embeddings(4, 8)},
        level={"start": 0.96},
        latents=(4, 3, 8, 8),
        encoded=3,
        image=False,
        condition=False,
        schedulers={
            "Euler": lambda: diffusers.EulerDiscreteScheduler(timestep_spacing="linspace", beta_schedule="linear"),
            "DPM++": lambda: diffusers.DPMSolverMultistepScheduler(use_karras_sigmas=True),
            "UniPC": diffusers.UniPCMultistepScheduler,
        },
    ),
    "CogVideoXImageToVideoPipeline": Case(
        build=cogvideox,
        call={
            "image": picture(),
            "height": 16,
            "width": 16,
            "num_frames": 9,
            "prompt": None,
            "max_sequence_length": 4,
            **embeddings(4, 8),
        },
        level={"start": 0.96},
        latents=(4, 3, 2, 2),
        encoded=9,
        schedulers={"DPM": lambda: _cogvideox_scheduler(diffusers.CogVideoXDPMScheduler)},
    ),
    "WanImageToVideoPipeline": Case(
        build=wan,
        call={"image": picture(), "height": 16, "width": 16, "num_frames": 9, **embeddings(4, 8)},
        level={"start": 0.96},
        latents=(16, 3, 2, 2),
        encoded=9,
        schedulers={"FlowMatchEuler": lambda: diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)},
    ),
}


@cache
def pipeline(name: str) -> Any:
    """The pipeline of a row, built once; a test leaves it as it found it."""
    return _made(CASES[name].build)
