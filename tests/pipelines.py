"""
Tiny pipelines with random weights, one row per supported class: no network, no text encoders (prompts come as
embeddings).

They show that methods reach the pipeline, not that videos get better.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers.pipelines.ltx.pipeline_ltx_condition import LTXVideoCondition
from diffusers.pipelines.ltx2.pipeline_ltx2_condition import LTX2VideoCondition
from PIL import Image


VP = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": False}


@dataclass(frozen=True)
class Case:
    """
    A pipeline and how to call it.

    `level` is a start that its schedulers know, `latents` the shape of its video latents with the `held` frames that
    hooks do not see, `encoded` the pixel frames that its VAE turns into all of them. `fails` says of a check in
    `test_every_pipeline.py` what diffusers itself answers to such a call; an empty string: it makes one video only.
    """

    build: Callable[[], Any]
    call: dict[str, Any]
    latents: tuple[int, ...]  # C, F, H, W
    encoded: int
    level: dict[str, float] = field(default_factory=lambda: {"start": 0.96})
    image: bool = True
    condition: bool = True
    held: int = 0
    image_each: bool = False  # whether a batch of prompts takes one image for each
    repeats: bool = True  # whether it repeats embeddings for several videos, and not only those of its text encoder
    several: str = "num_videos_per_prompt"  # the argument that asks for several videos of a prompt
    fails: dict[str, str] = field(default_factory=dict)
    schedulers: dict[str, Callable[[], Any]] = field(default_factory=dict)  # besides the one that `build` uses
    unguided: dict[str, float] = field(default_factory=lambda: {"guidance_scale": 1.0})


def picture(size: int = 16) -> Image.Image:
    y, x = np.mgrid[0:size, 0:size] / (size - 1)
    return Image.fromarray((np.stack([x, y, 1 - x], axis=-1) * 255).astype(np.uint8))


def embeddings(tokens: int, width: int, pooled: int = 0) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(5)
    shapes = {"prompt_embeds": (1, tokens, width), "pooled_prompt_embeds": (1, pooled)}
    return {
        prefix + name: torch.randn(shape, generator=draw)
        for name, shape in shapes.items()
        for prefix in ("", "negative_")
        if pooled or "pooled" not in name
    }


def sample(case: Case, pipe: Any, seed: int = 0, **changes: Any) -> torch.Tensor:
    """The final latents of a two-step call, in the pipeline's own layout; of the last section, of several."""
    torch.manual_seed(seed)  # I2VGenXL encodes its image without the caller's generator
    generator = torch.Generator().manual_seed(seed)
    arguments = {"num_inference_steps": 2, "generator": generator, "output_type": "latent", **case.call, **changes}
    frames = pipe(**arguments).frames
    return frames[-1] if isinstance(frames, list) and isinstance(frames[0], torch.Tensor) else frames


def _made(factory: Callable[[], Any]) -> Any:
    torch.manual_seed(0)
    pipe = factory()
    pipe.set_progress_bar_config(disable=True)
    for component in pipe.components.values():
        if isinstance(component, torch.nn.Module):
            component.eval()
    return pipe


def _image_encoder(projection: int) -> Any:
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    config = CLIPVisionConfig(
        hidden_size=8,
        intermediate_size=8,
        projection_dim=projection,
        num_hidden_layers=1,
        num_attention_heads=1,
        image_size=224,
        patch_size=112,
    )
    return CLIPVisionModelWithProjection(config)


def stable_video_diffusion() -> Any:
    from transformers import CLIPImageProcessor

    return diffusers.StableVideoDiffusionPipeline(
        vae=diffusers.AutoencoderKLTemporalDecoder(
            block_out_channels=[32, 32], down_block_types=["DownEncoderBlock2D"] * 2, layers_per_block=1
        ),
        image_encoder=_image_encoder(projection=32),
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


def pico(**config: Any) -> Any:
    """
    The embedded model's classes, small, for 8 frames of 64 pixels; `config`: further arguments of the transformer.

    Freshly made it predicts zeros, as its last layers are; with `random_pico` nothing is zero.
    """
    from unstill.models.pico import PicoAutoencoder, PicoPipeline, PicoTransformer, edm_scheduler

    small = {"sample_size": 8, "num_frames": 8, "num_layers": 1, "num_attention_heads": 1, "attention_head_dim": 16}
    made = PicoPipeline(
        vae=PicoAutoencoder(block_out_channels=(8, 8, 8)),
        transformer=PicoTransformer(**{**small, **config}),
        scheduler=edm_scheduler(),
    )
    made.set_progress_bar_config(disable=True)
    return made


def random_pico(seed: int = 0, **config: Any) -> Any:
    """`pico` with random weights everywhere: its videos depend on all of its input, and everything has a gradient."""
    torch.manual_seed(seed)
    made = pico(**config)
    with torch.no_grad():
        for parameter in made.transformer.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    return made


def _image_vae() -> Any:
    return diffusers.AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=2,
    )


def _animatediff(cls: type, unet: dict[str, Any] | None = None, channels: int = 4, **more: Any) -> Any:
    """`unet`: more arguments of the UNet; `channels`: those it takes with the motion adapter; `more`: components."""
    return cls(
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
            **(unet or {}),
        ),
        motion_adapter=diffusers.MotionAdapter(
            block_out_channels=(8, 8),
            motion_layers_per_block=1,
            motion_norm_num_groups=2,
            motion_num_attention_heads=2,
            conv_in_channels=channels if channels != 4 else None,
        ),
        scheduler=diffusers.DDIMScheduler(**VP),
        **more,
    )


def animatediff() -> Any:
    return _animatediff(diffusers.AnimateDiffPipeline)


def animatediff_ip_adapter() -> Any:
    pipe = animatediff()
    draw, width = torch.Generator().manual_seed(7), 8
    weights = {}
    crossing = [
        name for name in pipe.unet.attn_processors if name.endswith("attn2.processor") and "motion" not in name
    ]
    for i, name in enumerate(crossing):
        shape = pipe.unet.get_submodule(name.removesuffix(".processor")).inner_dim, width
        for part in ("to_k_ip", "to_v_ip"):
            weights[f"{2 * i + 1}.{part}.weight"] = torch.randn(shape, generator=draw)
    shapes = {
        "proj.weight": (4 * width, width),
        "proj.bias": (4 * width,),
        "norm.weight": (width,),
        "norm.bias": (width,),
    }
    projection = {name: torch.randn(shape, generator=draw) for name, shape in shapes.items()}
    pipe.unet._load_ip_adapter_weights([{"image_proj": projection, "ip_adapter": weights}])
    return pipe


