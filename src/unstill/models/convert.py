"""Converts released checkpoints of the papers' models to diffusers pipelines."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDPMScheduler, DiffusionPipeline
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer, CLIPVisionModel

from unstill.errors import UnstillError
from unstill.models.checkpoint import CheckpointError, identify, load_weights, read_checkpoint
from unstill.models.dynamicrafter import (
    DynamiCrafterPipeline,
    DynamiCrafterScheduler,
    DynamiCrafterUNet,
    ImageResampler,
    VideoCrafterPipeline,
)
from unstill.models.lavie import LaViePipeline, LaVieUNet
from unstill.models.saving import check_new, save_pipeline
from unstill.models.state_dict_keys import Rename, State, dynamicrafter_unet, openclip, stable_diffusion_vae, unchanged


Config = dict[str, Any]

TOKENIZER = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
STABLE_DIFFUSION = "CompVis/stable-diffusion-v1-4"


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One network in a checkpoint: the prefix of its keys, its class and configuration, how its keys are renamed."""

    prefix: str
    network: type[Any]
    config: Config
    rename: Rename = unchanged

    def on_meta(self) -> nn.Module:
        """The network on the meta device, without weights."""
        with torch.device("meta"):
            if config_class := getattr(self.network, "config_class", None):
                module: nn.Module = self.network(config_class(**self.config))
            else:
                module = self.network(**self.config)
        for layer in module.modules():
            places = getattr(layer, "position_ids", None)
            if isinstance(places, Tensor):  # computed, so in no checkpoint
                layer.position_ids = torch.arange(places.shape[-1])[None]
        return module


@dataclass(frozen=True, kw_only=True, slots=True)
class Release:
    """
    A kind of released checkpoint.

    Attributes:
        pipeline, scheduler: their classes, with the scheduler's configuration.
        parts: the networks in the file, by the name of the pipeline's component.
        ignored: prefixes of keys that are not needed: schedules, and the projections that CLIP compares.
        base: hub id or folder of the components that are not in the file.
        base_parts: their classes and options; optional components are `None` if they cannot be loaded.
    """

    pipeline: type[DiffusionPipeline]
    scheduler: tuple[type[Any], Config]
    parts: Mapping[str, Part]
    base: str
    base_parts: Mapping[str, tuple[type[Any], Config]]
    ignored: tuple[str, ...] = ()


VAE: Config = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "sample_size": 512,
}
TEXT: Config = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 23,  # of 24: the last one is not used
    "num_attention_heads": 16,
    "hidden_act": "gelu",
    "projection_dim": 1024,
    "pad_token_id": 0,
}
VISION: Config = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 16,
    "patch_size": 14,
    "hidden_act": "gelu",
    "projection_dim": 1024,
}


def crafter(
    pipeline: type[DiffusionPipeline],
    unet: Config,
    scheduler: Config,
    *,
    projector: Config | None = None,
    vae: Config = VAE,
    text: Config = TEXT,
    vision: Config = VISION,
) -> Release:
    """The layout that DynamiCrafter and VideoCrafter1 share."""
    return Release(
        pipeline=pipeline,
        scheduler=(DynamiCrafterScheduler, scheduler),
        parts={
            "unet": Part(
                prefix="model.diffusion_model.", network=DynamiCrafterUNet, config=unet, rename=dynamicrafter_unet
            ),
            "image_projector": Part(prefix="image_proj_model.", network=ImageResampler, config=projector or {}),
            "vae": Part(prefix="first_stage_model.", network=AutoencoderKL, config=vae, rename=stable_diffusion_vae),
            "text_encoder": Part(
                prefix="cond_stage_model.model.",
                network=CLIPTextModel,
                config=text,
                rename=openclip(text["num_hidden_layers"]),
            ),
            "image_encoder": Part(
                prefix="embedder.model.visual.",
                network=CLIPVisionModel,
                config=vision,
                rename=openclip(vision["num_hidden_layers"]),
            ),
        },
        base=TOKENIZER,
        base_parts={"tokenizer": (CLIPTokenizer, {"pad_token": "!"})},  # token 0, with which OpenCLIP pads
        ignored=(
            *("betas", "alphas_", "sqrt_", "log_one_minus_", "posterior_", "scale_arr", "logvar", "model_ema."),
            *("cond_stage_model.model.text_projection", "cond_stage_model.model.logit_scale"),
            *(f"embedder.model.{name}" for name in ("positional_embedding", "text_projection", "logit_scale")),
            *(f"embedder.model.{name}" for name in ("token_embedding.", "ln_final.", "transformer.", "visual.proj")),
            *(f"{tower}.model.attn_mask" for tower in ("cond_stage_model", "embedder")),
            *("cond_stage_model.model.visual.", "first_stage_model.loss."),
        ),
    )


