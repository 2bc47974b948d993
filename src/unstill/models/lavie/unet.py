"""
The denoiser of LaVie (https://huggingface.co/papers/2309.15103): Stable Diffusion's U-Net, whose residual blocks
normalise over the whole clip and whose transformer blocks also attend along time.
"""

import functools
import math
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import ModelMixin, UNet2DConditionModel  # noqa: F401  (diffusers loads the classes of this module by it)
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention


@dataclass(slots=True)
class SharedClipShape:
    """How many frames are folded into the batch of the running forward pass; 0: pictures that have none to share."""

    frames: int = 0


class LaVieUNet(UNet2DConditionModel):
    """
    State dict keys are those of the released checkpoints: Stable Diffusion's, and 9 more per transformer block.
    Configuration, attention processors and LoRA are those of `UNet2DConditionModel`.
    """

    conv_norm_out: nn.GroupNorm

    @functools.wraps(UNet2DConditionModel.__init__)  # type: ignore[misc]
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.clip = SharedClipShape()
        for module in list(self.modules()):
            if isinstance(module, ResnetBlock2D):
                module.norm1 = ClipNorm.like(module.norm1, self.clip)
                module.norm2 = ClipNorm.like(module.norm2, self.clip)
            elif isinstance(module, Transformer2DModel):
                module.transformer_blocks = nn.ModuleList(
                    LaVieBlock.like(block, self.clip) for block in module.transformer_blocks
                )
        self.conv_norm_out = ClipNorm.like(self.conv_norm_out, self.clip)

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor | float,
        encoder_hidden_states: Tensor,
        return_dict: bool = True,
        **kwargs: Any,
    ) -> UNet2DConditionOutput | tuple[Tensor]:
        """
        Args:
            sample: a video `(B, C, F, H, W)`, or pictures `(B, C, H, W)`, each of which is denoised separately, as by
                the `UNet2DConditionModel` with the same weights.
            timestep: scalar or `(B,)`.
            encoder_hidden_states: `(B, L, C)`.

        Returns:
            `sample` in the shape of the argument.
        """
        video = sample.ndim == 5
        if video:
            batch, frames = len(sample), sample.shape[2]
            self.clip.frames = frames
            sample = sample.transpose(1, 2).flatten(0, 1)  # (B F, C, H, W)
            encoder_hidden_states = encoder_hidden_states.repeat_interleave(frames, 0)
            timestep = torch.as_tensor(timestep, device=sample.device).expand(batch).repeat_interleave(frames)
        else:
            self.clip.frames = 0
        out = super().forward(sample, timestep, encoder_hidden_states, return_dict=False, **kwargs)[0]
        if video:
            out = out.unflatten(0, (batch, frames)).transpose(1, 2)
        return UNet2DConditionOutput(sample=out) if return_dict else (out,)


class ClipNorm(nn.GroupNorm):
    """Group normalisation of `(B F, C, H, W)` over all frames of each clip."""

    def __init__(self, groups: int, channels: int, eps: float, clip: SharedClipShape) -> None:
        super().__init__(groups, channels, eps)
        self.clip = clip

    @classmethod
    def like(cls, norm: nn.GroupNorm, clip: SharedClipShape) -> "ClipNorm":
        return cls(norm.num_groups, norm.num_channels, norm.eps, clip)

    def forward(self, x: Tensor) -> Tensor:
        if not self.clip.frames:
            return super().forward(x)
        video = x.unflatten(0, (-1, self.clip.frames)).transpose(1, 2)
        return super().forward(video).transpose(1, 2).flatten(0, 1)