def animatediff_sparse_controlnet() -> Any:
    controlnet = diffusers.SparseControlNetModel(
        block_out_channels=(8, 8),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlockMotion", "DownBlockMotion"),
        cross_attention_dim=8,
        attention_head_dim=4,
        norm_num_groups=2,
        conditioning_channels=3,
        conditioning_embedding_out_channels=(8, 8),
        motion_max_seq_length=32,
        motion_num_attention_heads=2,
        use_simplified_condition_embedding=False,
    )
    return _animatediff(diffusers.AnimateDiffSparseControlNetPipeline, controlnet=controlnet)


def animatediff_controlnet() -> Any:
    controlnet = diffusers.ControlNetModel(
        block_out_channels=(8, 8),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        cross_attention_dim=8,
        attention_head_dim=4,
        norm_num_groups=2,
        conditioning_embedding_out_channels=(8, 8),
    )
    return _animatediff(diffusers.AnimateDiffControlNetPipeline, controlnet=controlnet)


def animatediff_pag() -> Any:
    return _animatediff(diffusers.AnimateDiffPAGPipeline)


def animatediff_sdxl() -> Any:
    return _animatediff(
        diffusers.AnimateDiffSDXLPipeline,
        text_encoder_2=None,
        tokenizer_2=None,
        unet={
            "use_linear_projection": True,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": 56,
        },
    )


def pia() -> Any:
    return _animatediff(diffusers.PIAPipeline, channels=9)


def _unet3d(cls: type) -> Any:
    return cls(
        block_out_channels=(4, 8),
        layers_per_block=1,
        sample_size=8,
        down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
        up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
        cross_attention_dim=8,
        attention_head_dim=4,
        norm_num_groups=2,
    )


def i2vgen_xl() -> Any:
    from transformers import CLIPImageProcessor

    return diffusers.I2VGenXLPipeline(
        vae=_image_vae(),
        text_encoder=None,
        tokenizer=None,
        image_encoder=_image_encoder(projection=8),
        feature_extractor=CLIPImageProcessor(),
        unet=_unet3d(diffusers.I2VGenXLUNet),
        scheduler=diffusers.DDIMScheduler(**VP),
    )


def dynamicrafter(channels: int = 8) -> Any:
    from transformers import CLIPVisionConfig, CLIPVisionModel

    from unstill.models.dynamicrafter import (
        DynamiCrafterPipeline,
        DynamiCrafterScheduler,
        DynamiCrafterUNet,
        ImageResampler,
        VideoCrafterPipeline,
    )

    pipeline_class = DynamiCrafterPipeline if channels == 8 else VideoCrafterPipeline
    encoder = CLIPVisionConfig(
        hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, image_size=16, patch_size=8
    )
    return pipeline_class(
        vae=_image_vae(),
        text_encoder=None,
        tokenizer=None,
        image_encoder=CLIPVisionModel(encoder),
        image_projector=ImageResampler(8, 8, 1, 1, 8, queries=2, frames=3 if channels == 8 else 1, output_dim=8),
        unet=DynamiCrafterUNet(
            (8, 8),
            in_channels=channels,
            block_out_channels=(32, 32),
            layers_per_block=1,
            attention_levels=1,
            attention_head_dim=16,
            cross_attention_dim=8,
            text_tokens=4,
            image_tokens=2,
        ),
        scheduler=DynamiCrafterScheduler(),
    )


def lavie() -> Any:
    from unstill.models.lavie import LaViePipeline, LaVieUNet

    return LaViePipeline(
        vae=_image_vae(),
        text_encoder=None,
        tokenizer=None,
        unet=LaVieUNet(
            block_out_channels=(8, 8),
            layers_per_block=1,
            sample_size=8,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=8,
            attention_head_dim=2,
            norm_num_groups=2,
        ),
        scheduler=diffusers.DDPMScheduler(clip_sample=False),
    )


def text_to_video_sd() -> Any:
    return diffusers.TextToVideoSDPipeline(
        vae=_image_vae(),
        text_encoder=None,
        tokenizer=None,
        unet=_unet3d(diffusers.UNet3DConditionModel),
        scheduler=diffusers.DDIMScheduler(**VP),
    )


def cogvideox(cls: type = diffusers.CogVideoXImageToVideoPipeline, channels: int = 8, **network: Any) -> Any:
    settings = {"use_learned_positional_embeddings": True, **network}
    return cls(
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
            in_channels=channels,
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
            **settings,
        ),
        scheduler=_cogvideox_scheduler(diffusers.CogVideoXDDIMScheduler),
    )


def consisid() -> Any:
    base = cogvideox()
    transformer = diffusers.ConsisIDTransformer3DModel(
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
        cross_attn_interval=1,
        is_train_face=True,
        cross_attn_dim_head=1,
        cross_attn_num_heads=1,
        LFE_id_dim=2,
        LFE_vit_dim=2,
        LFE_depth=5,
        LFE_dim_head=8,
        LFE_num_heads=2,
        LFE_num_id_token=1,
        LFE_num_querie=1,
        LFE_output_dim=21,
        LFE_ff_mult=1,
        LFE_num_scale=1,
    )
    return diffusers.ConsisIDPipeline(
        tokenizer=None, text_encoder=None, vae=base.vae, transformer=transformer, scheduler=base.scheduler
    )


def _cogvideox_scheduler(cls: type) -> Any:
    return cls(
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        snr_shift_scale=1.0,
        clip_sample=False,
    )


def easyanimate(cls: type = diffusers.EasyAnimatePipeline, channels: int = 4, **config: Any) -> Any:
    transformer = diffusers.EasyAnimateTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=channels,
        out_channels=4,
        time_embed_dim=2,
        text_embed_dim=8,
        num_layers=1,
        sample_width=2,
        sample_height=2,
        patch_size=2,
        **config,
    )
    vae = diffusers.AutoencoderKLMagvit(
        down_block_types=("SpatialDownBlock3D", *("SpatialTemporalDownBlock3D",) * 3),
        up_block_types=("SpatialUpBlock3D", *("SpatialTemporalUpBlock3D",) * 3),
        block_out_channels=(8, 8, 8, 8),
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=2,
        spatial_group_norm=False,
    )
    vae.register_to_config(cache_mag_vae=True)  # as in the configurations of released ones
    return cls(
        tokenizer=None,
        text_encoder=None,
        vae=vae,
        transformer=transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
    )


