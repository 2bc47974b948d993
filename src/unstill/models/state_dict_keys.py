"""Renames the keys of released checkpoints to those of diffusers and transformers; maps state dict to state dict."""

import re
from collections.abc import Callable

from torch import Tensor


State = dict[str, Tensor]
Rename = Callable[[State], State]

_VAE = (
    (r"\.(up|down)\.(\d+)\.block\.(\d+)\.", r".\1_blocks.\2.resnets.\3."),
    (r"\.(up|down)\.(\d+)\.(up|down)sample\.", r".\1_blocks.\2.\3samplers.0."),
    (r"\.mid\.block_1\.", ".mid_block.resnets.0."),
    (r"\.mid\.block_2\.", ".mid_block.resnets.1."),
    (r"\.mid\.attn_1\.norm\.", ".mid_block.attentions.0.group_norm."),
    (r"\.mid\.attn_1\.proj_out\.", ".mid_block.attentions.0.to_out.0."),
    (r"\.mid\.attn_1\.([qkv])\.", r".mid_block.attentions.0.to_\1."),
    (r"\.nin_shortcut\.", ".conv_shortcut."),
    (r"\.norm_out\.", ".conv_norm_out."),
)
_CLIP_LAYER = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_CLIP = {
    "token_embedding.weight": "embeddings.token_embedding.weight",
    "positional_embedding": "embeddings.position_embedding.weight",
    "class_embedding": "embeddings.class_embedding",
    "conv1.weight": "embeddings.patch_embedding.weight",
    "ln_pre.weight": "pre_layrnorm.weight",
    "ln_pre.bias": "pre_layrnorm.bias",
    "ln_post.weight": "post_layernorm.weight",
    "ln_post.bias": "post_layernorm.bias",
    "ln_final.weight": "final_layer_norm.weight",
    "ln_final.bias": "final_layer_norm.bias",
}


def unchanged(state: State) -> State:
    """For checkpoints that already have the names of the network."""
    return state


def dynamicrafter_unet(state: State) -> State:
    """The 256 model has another name for its frame stride."""
    return {key.replace("framestride_embed", "fps_embedding"): value for key, value in state.items()}


def stable_diffusion_vae(state: State) -> State:
    """Latent diffusion's autoencoder to `AutoencoderKL`, which counts the levels of its decoder from the coarsest."""
    levels = 1 + max((int(match[1]) for key in state if (match := re.search(r"\.up\.(\d+)\.", key))), default=0)
    renamed = {}
    for key, value in state.items():
        for pattern, name in _VAE:
            key = re.sub(pattern, name, key)
        key = re.sub(r"\.up_blocks\.(\d+)", lambda m: f".up_blocks.{levels - 1 - int(m[1])}", key)
        if ".attentions." in key and value.ndim == 4 and value.shape[2:] == (1, 1):
            value = value[:, :, 0, 0]  # a convolution of one
        renamed[key] = value
    return renamed


def openclip(layers: int) -> Rename:
    """
    An encoder of OpenCLIP to that of transformers, which splits the projection of attention in three.

    Args:
        layers: number of layers that are kept; text features are those of the last but one, normalised.
    """

    def rename(state: State) -> State:
        renamed = {}
        for key, value in state.items():
            layer = re.fullmatch(r"transformer\.resblocks\.(\d+)\.(.+?)[._](weight|bias)", key)
            if layer is None:
                renamed[_CLIP.get(key, key)] = value
                continue
            index, name, kind = layer.groups()
            prefix = f"encoder.layers.{index}."
            if int(index) >= layers:
                continue
            if name == "attn.in_proj" and value.ndim and value.shape[0] % 3 == 0:
                for letter, part in zip("qkv", value.chunk(3), strict=True):
                    renamed[f"{prefix}self_attn.{letter}_proj.{kind}"] = part.clone()
            else:
                renamed[f"{prefix}{_CLIP_LAYER.get(name, name)}.{kind}"] = value
        return renamed

    return rename
