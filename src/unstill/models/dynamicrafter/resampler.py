"""Maps the tokens of an image encoder to those of DynamiCrafter's U-Net."""

from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention


class PerceiverAttention(nn.Module):
    """Queries from the latents, keys and values from the image's tokens and the latents."""

    def __init__(self, dim: int, heads: int, head_dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.to_q = nn.Linear(dim, heads * head_dim, bias=False)
        self.to_kv = nn.Linear(dim, 2 * heads * head_dim, bias=False)
        self.to_out = nn.Linear(heads * head_dim, dim, bias=False)

    def forward(self, x: Tensor, latents: Tensor) -> Tensor:
        x, latents = self.norm1(x), self.norm2(latents)
        k, v = self.to_kv(torch.cat([x, latents], 1)).chunk(2, -1)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.to_q(latents), k, v))
        return self.to_out(scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class ImageResampler(ModelMixin, ConfigMixin):
    """
    Learned queries that attend to an image's tokens, as in IP-Adapter Plus.

    Args:
        queries: tokens per frame.
        frames: 16: different tokens for each of 16 frames (DynamiCrafter); 1: the same for all (VideoCrafter).
    """

    @register_to_config
    def __init__(
        self,
        embedding_dim: int = 1280,
        dim: int = 1024,
        depth: int = 4,
        heads: int = 12,
        head_dim: int = 64,
        queries: int = 16,
        frames: int = 16,
        output_dim: int = 1024,
    ) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.randn(1, queries * frames, dim) / dim**0.5)
        self.proj_in = nn.Linear(embedding_dim, dim)
        self.proj_out = nn.Linear(dim, output_dim)
        self.norm_out = nn.LayerNorm(output_dim)
        self.layers = nn.ModuleList(
            nn.ModuleList([PerceiverAttention(dim, heads, head_dim), _feed_forward(dim)]) for _ in range(depth)
        )

    def forward(self, x: Tensor) -> Tensor:
        """`(B, L, embedding_dim)` to `(B, frames * queries, output_dim)`."""
        latents = self.latents.expand(len(x), -1, -1)
        x = self.proj_in(x)
        layer: Any
        for layer in self.layers:
            attention, feed_forward = layer
            latents = latents + attention(x, latents)
            latents = latents + feed_forward(latents)
        return self.norm_out(self.proj_out(latents))


def _feed_forward(dim: int) -> nn.Sequential:
    return nn.Sequential(
        nn.LayerNorm(dim), nn.Linear(dim, 4 * dim, bias=False), nn.GELU(), nn.Linear(4 * dim, dim, bias=False)
    )