def _wan_transformer(cls: type, channels: int, **more: Any) -> Any:
    return cls(
        patch_size=(1, 2, 2),
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=channels,
        out_channels=16,
        text_dim=8,
        freq_dim=16,
        ffn_dim=8,
        num_layers=1,
        rope_max_seq_len=32,
        **more,
    )


def _wan_vae() -> Any:
    return diffusers.AutoencoderKLWan(
        base_dim=3, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True]
    )


def _flow_unipc() -> Any:
    return diffusers.UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)


def wan(channels: int = 36, experts: int = 1, **config: Any) -> Any:
    transformers = [_wan_transformer(diffusers.WanTransformer3DModel, channels) for _ in range(experts)]
    return diffusers.WanImageToVideoPipeline(
        tokenizer=None,
        text_encoder=None,
        vae=_wan_vae(),
        transformer=transformers[0],
        transformer_2=transformers[1] if experts == 2 else None,
        scheduler=_flow_unipc(),
        **config,
    )


def wan_text(
    cls: type = diffusers.WanPipeline, transformer: type = diffusers.WanTransformer3DModel, **more: Any
) -> Any:
    return cls(
        tokenizer=None,
        text_encoder=None,
        vae=_wan_vae(),
        transformer=_wan_transformer(transformer, 16, **more),
        scheduler=_flow_unipc(),
    )


def skyreels() -> Any:
    from transformers import CLIPImageProcessor

    return diffusers.SkyReelsV2ImageToVideoPipeline(
        tokenizer=None,
        text_encoder=None,
        image_encoder=_image_encoder(projection=8),
        image_processor=CLIPImageProcessor(),
        vae=_wan_vae(),
        transformer=_wan_transformer(diffusers.SkyReelsV2Transformer3DModel, 36, image_dim=8),
        scheduler=_flow_unipc(),
    )


def wan_animate() -> Any:
    from transformers import CLIPImageProcessor

    return diffusers.WanAnimatePipeline(
        tokenizer=None,
        text_encoder=None,
        image_encoder=_image_encoder(projection=8),
        image_processor=CLIPImageProcessor(),
        vae=_wan_vae(),
        transformer=_wan_transformer(
            diffusers.WanAnimateTransformer3DModel,
            36,
            latent_channels=16,
            image_dim=8,
            motion_encoder_channel_sizes={"4": 8, "8": 8, "16": 8},
            motion_encoder_size=16,
            motion_style_dim=8,
            motion_dim=4,
            motion_encoder_dim=8,
            face_encoder_hidden_dim=8,
            face_encoder_num_heads=2,
            inject_face_latents_blocks=1,
        ),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=7.0),
    )


def _with_moments(vae: Any) -> Any:
    """LTX normalises latents by buffers of its VAE, which are trivial before training."""
    draw = torch.Generator().manual_seed(3)
    vae.latents_mean.copy_(torch.randn(vae.latents_mean.shape, generator=draw))
    vae.latents_std.copy_(torch.rand(vae.latents_std.shape, generator=draw) + 0.5)
    return vae


class _NoGuardrail:
    """Cosmos wants the checker of a package that is not needed for latents."""

    def to(self, device: Any) -> None: ...

    def check_video_safety(self, video: np.ndarray) -> np.ndarray:
        return video


def cosmos(cls: type, scheduler: Any, vae: Any = None, channels: int = 17) -> Any:
    return cls(
        text_encoder=None,
        tokenizer=None,
        transformer=diffusers.CosmosTransformer3DModel(
            in_channels=channels,
            out_channels=16,
            num_attention_heads=2,
            attention_head_dim=16,
            num_layers=1,
            mlp_ratio=1,
            text_embed_dim=8,
            adaln_lora_dim=4,
            max_size=(4, 8, 8),
            concat_padding_mask=False,  # which needs torchvision
            extra_pos_embed_type=None,
        ),
        vae=vae or _wan_vae(),
        scheduler=scheduler,
        safety_checker=_NoGuardrail(),
    )


def cosmos_1(cls: type = diffusers.CosmosVideoToWorldPipeline, channels: int = 17) -> Any:
    vae = diffusers.AutoencoderKLCosmos(
        encoder_block_out_channels=(8, 8, 8, 8),
        decode_block_out_channels=(8, 8, 8, 8),
        attention_resolutions=(8,),
        resolution=64,
        num_layers=1,
        spatial_compression_ratio=4,
        temporal_compression_ratio=4,
    )
    scheduler = diffusers.EDMEulerScheduler(sigma_max=80.0, sigma_min=0.002, sigma_data=0.5)
    return cosmos(cls, scheduler, vae, channels)


def cosmos_2() -> Any:
    return cosmos(
        diffusers.Cosmos2VideoToWorldPipeline, diffusers.FlowMatchEulerDiscreteScheduler(use_karras_sigmas=True)
    )


def cosmos_25() -> Any:
    scheduler = diffusers.UniPCMultistepScheduler(
        prediction_type="flow_prediction",
        use_flow_sigmas=True,
        use_karras_sigmas=True,
        sigma_max=200.0,
        sigma_min=0.01,
    )
    return cosmos(diffusers.Cosmos2_5_PredictBasePipeline, scheduler)


LTX_LEVELS = {
    "use_dynamic_shifting": True,
    "base_shift": 0.95,
    "max_shift": 2.05,
    "base_image_seq_len": 1024,
    "shift_terminal": 0.1,
}


def ltx(cls: type = diffusers.LTXImageToVideoPipeline, **levels: Any) -> Any:
    return cls(
        tokenizer=None,
        text_encoder=None,
        vae=_with_moments(
            diffusers.AutoencoderKLLTXVideo(
                latent_channels=8,
                block_out_channels=(8, 8, 8, 8),
                decoder_block_out_channels=(8, 8, 8, 8),
                layers_per_block=(1, 1, 1, 1, 1),
                decoder_layers_per_block=(1, 1, 1, 1, 1),
                spatio_temporal_scaling=(True, True, False, False),
                decoder_spatio_temporal_scaling=(True, True, False, False),
                decoder_inject_noise=(False,) * 5,
                upsample_residual=(False,) * 4,
                upsample_factor=(1,) * 4,
                timestep_conditioning=True,
                patch_size=1,
                patch_size_t=1,
            )
        ),
        transformer=diffusers.LTXVideoTransformer3DModel(
            in_channels=8,
            out_channels=8,
            patch_size=1,
            patch_size_t=1,
            num_attention_heads=2,
            attention_head_dim=8,
            cross_attention_dim=16,
            num_layers=1,
            caption_channels=8,
        ),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(**levels),
    )


