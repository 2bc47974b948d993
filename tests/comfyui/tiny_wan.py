"""A tiny Wan 2.2 image-to-video network with random weights, as diffusers has it and in ComfyUI's layout."""

import re

import torch
from diffusers import WanTransformer3DModel


# Of a key in diffusers, the same in the layout of the original code, which ComfyUI loads.
KEYS = (
    (r"^condition_embedder\.text_embedder\.linear_1\.", "text_embedding.0."),
    (r"^condition_embedder\.text_embedder\.linear_2\.", "text_embedding.2."),
    (r"^condition_embedder\.time_embedder\.linear_1\.", "time_embedding.0."),
    (r"^condition_embedder\.time_embedder\.linear_2\.", "time_embedding.2."),
    (r"^condition_embedder\.time_proj\.", "time_projection.1."),
    (r"^scale_shift_table$", "head.modulation"),
    (r"^proj_out\.", "head.head."),
    (r"\.attn1\.", ".self_attn."),
    (r"\.attn2\.", ".cross_attn."),
    (r"\.to_out\.0\.", ".o."),
    (r"\.to_([qkv])\.", r".\1."),
    (r"\.ffn\.net\.0\.proj\.", ".ffn.0."),
    (r"\.ffn\.net\.2\.", ".ffn.2."),
    (r"\.norm2\.", ".norm3."),
    (r"\.scale_shift_table$", ".modulation"),
)


def tiny_wan(seed: int = 0) -> WanTransformer3DModel:
    """12 MB in float32; ComfyUI infers the number of heads from the width, 128 for each."""
    torch.manual_seed(seed)
    network = WanTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=1, attention_head_dim=128, in_channels=36, out_channels=16,
        text_dim=4096, freq_dim=256, ffn_dim=256, num_layers=2, cross_attn_norm=True, image_dim=None,
    ).eval()  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():  # also those that begin at zero, so that nothing is left out
        parameter.data += 0.02 * torch.randn(parameter.shape, generator=generator)
    return network


def comfyui_layout(network: WanTransformer3DModel) -> dict[str, torch.Tensor]:
    renamed = {}
    for key, value in network.state_dict().items():
        for pattern, new in KEYS:
            key = re.sub(pattern, new, key)
        renamed[key] = value.contiguous().clone()
    return renamed