_PLAIN: Config = {
    "prediction_type": "epsilon",
    "rescale_betas_zero_snr": False,
    "timestep_spacing": "leading",
    "steps_offset": 1,
}
RELEASES: dict[str, Release] = {
    "dynamicrafter-256": crafter(
        DynamiCrafterPipeline,
        {"sample_size": (32, 32), "default_fps": 3, "gated_image": True},
        _PLAIN | {"rescale": 1.0},
    ),
    "dynamicrafter-512": crafter(DynamiCrafterPipeline, {}, {}),
    "dynamicrafter-1024": crafter(
        DynamiCrafterPipeline, {"sample_size": (72, 128), "default_fps": 10}, {"rescale": 0.3}
    ),
    "videocrafter-512": crafter(
        VideoCrafterPipeline,
        {"in_channels": 4, "default_fps": 16},
        _PLAIN | {"rescale_last": True},
        projector={"frames": 1},
    ),
    "lavie": Release(
        pipeline=LaViePipeline,
        scheduler=(DDPMScheduler, {"clip_sample": False}),
        parts={
            "unet": Part(
                prefix="",
                network=LaVieUNet,
                config={"cross_attention_dim": 768, "sample_size": (40, 64)},
            )
        },
        base=STABLE_DIFFUSION,
        base_parts={"vae": (AutoencoderKL, {}), "text_encoder": (CLIPTextModel, {}), "tokenizer": (CLIPTokenizer, {})},
    ),
}


def load_checkpoint(
    path: str | os.PathLike[str],
    release: Release | str | None = None,
    *,
    base: str | os.PathLike[str] | None = None,
    dtype: torch.dtype | None = None,
) -> DiffusionPipeline:
    """
    The pipeline of a released checkpoint, or of one fine-tuned from it, on the CPU.

    Args:
        path: the file.
        release: a name of `RELEASES`; by default identified from the file.
        base: hub id or diffusers folder of the components that are not in the file: for DynamiCrafter and
            VideoCrafter1 the tokenizer (without it only the empty prompt works), for LaVie all of Stable Diffusion 1.4
            except its U-Net.
        dtype: of the weights; by default the file's, which are then memory-mapped.

    Raises:
        UnstillError: a file that cannot be read, or whose weights do not fit (`CheckpointError`, with all keys).
    """
    state = read_checkpoint(path)
    if isinstance(state, list):
        raise UnstillError(f"{path} holds averaged weights without names; load its model first, then `load_denoiser`.")
    identified, description = identify(state)
    name = release if isinstance(release, str) else identified
    if release is None and name not in RELEASES:
        raise UnstillError(
            f"{path} looks like {description}; say which model it is: {', '.join(RELEASES)}."
            if description.startswith("DynamiCrafter")
            else f"{path} looks like {description}, which is not among {', '.join(RELEASES)}."
        )
    if isinstance(release, str) and release not in RELEASES:
        raise UnstillError(f"There is no released layout {release!r}; known: {', '.join(RELEASES)}.")
    layout = release if isinstance(release, Release) else RELEASES[name or ""]

    modules = {name: part.on_meta() for name, part in layout.parts.items()}
    parts, unknown = _split(state, layout)
    load_weights(modules, parts, unknown, f"{path} does not fit {name}; it looks like {description}")
    if isinstance(release, str) and identified not in (None, release):  # 512 and 1024 have the same keys and shapes
        raise UnstillError(
            f"{path} looks like {description}, so it is not {release}; leave the model out, or say {identified}."
        )
    scheduler_class, config = layout.scheduler
    pipe = layout.pipeline(**_with_base(modules, layout, base), scheduler=scheduler_class(**config))
    return pipe if dtype is None else pipe.to(dtype)