def mochi() -> Any:
    return diffusers.MochiPipeline(
        text_encoder=None,
        tokenizer=None,
        vae=diffusers.AutoencoderKLMochi(
            latent_channels=12,
            encoder_block_out_channels=(32, 32, 32, 32),
            decoder_block_out_channels=(32, 32, 32, 32),
            layers_per_block=(1, 1, 1, 1, 1),
        ),
        transformer=diffusers.MochiTransformer3DModel(
            patch_size=2,
            num_attention_heads=2,
            attention_head_dim=8,
            num_layers=2,
            pooled_projection_dim=16,
            in_channels=12,
            text_embed_dim=8,
            time_embed_dim=4,
            max_sequence_length=4,
        ),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(invert_sigmas=True),
    )


def hunyuan_video(kind: str) -> Any:
    channels = 2 * 4 + 1 if kind == "latent_concat" else 4
    return _hunyuan_video(diffusers.HunyuanVideoImageToVideoPipeline, channels, kind, image_processor=None)


def _hunyuan_video(cls: type, channels: int, kind: str | None = None, **more: Any) -> Any:
    return cls(
        **more,
        text_encoder=None,
        tokenizer=None,
        text_encoder_2=None,
        tokenizer_2=None,
        transformer=diffusers.HunyuanVideoTransformer3DModel(
            in_channels=channels,
            out_channels=4,
            num_attention_heads=2,
            attention_head_dim=10,
            num_layers=1,
            num_single_layers=1,
            num_refiner_layers=1,
            patch_size=1,
            patch_size_t=1,
            guidance_embeds=False,
            text_embed_dim=16,
            pooled_projection_dim=8,
            rope_axes_dim=(2, 4, 4),
            image_condition_type=kind,
        ),
        vae=diffusers.AutoencoderKLHunyuanVideo(
            latent_channels=4,
            down_block_types=("HunyuanVideoDownBlock3D",) * 4,
            up_block_types=("HunyuanVideoUpBlock3D",) * 4,
            block_out_channels=(8, 8, 8, 8),
            layers_per_block=1,
            norm_num_groups=4,
        ),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=7.0),
    )


def framepack() -> Any:
    from transformers import SiglipImageProcessor, SiglipVisionConfig, SiglipVisionModel

    base = _hunyuan_video(diffusers.HunyuanVideoPipeline, 4)
    config = SiglipVisionConfig(
        hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, image_size=16, patch_size=8
    )
    transformer = diffusers.HunyuanVideoFramepackTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=10,
        num_layers=1,
        num_single_layers=1,
        num_refiner_layers=1,
        patch_size=2,
        patch_size_t=1,
        guidance_embeds=True,
        text_embed_dim=16,
        pooled_projection_dim=8,
        rope_axes_dim=(2, 4, 4),
        has_image_proj=True,
        image_proj_dim=8,
        has_clean_x_embedder=True,
    )
    return diffusers.HunyuanVideoFramepackPipeline(
        **{**base.components, "transformer": transformer},
        image_encoder=SiglipVisionModel(config),
        feature_extractor=SiglipImageProcessor(size={"height": 16, "width": 16}),
    )


def hunyuan_embeddings() -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(5)
    return {
        "prompt_embeds": torch.randn(1, 4, 16, generator=draw),
        "pooled_prompt_embeds": torch.randn(1, 8, generator=draw),
        "prompt_attention_mask": torch.ones(1, 4),
    }


SMALL = {"height": 16, "width": 16, "num_frames": 3}
LONG = {**SMALL, "num_frames": 9}
LARGE = {**LONG, "height": 32, "width": 32}


def hunyuan_video_15_text() -> Any:
    return _hunyuan_video_15(diffusers.HunyuanVideo15Pipeline)


def hunyuan_video_15() -> Any:
    from transformers import SiglipImageProcessor, SiglipVisionConfig, SiglipVisionModel

    config = SiglipVisionConfig(
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        image_size=224,
        patch_size=112,
    )
    return _hunyuan_video_15(
        diffusers.HunyuanVideo15ImageToVideoPipeline,
        image_encoder=SiglipVisionModel(config),
        feature_extractor=SiglipImageProcessor(size={"height": 224, "width": 224}),
    )


def _hunyuan_video_15(cls: type, **more: Any) -> Any:
    return cls(
        **more,
        text_encoder=None,
        tokenizer=None,
        text_encoder_2=None,
        tokenizer_2=None,
        guider=diffusers.ClassifierFreeGuidance(guidance_scale=1.0),
        transformer=diffusers.HunyuanVideo15Transformer3DModel(
            in_channels=9,
            out_channels=4,
            num_attention_heads=2,
            attention_head_dim=8,
            num_layers=1,
            num_refiner_layers=1,
            mlp_ratio=1.0,
            text_embed_dim=8,
            text_embed_2_dim=8,
            image_embed_dim=8,
            rope_axes_dim=(2, 2, 4),
            target_size=16,
        ),
        vae=diffusers.AutoencoderKLHunyuanVideo15(
            latent_channels=4,
            block_out_channels=(32, 32),
            layers_per_block=1,
            spatial_compression_ratio=4,
            temporal_compression_ratio=2,
            downsample_match_channel=False,
            upsample_match_channel=False,
        ),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=7.0),
    )


def sana_video(cls: type = diffusers.SanaImageToVideoPipeline) -> Any:
    return cls(
        tokenizer=None,
        text_encoder=None,
        vae=_wan_vae(),
        transformer=diffusers.SanaVideoTransformer3DModel(
            in_channels=16,
            out_channels=16,
            num_attention_heads=2,
            attention_head_dim=12,
            num_layers=1,
            num_cross_attention_heads=2,
            cross_attention_head_dim=12,
            cross_attention_dim=24,
            caption_channels=8,
            mlp_ratio=1.0,
            sample_size=2,
            rope_max_seq_len=32,
        ),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=7.0),
    )


def allegro() -> Any:
    vae = diffusers.AutoencoderKLAllegro(
        block_out_channels=(8, 8, 8, 8), latent_channels=4, layers_per_block=1, norm_num_groups=2, sample_size=16
    )
    vae.stride = (16, 8, 8)  # of tiles that the tiny videos fit in
    vae.enable_tiling()
    return diffusers.AllegroPipeline(
        tokenizer=None,
        text_encoder=None,
        vae=vae,
        transformer=diffusers.AllegroTransformer3DModel(
            num_attention_heads=1,
            attention_head_dim=12,
            in_channels=4,
            out_channels=4,
            num_layers=1,
            cross_attention_dim=12,
            sample_width=2,
            sample_height=2,
            sample_frames=6,
            caption_channels=8,
        ),
        scheduler=diffusers.EulerAncestralDiscreteScheduler(),
    )


