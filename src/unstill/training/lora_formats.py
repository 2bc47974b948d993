"""LoRA files with the key names of ComfyUI and of kohya's trainers (sd-scripts, musubi-tuner)."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor

from unstill.data.files import replacing
from unstill.data.ownership import check_name
from unstill.errors import UnstillError
from unstill.training.lora import read_lora


Style = Literal["comfyui", "kohya"]
SUFFIXES: dict[Style, tuple[str, str]] = {"comfyui": ("lora_A", "lora_B"), "kohya": ("lora_down", "lora_up")}
_KEY = re.compile(r"(.+)\.lora_([AB])\.weight")

_WAN_LAYERS = {
    "attn1.to_q": "self_attn.q",
    "attn1.to_k": "self_attn.k",
    "attn1.to_v": "self_attn.v",
    "attn1.to_out.0": "self_attn.o",
    "attn2.to_q": "cross_attn.q",
    "attn2.to_k": "cross_attn.k",
    "attn2.to_v": "cross_attn.v",
    "attn2.to_out.0": "cross_attn.o",
    "attn2.add_k_proj": "cross_attn.k_img",
    "attn2.add_v_proj": "cross_attn.v_img",
    "ffn.net.0.proj": "ffn.0",
    "ffn.net.2": "ffn.2",
}


def convert_lora(source: str | Path, out: str | Path, style: Style) -> list[str]:
    """
    Writes a LoRA in diffusers' format, such as the `lora.safetensors` of a run, under other key names.

    ComfyUI: `diffusion_model.LAYER.lora_A.weight`; kohya: `lora_unet_LAYER.lora_down.weight`, with underscores for the
    dots of LAYER; both with `.alpha`. LAYER is the layer's name in the model's original implementation. A and B are
    copied unchanged.

    Args:
        source: the LoRA, of Wan or Stable Video Diffusion.
        out: the safetensors file to write; it must not exist.
        style: "comfyui" or "kohya".

    Returns:
        The names of the layers, as in `out`.

    Raises:
        UnstillError: `out` exists, `source` cannot be read, or a layer has no name in the original implementation.
    """
    source, out = Path(source), Path(out)
    _check_new(out)
    weights, arguments = read_lora(source)
    pairs = _pairs(source, weights)
    names = {layer: original_name(layer) for layer in pairs}
    if any(layer.startswith("unet.") for layer in pairs) and not any(".temporal_transformer_" in p for p in pairs):
        raise UnstillError(
            f"{source} cannot be converted: it is of a U-Net, but has no temporal attention layers as those of Stable "
            "Video Diffusion, and no key names of other U-Nets are known here; load it with diffusers."
        )
    if unknown := next((layer for layer, name in names.items() if name is None), None):
        raise UnstillError(
            f"{source} cannot be converted: its layer {unknown} is not an attention or feed-forward layer of Wan or "
            "an attention block of Stable Video Diffusion, and no key names of other models are known here; load it "
            "with diffusers."
        )
    down, up = SUFFIXES[style]
    converted, layers = {}, []
    for layer, (a, b) in pairs.items():
        name = f"diffusion_model.{names[layer]}"
        if style == "kohya":
            name = f"lora_unet_{names[layer]}".replace(".", "_")
        converted[f"{name}.{down}.weight"] = a
        converted[f"{name}.{up}.weight"] = b
        converted[f"{name}.alpha"] = torch.tensor(_alpha(source, layer, a.shape[0], arguments))
        layers.append(name)
    with replacing(out) as part:
        save_file(converted, part, {"format": "pt"})
        _check_new(out)  # again: another program may have written there in the meantime
    return layers


def original_name(layer: str) -> str | None:
    """
    The name of a layer in the model's original implementation.

    Args:
        layer: its name in a diffusers pipeline, from the component on: `transformer.blocks.0.attn1.to_q`.

    Returns:
        Its name, `blocks.0.self_attn.q`; `None` for a layer that is not known.
    """
    if wan := re.fullmatch(r"transformer\.blocks\.(\d+)\.(.+)", layer):
        name = _WAN_LAYERS.get(wan[2])
        return None if name is None else f"blocks.{wan[1]}.{name}"
    svd = re.fullmatch(r"unet\.(?:(down|up)_blocks\.(\d+)|mid_block)\.attentions\.(\d+)\.(.+)", layer)
    if svd is None:
        return None
    side, level, block, rest = svd.groups()
    if rest.startswith("temporal_transformer_blocks."):
        rest = rest.replace("temporal_transformer_blocks.", "time_stack.", 1)
    elif not rest.startswith(("transformer_blocks.", "proj_")):
        return None
    # A level is two blocks and a downsampling going down, and three blocks going up; input block 0 is a convolution.
    if side is None:
        return f"middle_block.1.{rest}"
    if side == "down":
        return f"input_blocks.{3 * int(level) + int(block) + 1}.1.{rest}"
    return f"output_blocks.{3 * int(level) + int(block)}.1.{rest}"


def _pairs(source: Path, weights: dict[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """(A, B) of every layer."""
    found: dict[str, dict[str, Tensor]] = {}
    for key, value in weights.items():
        match = _KEY.fullmatch(key)
        if match is None:
            raise UnstillError(f"{source} is not a plain LoRA in diffusers' format: it has the key {key}.")
        found.setdefault(match[1], {})[match[2]] = value
    for layer, pair in found.items():
        if len(pair) < 2 or pair["A"].ndim != 2 or pair["B"].ndim != 2 or len(pair["A"]) != pair["B"].shape[1]:
            raise UnstillError(f"{source} is damaged: A and B of {layer} do not fit together; write it again.")
    return {layer: (pair["A"], pair["B"]) for layer, pair in found.items()}


def _alpha(source: Path, layer: str, rank: int, arguments: dict[str, Any]) -> float:
    """Of peft's arguments; the rank where the file has none, as diffusers reads it."""
    component = layer.partition(".")[0]
    for name in ("alpha_pattern", "rank_pattern", "use_rslora", "use_dora"):
        if arguments.get(f"{component}.{name}"):
            raise UnstillError(
                f"{source} was trained with peft's {name}, which these key names have no place for; merge "
                "it into the model instead."
            )
    return float(arguments.get(f"{component}.lora_alpha", rank))


def _check_new(out: Path) -> None:
    check_name(out, "the file")
    if os.path.lexists(out):
        raise UnstillError(f"{out} exists already; give a new file.")
    if out.suffix != ".safetensors":
        raise UnstillError(f"{out}: a converted LoRA is a .safetensors file; name it so.")