def _split(state: State, layout: Release) -> tuple[dict[str, State], list[str]]:
    """The state of every part, in the names of its network, and the keys that belong to none."""
    parts: dict[str, State] = {name: {} for name in layout.parts}
    unknown = []
    for key, value in state.items():
        if key.startswith(layout.ignored):
            continue
        owner = next((name for name, part in layout.parts.items() if key.startswith(part.prefix)), None)
        if owner is None:
            unknown.append(key)
        else:
            parts[owner][key.removeprefix(layout.parts[owner].prefix)] = value
    return {name: part.rename(parts[name]) for name, part in layout.parts.items()}, unknown


def _with_base(
    modules: Mapping[str, nn.Module], layout: Release, base: str | os.PathLike[str] | None
) -> dict[str, Any]:
    """The components of the pipeline: those in the file, and those from the base."""
    components: dict[str, Any] = dict(modules)
    source = str(base or layout.base)
    for name, (cls, options) in layout.base_parts.items():
        inside = len(layout.base_parts) > 1 or (Path(source) / name).is_dir()
        try:
            loaded = cls.from_pretrained(source, **options, **({"subfolder": name} if inside else {}))
            # Without files transformers creates a tokenizer with an empty vocabulary.
            if name == "tokenizer" and len(loaded) != components["text_encoder"].config.vocab_size:
                raise ValueError(f"a vocabulary of {len(loaded)}")
            components[name] = loaded
        except (OSError, ValueError) as error:
            if base is None and name in layout.pipeline._optional_components and not inside:
                components[name] = None
                continue
            raise UnstillError(
                f"The {name} could not be loaded from {source}, neither from a folder nor from the Hugging Face hub "
                "or its cache; give a folder that has it as base (--base)."
            ) from error
    return components


def load_denoiser(pipe: Any, path: str | os.PathLike[str]) -> None:
    """
    Loads a checkpoint in the denoiser's own layout into a pipeline: the fine-tuned Stable Video Diffusion of
    Conditional Image Leakage, with or without `module.` before its keys, or the averages that `EMAModel` saves.

    Raises:
        CheckpointError: keys or shapes differ.
    """
    part = "transformer" if getattr(pipe, "transformer", None) is not None else "unet"
    network, state = getattr(pipe, part), read_checkpoint(path)
    if isinstance(state, list):
        names = [name for name, _ in network.named_parameters()]
        if len(names) != len(state):
            raise CheckpointError(
                f"{path} holds {len(state)} averaged weights, but {type(network).__name__} has {len(names)}.",
                names[len(state) :],
                [str(i) for i in range(len(names), len(state))],
                [],
            )
        state = dict(network.state_dict()) | dict(zip(names, state, strict=True))
    dtype, device = network.dtype, network.device
    load_weights(
        {part: network},
        {part: state},
        [],
        f"{path} is not a checkpoint of this {type(network).__name__}; it looks like {identify(state)[1]}",
    )
    network.to(device, dtype)


def convert(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    release: Release | str | None = None,
    *,
    base: str | os.PathLike[str] | None = None,
    dtype: torch.dtype | None = None,
) -> Path:
    """
    Writes the pipeline of a released checkpoint as a diffusers folder.

    Weights are copied one component at a time. With another `dtype` than the file's, all are in memory at once.

    Args:
        out: a folder that does not exist, or is empty.

    Raises:
        UnstillError: as `load_checkpoint`; a folder that is not empty.
    """
    check_new(out)
    return save_pipeline(load_checkpoint(path, release, base=base, dtype=dtype), Path(out))