def ltx2(cls: type = diffusers.LTX2ImageToVideoPipeline) -> Any:
    from diffusers.pipelines.ltx2 import LTX2TextConnectors
    from diffusers.pipelines.ltx2.vocoder import LTX2Vocoder

    return cls(
        text_encoder=None,
        tokenizer=None,
        connectors=LTX2TextConnectors(
            caption_channels=8,
            text_proj_in_factor=1,
            video_connector_num_attention_heads=1,
            video_connector_attention_head_dim=8,
            video_connector_num_layers=1,
            video_connector_num_learnable_registers=None,
            audio_connector_num_attention_heads=1,
            audio_connector_attention_head_dim=8,
            audio_connector_num_layers=1,
            audio_connector_num_learnable_registers=None,
            connector_rope_base_seq_len=32,
            rope_theta=10000.0,
            rope_double_precision=False,
            causal_temporal_positioning=False,
            rope_type="split",
        ),
        vae=_with_moments(
            diffusers.AutoencoderKLLTX2Video(
                latent_channels=4,
                block_out_channels=(8,),
                decoder_block_out_channels=(8,),
                layers_per_block=(1,),
                decoder_layers_per_block=(1, 1),
                spatio_temporal_scaling=(True,),
                decoder_spatio_temporal_scaling=(True,),
                decoder_inject_noise=(False, False),
                downsample_type=("spatiotemporal",),
                upsample_residual=(False,),
                upsample_factor=(1,),
                patch_size=1,
                patch_size_t=1,
            )
        ),
        audio_vae=diffusers.AutoencoderKLLTX2Audio(
            base_channels=4, ch_mult=(1,), num_res_blocks=1, resolution=32, latent_channels=2, mel_bins=8
        ),
        vocoder=LTX2Vocoder(in_channels=16, hidden_channels=8, upsample_kernel_sizes=[4], upsample_factors=[2]),
        transformer=diffusers.LTX2VideoTransformer3DModel(
            in_channels=4,
            out_channels=4,
            num_attention_heads=1,
            attention_head_dim=8,
            cross_attention_dim=8,
            audio_in_channels=4,
            audio_out_channels=4,
            audio_num_attention_heads=1,
            audio_attention_head_dim=8,
            audio_cross_attention_dim=8,
            num_layers=1,
            caption_channels=8,
            rope_double_precision=False,
            rope_type="split",
        ),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(
            use_dynamic_shifting=True, base_shift=0.95, max_shift=2.05, base_image_seq_len=1024, shift_terminal=0.1
        ),
    )


def latte() -> Any:
    return diffusers.LattePipeline(
        vae=_image_vae(),
        text_encoder=None,
        tokenizer=None,
        transformer=diffusers.LatteTransformer3DModel(
            sample_size=8,
            num_layers=1,
            patch_size=2,
            attention_head_dim=8,
            num_attention_heads=2,
            caption_channels=8,
            in_channels=4,
            cross_attention_dim=16,
            out_channels=8,
            attention_bias=True,
            activation_fn="gelu-approximate",
            num_embeds_ada_norm=1000,
            norm_type="ada_norm_single",
            norm_elementwise_affine=False,
            norm_eps=1e-6,
            video_length=3,
        ),
        scheduler=diffusers.DDIMScheduler(**VP),
    )


def motif(cls: type) -> Any:
    from transformers import SiglipImageProcessor

    return cls(
        vae=_wan_vae(),
        text_encoder=None,
        tokenizer=None,
        transformer=diffusers.MotifVideoTransformer3DModel(
            in_channels=33,
            out_channels=16,
            num_attention_heads=2,
            attention_head_dim=16,
            num_layers=1,
            num_single_layers=1,
            num_decoder_layers=1,
            mlp_ratio=1.0,
            patch_size=1,
            text_embed_dim=8,
            rope_axes_dim=(4, 6, 6),
        ),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        feature_extractor=SiglipImageProcessor(),
        guider=diffusers.ClassifierFreeGuidance(guidance_scale=1.0),
    )


def kandinsky(cls: type) -> Any:
    return cls(
        text_encoder=None,
        tokenizer=None,
        text_encoder_2=None,
        tokenizer_2=None,
        vae=diffusers.AutoencoderKLHunyuanVideo(
            latent_channels=4,
            down_block_types=("HunyuanVideoDownBlock3D",) * 4,
            up_block_types=("HunyuanVideoUpBlock3D",) * 4,
            block_out_channels=(8, 8, 8, 8),
            layers_per_block=1,
            norm_num_groups=4,
        ),
        transformer=diffusers.Kandinsky5Transformer3DModel(
            in_visual_dim=4,
            out_visual_dim=4,
            in_text_dim=8,
            in_text_dim2=8,
            time_dim=16,
            model_dim=24,
            ff_dim=16,
            num_text_blocks=1,
            num_visual_blocks=1,
            axes_dims=(4, 4, 4),
            visual_cond=True,
        ),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=5.0),
    )


def kandinsky_embeddings() -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(5)
    lengths = torch.tensor([0, 4], dtype=torch.int32)
    return {
        "prompt_embeds_qwen": torch.randn(1, 4, 8, generator=draw),
        "prompt_embeds_clip": torch.randn(1, 8, generator=draw),
        "prompt_cu_seqlens": lengths,
    }