class LaVieBlock(BasicTransformerBlock):
    """Attention within the frame, to the text, along time; then the feed-forward layer."""

    def __init__(self, dim: int, heads: int, head_dim: int, context_dim: int, clip: SharedClipShape) -> None:
        super().__init__(dim, heads, head_dim, cross_attention_dim=context_dim)
        self.clip = clip
        self.attn_temp = TemporalAttention(dim, heads, head_dim)
        self.norm_temp = nn.LayerNorm(dim)

    @classmethod
    def like(cls, block: BasicTransformerBlock, clip: SharedClipShape) -> "LaVieBlock":
        return cls(block.dim, block.num_attention_heads, block.attention_head_dim, block.cross_attention_dim, clip)

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        timestep: Tensor | None = None,
        cross_attention_kwargs: dict[str, Any] | None = None,
        class_labels: Tensor | None = None,
    ) -> Tensor:
        """`(B F, H W, C)` to the same."""
        x, options = hidden_states, cross_attention_kwargs or {}
        x = x + self.attn1(self.norm1(x), attention_mask=attention_mask, **options)
        x = x + self.attn2(
            self.norm2(x),
            encoder_hidden_states=encoder_hidden_states,
            attention_mask=encoder_attention_mask,
            **options,
        )
        if self.clip.frames:
            tokens = self.norm_temp(x).unflatten(0, (-1, self.clip.frames)).transpose(1, 2)  # (B, H W, F, C)
            along = self.attn_temp(tokens.flatten(0, 1)).unflatten(0, tokens.shape[:2])
            x = x + along.transpose(1, 2).flatten(0, 1)
        return x + self.ff(self.norm3(x))


class TemporalAttention(nn.Module):
    """Self-attention over time with rotary embeddings and a learned relative bias."""

    def __init__(self, dim: int, heads: int, head_dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(dim, heads * head_dim, bias=False)
        self.to_k = nn.Linear(dim, heads * head_dim, bias=False)
        self.to_v = nn.Linear(dim, heads * head_dim, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(heads * head_dim, dim)])
        self.time_rel_pos_bias = RelativeBias(heads)
        self.rotary_emb = Rotary(min(32, head_dim))

    def forward(self, x: Tensor) -> Tensor:
        """`(N, F, C)` to the same."""
        q, k, v = (
            project(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (N, heads, F, C / heads)
            for project in (self.to_q, self.to_k, self.to_v)
        )
        bias = self.time_rel_pos_bias(x.shape[1]).to(q.dtype)
        x = scaled_dot_product_attention(self.rotary_emb(q), self.rotary_emb(k), v, attn_mask=bias)
        return self.to_out[0](x.transpose(1, 2).flatten(2))


class RelativeBias(nn.Module):
    """T5's bias of attention logits by the distance from query to key, in logarithmic buckets."""

    def __init__(self, heads: int, buckets: int = 32, farthest: int = 32) -> None:
        super().__init__()
        self.farthest = farthest
        self.relative_attention_bias = nn.Embedding(buckets, heads)

    def forward(self, frames: int) -> Tensor:
        """`(heads, F, F)`."""
        place = torch.arange(frames, device=self.relative_attention_bias.weight.device)
        return self.relative_attention_bias(self.bucket(place[None] - place[:, None])).permute(2, 0, 1)

    def bucket(self, distance: Tensor) -> Tensor:
        """Keys before the query in the first half of the buckets, after it in the second; the nearest ones exact."""
        half = self.relative_attention_bias.num_embeddings // 2
        exact = half // 2
        far = distance.abs()
        ratio = (far.clamp(min=1).float() / exact).log() / math.log(self.farthest / exact)
        coarse = (exact + (ratio * (half - exact)).long()).clamp(max=half - 1)
        return half * (distance > 0) + torch.where(far < exact, far, coarse)


class Rotary(nn.Module):
    """Rotary embedding over time of neighbouring pairs of the first `2 len(freqs)` channels of `(..., F, C)`."""

    freqs: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("freqs", 10000.0 ** -(torch.arange(0, channels, 2) / channels))

    def forward(self, x: Tensor) -> Tensor:
        angle = torch.arange(x.shape[-2], device=x.device)[:, None] * self.freqs.float()  # (F, C / 2)
        turned, rest = x.float().tensor_split([2 * self.freqs.shape[0]], -1)
        a, b = turned[..., ::2], turned[..., 1::2]
        turned = torch.stack([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], -1).flatten(-2)
        return torch.cat([turned, rest], -1).to(x.dtype)
