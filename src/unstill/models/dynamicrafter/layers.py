"""
The layers of DynamiCrafter's U-Net. Attributes have the names of the released checkpoints ("temopral_conv" included).

Inside the U-Net frames are folded into the batch: `(B F, C, H, W)`.
"""

from typing import NamedTuple

import torch
from diffusers.models.attention import BasicTransformerBlock
from torch import Tensor, nn
from torch.nn.functional import interpolate, scaled_dot_product_attention


GROUPS = 32


class Context(NamedTuple):
    """The context of the spatial blocks: text `(B, L, C)`, image tokens `(B F or B, 16, C)`."""

    text: Tensor
    image: Tensor


def to_video(x: Tensor, frames: int) -> Tensor:
    """`(B F, C, H, W)` to `(B, C, F, H, W)`."""
    return x.unflatten(0, (-1, frames)).transpose(1, 2)


def to_frames(x: Tensor) -> Tensor:
    """`(B, C, F, H, W)` to `(B F, C, H, W)`."""
    return x.transpose(1, 2).flatten(0, 1)


class ImageTextAttention(nn.Module):
    """
    Cross-attention to text and to image tokens, with the same queries and separate keys and values.

    With `gated` (DynamiCrafter 256) the output of the image is multiplied by 1 + tanh(alpha).
    """

    def __init__(self, dim: int, context_dim: int, heads: int, gated: bool) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(dim, dim, bias=False)
        self.to_k = nn.Linear(context_dim, dim, bias=False)
        self.to_v = nn.Linear(context_dim, dim, bias=False)
        self.to_k_ip = nn.Linear(context_dim, dim, bias=False)
        self.to_v_ip = nn.Linear(context_dim, dim, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(dim, dim)])
        self.alpha = nn.Parameter(torch.zeros(())) if gated else None

    def forward(self, x: Tensor, encoder_hidden_states: Context, attention_mask: None = None) -> Tensor:
        """`(B F, H W, C)` to the same."""
        context = encoder_hidden_states
        q = self.to_q(x)
        out = self._attend(q, self.to_k(context.text), self.to_v(context.text))
        image = self._attend(q, self.to_k_ip(context.image), self.to_v_ip(context.image))
        if self.alpha is not None:
            image = image * (1 + self.alpha.tanh())
        return self.to_out[0](out + image)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        # Keys and values are computed once per context, which may serve all frames of a video.
        shared = len(q) // len(k)
        q = q.unflatten(0, (len(k), shared)).flatten(1, 2)  # (contexts, frames H W, C)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (q, k, v))
        out = scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return out.unflatten(1, (shared, -1)).flatten(0, 1)


class SpatialTransformer(nn.Module):
    """Attention within each frame, then to text and image."""

    def __init__(self, channels: int, head_dim: int, context_dim: int, gated: bool) -> None:
        super().__init__()
        heads = channels // head_dim
        block = BasicTransformerBlock(channels, heads, head_dim, cross_attention_dim=context_dim)
        block.attn2 = ImageTextAttention(channels, context_dim, heads, gated)
        self.norm = nn.GroupNorm(GROUPS, channels, eps=1e-6)
        self.proj_in = nn.Linear(channels, channels)
        self.transformer_blocks = nn.ModuleList([block])
        self.proj_out = nn.Linear(channels, channels)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        height = x.shape[2]
        h = self.proj_in(self.norm(x).flatten(2).transpose(1, 2))  # (B F, H W, C)
        h = self.transformer_blocks[0](h, encoder_hidden_states=context)
        return x + self.proj_out(h).transpose(1, 2).unflatten(2, (height, -1))


class TemporalTransformer(nn.Module):
    """
    Two self-attentions over the frames at each position, without a positional encoding. The first one in the network
    (`init_attn`) has another inner width and projects by 1 x 1 convolutions.
    """

    def __init__(self, channels: int, heads: int, head_dim: int, *, convolution: bool = False) -> None:
        super().__init__()
        inner = heads * head_dim
        self.norm = nn.GroupNorm(GROUPS, channels, eps=1e-6)
        self.proj_in = nn.Conv1d(channels, inner, 1) if convolution else nn.Linear(channels, inner)
        self.transformer_blocks = nn.ModuleList(
            [BasicTransformerBlock(inner, heads, head_dim, double_self_attention=True)]
        )
        self.proj_out = nn.Conv1d(inner, channels, 1) if convolution else nn.Linear(inner, channels)

    def forward(self, x: Tensor, frames: int) -> Tensor:
        video = to_video(x, frames)
        h = self.norm(video).permute(0, 3, 4, 2, 1).flatten(0, 2)  # (B H W, F, C)
        h = _project(self.proj_out, self.transformer_blocks[0](_project(self.proj_in, h)))
        h = h.unflatten(0, (len(video), *video.shape[3:]))  # (B, H, W, F, C)
        return x + h.permute(0, 3, 4, 1, 2).flatten(0, 1)


def _project(layer: nn.Module, x: Tensor) -> Tensor:
    return layer(x.transpose(1, 2)).transpose(1, 2) if isinstance(layer, nn.Conv1d) else layer(x)


class TemporalConvolution(nn.Module):
    """Four convolutions over three neighbouring frames; normalised over the whole clip."""

    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__()
        for i in range(4):
            layers: list[nn.Module] = [nn.GroupNorm(GROUPS, channels), nn.SiLU()]
            if i:
                layers.append(nn.Dropout(dropout))
            layers.append(nn.Conv3d(channels, channels, (3, 1, 1), padding=(1, 0, 0)))
            setattr(self, f"conv{i + 1}", nn.Sequential(*layers))
        _zero(layers[-1])

    def forward(self, video: Tensor) -> Tensor:
        h = video
        for layer in self.children():
            h = layer(h)
        return video + h


class ResBlock(nn.Module):
    """A residual block of Stable Diffusion in every frame, then `TemporalConvolution`."""

    def __init__(self, inner: int, outer: int, embedding: int, dropout: float) -> None:
        super().__init__()
        self.in_layers = nn.Sequential(nn.GroupNorm(GROUPS, inner), nn.SiLU(), nn.Conv2d(inner, outer, 3, padding=1))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(embedding, outer))
        self.out_layers = nn.Sequential(
            nn.GroupNorm(GROUPS, outer),
            nn.SiLU(),
            nn.Dropout(dropout),
            _zero(nn.Conv2d(outer, outer, 3, padding=1)),
        )
        self.skip_connection = nn.Conv2d(inner, outer, 1) if inner != outer else nn.Identity()
        self.temopral_conv = TemporalConvolution(outer, dropout)

    def forward(self, x: Tensor, embedding: Tensor, frames: int) -> Tensor:
        h = self.in_layers(x) + self.emb_layers(embedding).repeat_interleave(frames, 0)[:, :, None, None]
        h = self.skip_connection(x) + self.out_layers(h)
        return to_frames(self.temopral_conv(to_video(h, frames)))


class Downsample(nn.Module):
    """Halves height and width of `(B F, C, H, W)` by a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


class Upsample(nn.Module):
    """Doubles height and width of `(B F, C, H, W)`: nearest neighbours, then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(interpolate(x, scale_factor=2.0, mode="nearest"))


def _zero(layer: nn.Module) -> nn.Module:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