def shown(frames: int, image: Image.Image | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """An image as the video and the mask that EasyAnimate takes: (1, C, F, H, W)."""
    pixels = torch.from_numpy(np.array(image or picture())).permute(2, 0, 1)[None, :, None] / 255
    mask = torch.full((1, 1, frames, *pixels.shape[-2:]), 255.0)
    mask[:, :, 0] = 0
    return pixels.expand(-1, -1, frames, -1, -1), mask


def masked(name: str = "prompt_attention_mask", tokens: int = 4) -> dict[str, torch.Tensor]:
    return {name: torch.ones(1, tokens), f"negative_{name}": torch.ones(1, tokens)}


TextCase = partial(Case, image=False, condition=False)
"""A pipeline without latents of an image, such as those of text to video."""
ONE_VIDEO = {"several": "", "generators": "list of generators of length 2"}
"""The `fails` of pipelines that make one video of a prompt."""
LTX2_UNGUIDED = {"guidance_scale": 1.0, "stg_scale": 0.0, "modality_scale": 1.0, "guidance_rescale": 0.0}
HUNYUAN_15_EMBEDDINGS = {
    f"prompt_embeds{mask}{encoder}": torch.ones(1, 4) if mask else torch.ones(1, 4, 8)
    for mask in ("", "_mask")
    for encoder in ("", "_2")
}
SANA_CALL = {
    "height": 32,
    "width": 32,
    "frames": 9,
    "use_resolution_binning": False,
    "prompt": None,
    "negative_prompt": None,
}

CASES: dict[str, Case] = {
    "StableVideoDiffusionPipeline": Case(
        build=stable_video_diffusion,
        call={**SMALL, "image": picture(), "max_guidance_scale": 2.0},
        unguided={"max_guidance_scale": 1.0},
        level={"sigma": 100.0},
        latents=(4, 3, 8, 8),
        encoded=3,
        image_each=True,
    ),
    "PicoPipeline": Case(
        build=random_pico,
        call={"image": picture(64), "num_frames": 3, "guidance_scale": 2.0},
        level={"sigma": 100.0},
        latents=(12, 3, 8, 8),
        encoded=3,
        image_each=True,
    ),
    "AnimateDiffPipeline": TextCase(
        build=animatediff,
        call={**SMALL, **embeddings(4, 8)},
        latents=(4, 3, 8, 8),
        encoded=3,
        schedulers={
            "Euler": lambda: diffusers.EulerDiscreteScheduler(timestep_spacing="linspace", beta_schedule="linear"),
            "DPM++": lambda: diffusers.DPMSolverMultistepScheduler(use_karras_sigmas=True),
            "UniPC": diffusers.UniPCMultistepScheduler,
        },
        fails=ONE_VIDEO,
    ),
    "AnimateDiff IP-Adapter": TextCase(
        build=animatediff_ip_adapter,
        call={**SMALL, "ip_adapter_image_embeds": [torch.ones(2, 1, 8)], **embeddings(4, 8)},
        unguided={"guidance_scale": 1.0, "ip_adapter_image_embeds": [torch.ones(1, 1, 8)]},
        latents=(4, 3, 8, 8),
        encoded=3,
        fails={**ONE_VIDEO, "saved": "without its IP-Adapter"},
    ),
    "AnimateDiffSparseControlNetPipeline": TextCase(
        build=animatediff_sparse_controlnet,
        call={**SMALL, "conditioning_frames": [picture()], **embeddings(4, 8)},
        latents=(4, 3, 8, 8),
        encoded=3,
        fails=ONE_VIDEO,
    ),
    "AnimateDiffControlNetPipeline": TextCase(
        build=animatediff_controlnet,
        call={**SMALL, "conditioning_frames": [picture()] * 3, **embeddings(4, 8)},
        latents=(4, 3, 8, 8),
        encoded=3,
        fails={**ONE_VIDEO, "batch": "must match the size"},
    ),
    "AnimateDiffPAGPipeline": TextCase(
        build=animatediff_pag,
        call={**SMALL, **embeddings(4, 8)},
        unguided={"guidance_scale": 1.0, "pag_scale": 0.0},
        latents=(4, 3, 8, 8),
        encoded=3,
        fails=ONE_VIDEO,
    ),
    "AnimateDiffSDXLPipeline": TextCase(
        build=animatediff_sdxl,
        call={**SMALL, **embeddings(4, 8, pooled=8)},
        latents=(4, 3, 8, 8),
        encoded=3,
        fails=ONE_VIDEO,
    ),
    "PIAPipeline": Case(
        build=pia,
        call={**SMALL, "image": picture(), **embeddings(4, 8)},
        latents=(4, 3, 8, 8),
        encoded=3,
        image_each=True,
        fails=ONE_VIDEO,
    ),
    "DynamiCrafterPipeline": Case(
        build=dynamicrafter,
        call={**SMALL, "image": picture(), **embeddings(4, 8)},
        latents=(4, 3, 8, 8),
        encoded=3,
        schedulers={"DDIM": lambda: diffusers.DDIMScheduler(**VP)},
        image_each=True,
    ),
    "VideoCrafterPipeline": TextCase(
        build=partial(dynamicrafter, channels=4),
        call={**SMALL, "image": picture(), **embeddings(4, 8)},
        latents=(4, 3, 8, 8),
        encoded=3,
        image_each=True,
    ),
    "LaViePipeline": TextCase(
        build=lavie,
        call={**SMALL, "prompt": None, **embeddings(4, 8)},
        latents=(4, 3, 8, 8),
        encoded=3,
        schedulers={"DDIM": lambda: diffusers.DDIMScheduler(**VP)},
    ),
    "I2VGenXLPipeline": Case(
        build=i2vgen_xl,
        call={**SMALL, "image": picture(), **embeddings(4, 8)},
        latents=(4, 3, 8, 8),
        encoded=3,
        image_each=True,
    ),
    "TextToVideoSDPipeline": TextCase(
        build=text_to_video_sd,
        call={**SMALL, **embeddings(4, 8)},
        latents=(4, 3, 8, 8),
        encoded=3,
        fails={name: "unexpected keyword argument" for name in ("several", "generators")},
    ),
    "CogVideoXImageToVideoPipeline": Case(
        build=cogvideox,
        call={"image": picture(), **LONG, "prompt": None, "max_sequence_length": 4, **embeddings(4, 8)},
        latents=(4, 3, 2, 2),
        encoded=9,
        schedulers={"DPM": lambda: _cogvideox_scheduler(diffusers.CogVideoXDPMScheduler)},
        image_each=True,
        fails=ONE_VIDEO,
    ),
    "ConsisIDPipeline": Case(
        build=consisid,
        call={
            "image": picture(),
            **LONG,
            "prompt": None,
            "max_sequence_length": 4,
            **embeddings(4, 8),
            "id_cond": torch.ones(1, 2),
            "id_vit_hidden": [torch.ones(1, 2, 2)],
        },
        latents=(4, 3, 2, 2),
        encoded=9,
        schedulers={"DPM": lambda: _cogvideox_scheduler(diffusers.CogVideoXDPMScheduler)},
        image_each=True,
        fails={**ONE_VIDEO, "batch": "Sizes of tensors must match"},
    ),
    "EasyAnimatePipeline": TextCase(
        build=easyanimate,
        call={
            **LONG,
            "prompt": None,
            **embeddings(4, 8),
            "prompt_attention_mask": torch.ones(1, 4, dtype=torch.long),
            "negative_prompt_attention_mask": torch.ones(1, 4, dtype=torch.long),
        },
        latents=(4, 3, 2, 2),
        encoded=9,
        several="num_images_per_prompt",
    ),
    "EasyAnimateInpaintPipeline": Case(
        build=partial(easyanimate, diffusers.EasyAnimateInpaintPipeline, channels=9, add_noise_in_inpaint_model=False),
        call={
            **LONG,
            "video": shown(9)[0],
            "mask_video": shown(9)[1],
            "prompt": None,
            **embeddings(4, 8),
            "prompt_attention_mask": torch.ones(1, 4, dtype=torch.long),
            "negative_prompt_attention_mask": torch.ones(1, 4, dtype=torch.long),
        },
        latents=(4, 3, 2, 2),
        encoded=9,
        several="num_images_per_prompt",
        fails={name: "Sizes of tensors must match" for name in ("several", "generators")},
    ),
    "WanImageToVideoPipeline": Case(
        build=wan,
        call={**LONG, "image": picture(), **embeddings(4, 8)},
        latents=(16, 3, 2, 2),
        encoded=9,
        schedulers={"FlowMatchEuler": lambda: diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)},
    ),
    "WanAnimatePipeline": Case(
        build=wan_animate,
        call={
            "height": 16,
            "width": 16,
            "image": picture(),
            "pose_video": [picture()] * 9,
            "face_video": [picture()] * 9,
            "segment_frame_length": 9,
            "guidance_scale": 2.0,
            **embeddings(4, 8),
        },
        latents=(16, 4, 2, 2),
        encoded=9,
        fails={name: "Sizes of tensors must match" for name in ("several", "generators")},
    ),
    "WanPipeline": TextCase(
        build=wan_text,
        call={**LONG, **embeddings(4, 8)},
        latents=(16, 3, 2, 2),
        encoded=9,
    ),
    "CogVideoXPipeline": TextCase(
        build=partial(cogvideox, diffusers.CogVideoXPipeline, channels=4),
        call={**LONG, "prompt": None, "max_sequence_length": 4, **embeddings(4, 8)},
        latents=(4, 3, 2, 2),
        encoded=9,
        fails=ONE_VIDEO,
    ),
    "CosmosVideoToWorldPipeline": Case(
        build=cosmos_1,
        call={**LONG, "image": picture(), **embeddings(4, 8)},
        unguided={"guidance_scale": 1.0},
        level={"sigma": 10.0},
        latents=(16, 3, 4, 4),
        encoded=9,
        condition=False,
        held=1,
        image_each=True,
        fails={"generators": "index 1 is out of bounds"},
    ),
    "Cosmos2VideoToWorldPipeline": Case(
        build=cosmos_2,
        call={**LONG, "image": picture(), **embeddings(4, 8)},
        unguided={"guidance_scale": 0.0},
        level={"sigma": 10.0},
        latents=(16, 3, 2, 2),
        encoded=9,
        held=1,
        image_each=True,
        fails={"generators": "index 1 is out of bounds"},
    ),
    "Cosmos2_5_PredictBasePipeline": Case(
        build=cosmos_25,
        call={**LONG, "video": [picture()], "num_latent_conditional_frames": 1, **embeddings(4, 8)},
        unguided={"guidance_scale": 0.0},
        latents=(16, 3, 2, 2),
        encoded=9,
        held=1,
        fails={"batch": "batch_size must be 1", "generators": "index 1 is out of bounds"},
    ),
    "Wan 2.2 A14B": Case(
        build=partial(wan, experts=2, boundary_ratio=0.875),
        call={**LONG, "image": picture(), **embeddings(4, 8)},
        latents=(16, 3, 2, 2),
        encoded=9,
    ),
    "Wan 2.2 5B": Case(
        build=partial(wan, channels=16, expand_timesteps=True),
        call={**LONG, "image": picture(), **embeddings(4, 8)},
        latents=(16, 3, 2, 2),
        encoded=9,
        held=1,
    ),
    "SkyReelsV2ImageToVideoPipeline": Case(
        build=skyreels,
        call={**LONG, "image": picture(), **embeddings(4, 8)},
        latents=(16, 3, 2, 2),
        encoded=9,
    ),
    "LTXImageToVideoPipeline": Case(
        build=partial(ltx, **LTX_LEVELS),
        call={**LARGE, "image": picture(32), **embeddings(4, 8), **masked()},
        latents=(8, 3, 8, 8),
        encoded=9,
        condition=False,
        held=1,
        image_each=True,
        repeats=False,
        fails={"generators": "index 1 is out of bounds"},
    ),
    "LTXPipeline": TextCase(
        build=partial(ltx, diffusers.LTXPipeline, **LTX_LEVELS),
        call={**LARGE, **embeddings(4, 8), **masked()},
        latents=(8, 3, 8, 8),
        encoded=9,
        repeats=False,
    ),
    "LTXConditionPipeline": Case(
        build=partial(ltx, diffusers.LTXConditionPipeline),
        call={**LARGE, "conditions": LTXVideoCondition(picture(32)), **embeddings(4, 8), **masked()},
        latents=(8, 3, 8, 8),
        encoded=9,
        condition=False,
        held=1,
        repeats=False,
    ),
    "MochiPipeline": TextCase(
        build=mochi,
        call={"height": 32, "width": 32, "num_frames": 13, **embeddings(4, 8), **masked()},
        latents=(12, 3, 4, 4),
        encoded=13,
        repeats=False,
    ),
    "LTX2Pipeline": TextCase(
        build=partial(ltx2, diffusers.LTX2Pipeline),
        call={**LARGE, **embeddings(4, 8), **masked()},
        unguided=LTX2_UNGUIDED,
        latents=(4, 5, 16, 16),
        encoded=9,
        repeats=False,
    ),
    "LTX2ImageToVideoPipeline": Case(
        build=ltx2,
        call={**LARGE, "image": picture(32), "image_crf": 0, **embeddings(4, 8), **masked()},
        unguided=LTX2_UNGUIDED,
        latents=(4, 5, 16, 16),
        encoded=9,
        condition=False,
        held=1,
        image_each=True,
        repeats=False,
        fails={"generators": "index 1 is out of bounds"},
    ),
    "LTX2ConditionPipeline": Case(
        build=partial(ltx2, diffusers.LTX2ConditionPipeline),
        call={**LARGE, "conditions": LTX2VideoCondition(picture(32), crf=0), **embeddings(4, 8), **masked()},
        unguided=LTX2_UNGUIDED,
        latents=(4, 5, 16, 16),
        encoded=9,
        condition=False,
        held=1,
        repeats=False,
    ),
    "AllegroPipeline": TextCase(
        build=allegro,
        call={
            "height": 16,
            "width": 16,
            "num_frames": 24,
            "prompt": None,
            "negative_prompt": None,
            **embeddings(4, 8),
            **masked(),
        },
        level={"sigma": 20.0},
        latents=(4, 6, 2, 2),
        encoded=24,
        fails=ONE_VIDEO,
    ),
    "SanaImageToVideoPipeline": Case(
        build=sana_video,
        call={**SANA_CALL, "image": picture(32), **embeddings(4, 8), **masked()},
        latents=(16, 3, 4, 4),
        encoded=9,
        condition=False,
        held=1,
        fails={name: "must match the size" for name in ("several", "generators")},
    ),
    "HunyuanVideo15ImageToVideoPipeline": Case(
        build=hunyuan_video_15,
        call={"num_frames": 5, "image": picture(), **HUNYUAN_15_EMBEDDINGS},
        unguided={},
        latents=(4, 3, 4, 4),
        encoded=5,
    ),
    "HunyuanVideo15Pipeline": TextCase(
        build=hunyuan_video_15_text,
        call={"height": 16, "width": 16, "num_frames": 5, **HUNYUAN_15_EMBEDDINGS},
        unguided={},
        latents=(4, 3, 4, 4),
        encoded=5,
        fails={name: "is invalid for input of size" for name in ("several", "generators")},
    ),
    "HunyuanVideoPipeline": TextCase(
        build=partial(_hunyuan_video, diffusers.HunyuanVideoPipeline, 4),
        call={**LONG, **hunyuan_embeddings()},
        latents=(4, 3, 2, 2),
        encoded=9,
    ),
    "HunyuanVideoFramepackPipeline": Case(
        build=framepack,
        call={**LONG, "image": picture(), "latent_window_size": 3, **hunyuan_embeddings()},
        unguided={},
        latents=(4, 3, 2, 2),
        encoded=9,
        fails={**ONE_VIDEO, "batch": "Sizes of tensors must match"},
    ),
    "HunyuanSkyreelsImageToVideoPipeline": Case(
        build=partial(_hunyuan_video, diffusers.HunyuanSkyreelsImageToVideoPipeline, 8),
        call={**LONG, "image": picture(), **hunyuan_embeddings(), "true_cfg_scale": 1.0},
        latents=(4, 3, 2, 2),
        encoded=9,
        image_each=True,
        fails={"several": "Sizes of tensors must match", "generators": "out of"},
    ),
    "SkyReelsV2Pipeline": TextCase(
        build=partial(wan_text, diffusers.SkyReelsV2Pipeline, diffusers.SkyReelsV2Transformer3DModel),
        call={**LONG, **embeddings(4, 8)},
        latents=(16, 3, 2, 2),
        encoded=9,
    ),
    "WanVACEPipeline": TextCase(
        build=partial(
            wan_text,
            diffusers.WanVACEPipeline,
            diffusers.WanVACETransformer3DModel,
            vace_layers=[0],
            vace_in_channels=96,
        ),
        call={**LONG, **embeddings(4, 8)},
        latents=(16, 3, 2, 2),
        encoded=9,
        fails={
            "batch": "list of generators is not yet supported",
            "several": "multiple videos per prompt is not yet supported",
            "generators": "multiple videos per prompt is not yet supported",
        },
    ),
    "SanaVideoPipeline": TextCase(
        build=partial(sana_video, diffusers.SanaVideoPipeline),
        call={**SANA_CALL, **embeddings(4, 8), **masked()},
        latents=(16, 3, 4, 4),
        encoded=9,
    ),
    "CosmosTextToWorldPipeline": TextCase(
        build=partial(cosmos_1, diffusers.CosmosTextToWorldPipeline, channels=16),
        call={**LONG, **embeddings(4, 8)},
        level={"sigma": 10.0},
        latents=(16, 3, 4, 4),
        encoded=9,
    ),
    "LattePipeline": TextCase(
        build=latte,
        call={
            "height": 16,
            "width": 16,
            "video_length": 3,
            "prompt": None,
            "negative_prompt": None,
            **embeddings(4, 8),
        },
        latents=(4, 3, 8, 8),
        encoded=3,
        fails={name: "unexpected keyword argument" for name in ("several", "generators")},
    ),
    "MotifVideoImage2VideoPipeline": Case(
        build=partial(motif, diffusers.MotifVideoImage2VideoPipeline),
        call={**LONG, "prompt": None, "image": picture(), **embeddings(4, 8), **masked()},
        unguided={},
        latents=(16, 3, 2, 2),
        encoded=9,
        fails={name: "Sizes of tensors must match" for name in ("batch", "several", "generators")},
    ),
    "MotifVideoPipeline": TextCase(
        build=partial(motif, diffusers.MotifVideoPipeline),
        call={**LONG, "prompt": None, **embeddings(4, 8), **masked()},
        unguided={},
        latents=(16, 3, 2, 2),
        encoded=9,
    ),
    "Kandinsky5T2VPipeline": TextCase(
        build=partial(kandinsky, diffusers.Kandinsky5T2VPipeline),
        call={**LONG, **kandinsky_embeddings(), "guidance_scale": 1.0},
        fails={"bfloat16": "must have the same dtype"},
        latents=(4, 3, 2, 2),
        encoded=9,
    ),
    "Kandinsky5I2VPipeline": Case(
        build=partial(kandinsky, diffusers.Kandinsky5I2VPipeline),
        call={**LONG, "num_frames": 21, "image": picture(), **kandinsky_embeddings(), "guidance_scale": 1.0},
        fails={"bfloat16": "must have the same dtype"},
        latents=(4, 6, 2, 2),
        encoded=21,
        condition=False,
        held=1,
        image_each=True,
    ),
    "HunyuanVideo latent_concat": Case(
        build=partial(hunyuan_video, "latent_concat"),
        call={**LONG, "image": picture(), **hunyuan_embeddings()},
        latents=(4, 3, 2, 2),
        encoded=9,
        image_each=True,
        fails={"several": "Sizes of tensors must match", "generators": "index 1 is out of bounds"},
    ),
    "HunyuanVideo token_replace": Case(
        build=partial(hunyuan_video, "token_replace"),
        call={**LONG, "image": picture(), **hunyuan_embeddings()},
        latents=(4, 3, 2, 2),
        encoded=9,
        held=1,
        image_each=True,
        fails={"several": "Sizes of tensors must match", "generators": "index 1 is out of bounds"},
    ),
}


@cache
def pipeline(name: str) -> Any:
    """The pipeline of a row, built once; a test leaves it as it found it."""
    return _made(CASES[name].build)
