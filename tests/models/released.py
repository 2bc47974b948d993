"""Tiny checkpoints in the released layouts, made from the lists of released keys."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.models.weights import DC_TINY, LAVIE_TINY, VC_TINY, golden_weights, released
from unstill.models.convert import STABLE_DIFFUSION, Part, Release, crafter
from unstill.models.dynamicrafter import DynamiCrafterPipeline, VideoCrafterPipeline
from unstill.models.lavie import LaViePipeline, LaVieUNet


SMALLER = {
    "first_stage_model.": {128: 8, 256: 16, 512: 32},
    "cond_stage_model.": {1024: 24, 3072: 72, 4096: 48, 49408: 64},
    "embedder.model.visual.": {1280: 40, 3840: 120, 5120: 80, 1024: 24, 257: 5},
    "embedder.": {1024: 24, 49408: 64, 3072: 72, 4096: 48},
}
VAE: dict[str, Any] = {
    "block_out_channels": (8, 16, 32, 32),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "norm_num_groups": 8,
}
TEXT: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 24,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "hidden_act": "gelu",
    "bos_token_id": 62,
    "eos_token_id": 63,
    "pad_token_id": 0,
}
VISION: dict[str, Any] = {
    "hidden_size": 40,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "hidden_act": "gelu",
    "image_size": 28,
    "patch_size": 14,
}
PROJECTOR: dict[str, Any] = {"embedding_dim": 40, "dim": 32, "depth": 2, "heads": 3, "head_dim": 16, "output_dim": 24}
EPSILON = {
    "prediction_type": "epsilon",
    "rescale_betas_zero_snr": False,
    "timestep_spacing": "leading",
    "steps_offset": 1,
}


def tiny_release(*, video_crafter: bool = False) -> Release:
    parts = {"vae": VAE, "text": TEXT, "vision": VISION}
    if video_crafter:
        scheduler = EPSILON | {"rescale_last": True}
        return crafter(VideoCrafterPipeline, VC_TINY, scheduler, projector=PROJECTOR | {"frames": 1}, **parts)
    return crafter(DynamiCrafterPipeline, DC_TINY, {}, projector=PROJECTOR | {"frames": 4}, **parts)


def tiny_lavie() -> Release:
    from unstill.models.convert import RELEASES

    full = RELEASES["lavie"]
    part = Part(prefix="", network=LaVieUNet, config=LAVIE_TINY)
    return Release(
        pipeline=LaViePipeline,
        scheduler=full.scheduler,
        parts={"unet": part},
        base=STABLE_DIFFUSION,
        base_parts=full.base_parts,
    )


def tiny_checkpoint(*, video_crafter: bool = False) -> dict[str, Tensor]:
    """
    What a released file holds, with everything smaller: 3 layers of each tower of CLIP, all of the autoencoder's
    layers with fewer channels, the golden tiny U-Net and resampler.
    """
    layout: dict[str, list[int]] = {}
    for key, shape in released("statedict_vc512_full" if video_crafter else "statedict_dc512_full").items():
        smaller = next((sizes for prefix, sizes in SMALLER.items() if key.startswith(prefix)), None)
        if key.startswith(("model.", "image_proj_model.")) or _layer(key) >= 3:
            continue
        layout[key] = shape if smaller is None else [smaller.get(size, size) for size in shape]
    state = golden_weights(layout, 5)
    for name, config in tiny_release(video_crafter=video_crafter).parts.items():
        if name in ("unet", "image_projector"):
            seed = {"unet": (1234, 4321), "image_projector": (99, 98)}[name][video_crafter]
            shapes = {key: list(value.shape) for key, value in config.on_meta().state_dict().items()}
            state |= {config.prefix + key: value for key, value in golden_weights(shapes, seed).items()}
    state["scale_arr"] = torch.cat([torch.linspace(1, 0.7, 400), torch.full((1000,), 0.7)])
    return state


def _layer(key: str) -> int:
    parts = key.split(".")
    return int(parts[parts.index("resblocks") + 1]) if "resblocks" in parts else 0


def tokenizer_folder(folder: Path, *, size: int = 64) -> Path:
    """A CLIP tokenizer that knows the letters."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    tokens = ["!", *letters, *(f"{letter}</w>" for letter in letters)]
    tokens += [f"unused{i}" for i in range(size - 2 - len(tokens))] + ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "CLIPTokenizer",
                "bos_token": "<|startoftext|>",
                "eos_token": "<|endoftext|>",
                "unk_token": "<|endoftext|>",
                "pad_token": "!",
                "model_max_length": 77,
            }
        )
    )
    return folder
