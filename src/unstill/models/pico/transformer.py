"""
The embedded model's denoiser: a video transformer with the call signature of Stable Video Diffusion's U-Net.

Patches of all frames and the words of the caption are one sequence; every token attends to every other. Timestep and
`added_time_ids` modulate each block (adaLN, Peebles and Xie, https://huggingface.co/papers/2212.09748) through one
projection that all blocks share and a table per block. The output has learned skips from the noisy latents and from
the image latents, weighted per channel, frame and noise level.
"""

import math
from dataclasses import dataclass

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils import BaseOutput
from torch import Tensor, nn
from torch.nn.functional import gelu, rms_norm, scaled_dot_product_attention, silu

from unstill.data.captions import LENGTH
from unstill.models.pico.text import WIDTH


NOISE_CHANNELS = 128  # sinusoids of the timestep
ID_CHANNELS = 64  # sinusoids of each of the three `added_time_ids`


@dataclass
class PicoTransformerOutput(BaseOutput):
    """sample: (B, F, C, H, W), the v-prediction."""

    sample: Tensor


def sinusoid(x: Tensor, channels: int, longest: float) -> Tensor:
    """(...,) to (..., channels): cosines and sines with periods from 2 pi to 2 pi * longest, float32."""
    half = channels // 2
    frequency = torch.exp(-math.log(longest) * torch.arange(half, device=x.device, dtype=torch.float32) / half)
    angle = x.float()[..., None] * frequency
    return torch.cat([angle.cos(), angle.sin()], -1)


def rotary(
    frames: int, height: int, width: int, head_dim: int, text: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """
    Cosines and sines (text + F*H*W, head_dim / 2) of rotary position embeddings, float32.

    A quarter of each head rotates with time, the rest with y and x; words do not rotate.
    """
    for_time = head_dim // 8  # pairs of channels
    for_y = (head_dim // 2 - for_time) // 2
    for_x = head_dim // 2 - for_time - for_y

    def angles(positions: int, pairs: int) -> Tensor:
        frequency = 100.0 ** (-torch.arange(pairs, dtype=torch.float32, device=device) / pairs)
        return torch.arange(positions, dtype=torch.float32, device=device)[:, None] * frequency

    t = angles(frames, for_time)[:, None, None].expand(-1, height, width, -1)
    y = angles(height, for_y)[None, :, None].expand(frames, -1, width, -1)
    x = angles(width, for_x)[None, None].expand(frames, height, -1, -1)
    angle = torch.cat([t, y, x], -1).flatten(0, 2)
    angle = torch.cat([angle.new_zeros(text, head_dim // 2), angle])
    return angle.cos(), angle.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotates pairs of channels, of which one is in the first half of the head and the other in the second."""
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)


class Block(nn.Module):
    """Self-attention over all tokens with normalised queries and keys, then a feed-forward layer."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        # Scale, shift and gate of either half; the gates begin at one, since the layers behind them begin at zero.
        self.table = nn.Parameter(torch.randn(6, dim) * 0.02 + torch.tensor([0.0, 0, 1, 0, 0, 1])[:, None])
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)
        self.widen = nn.Linear(dim, 4 * dim, bias=False)
        self.narrow = nn.Linear(4 * dim, dim, bias=False)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.narrow.weight)

    def forward(self, x: Tensor, modulation: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """x (B, N, D); modulation (B, 6, D); cos and sin (N, D / heads / 2)."""
        dim = x.shape[-1]
        parts = (modulation + self.table).to(x.dtype)[:, :, None].unbind(1)  # six of (B, 1, D)
        scale1, shift1, gate1, scale2, shift2, gate2 = parts
        h = rms_norm(x, (dim,)) * (1 + scale1) + shift1
        q, k, v = self.qkv(h).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (B, heads, N, d) each
        q, k = (rotate(rms_norm(x, (x.shape[-1],)), cos, sin).to(v.dtype) for x in (q, k))
        h = scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + gate1 * self.out(h)
        h = rms_norm(x, (dim,)) * (1 + scale2) + shift2
        return x + gate2 * self.narrow(gelu(self.widen(h), approximate="tanh"))


def _zero(layer: nn.Linear) -> nn.Linear:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


class PicoTransformer(ModelMixin, ConfigMixin):
    """
    v-prediction from noisy latents and image latents, concatenated on channels.

    Args:
        in_channels: channels of noisy and image latents together.
        out_channels: channels of the latents.
        sample_size: side of the latents.
        num_frames: the longest clip.
        patch_size: side of the square patches that become tokens.
        num_layers: blocks.
        num_attention_heads, attention_head_dim: their product is the width of a token.
        cross_attention_dim: numbers per word of a caption.
        text_length: words per caption.
    """

    unspecified_motion = 255.0  # the motion bucket of a clip whose motion level is not given
    _repeated_blocks = ["Block"]  # what diffusers' `compile_repeated_blocks` compiles

    @register_to_config
    def __init__(
        self,
        in_channels: int = 24,
        out_channels: int = 12,
        sample_size: int = 12,
        num_frames: int = 16,
        patch_size: int = 2,
        num_layers: int = 9,
        num_attention_heads: int = 5,
        attention_head_dim: int = 64,
        cross_attention_dim: int = WIDTH,
        text_length: int = LENGTH,
    ) -> None:
        super().__init__()
        dim, area = num_attention_heads * attention_head_dim, patch_size**2
        self.inlet = nn.Linear(in_channels * area, dim)
        self.place = nn.Parameter(torch.randn((sample_size // patch_size) ** 2, dim) * 0.02)
        self.moment = nn.Parameter(torch.randn(num_frames, dim) * 0.02)
        self.word = nn.Linear(cross_attention_dim, dim, bias=False)
        self.word_place = nn.Parameter(torch.randn(text_length, dim) * 0.02)
        self.from_noise = nn.Sequential(nn.Linear(NOISE_CHANNELS, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.from_ids = nn.Sequential(nn.Linear(3 * ID_CHANNELS, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.modulation = _zero(nn.Linear(dim, 6 * dim))
        self.blocks = nn.ModuleList([Block(dim, num_attention_heads) for _ in range(num_layers)])
        self.final = _zero(nn.Linear(dim, 2 * dim))
        self.outlet = _zero(nn.Linear(dim, out_channels * area))
        self.gate_frame = nn.Parameter(torch.randn(num_frames, dim) * 0.02)
        self.gates = _zero(nn.Linear(dim, 2 * out_channels))

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor | float,
        encoder_hidden_states: Tensor | None = None,
        added_time_ids: Tensor | None = None,
        return_dict: bool = True,
    ) -> PicoTransformerOutput | tuple[Tensor]:
        """
        The call of diffusers' `UNetSpatioTemporalConditionModel`.

        Args:
            sample: (B, F, 2C, H, W), noisy latents / sqrt(1 + sigma^2) and the image latents, zeros being no image.
            timestep: 0.25 ln(sigma / alpha), a number or (B,).
            encoder_hidden_states: (B, L, 32) codes of a caption's words (`text.embed`); None and zeros: no caption.
            added_time_ids: (B, 3): frames per second - 1; motion bucket (`motion_bucket`, or `unspecified_motion`);
                100 * standard deviation of the noise that was added to the image latents. Default: (7, 255, 0).
        """
        batch, frames, _, height, width = sample.shape
        dtype, device = self.inlet.weight.dtype, sample.device
        t = torch.as_tensor(timestep, device=device, dtype=torch.float32).expand(batch)
        if added_time_ids is None:
            added_time_ids = t.new_tensor([7.0, self.unspecified_motion, 0.0]).expand(batch, 3)
        if encoder_hidden_states is None:
            encoder_hidden_states = t.new_zeros(batch, self.config.text_length, self.config.cross_attention_dim)
        e = self.from_noise(sinusoid(t * 250, NOISE_CHANNELS, 1e4).to(dtype))
        e = silu(e + self.from_ids(sinusoid(added_time_ids, ID_CHANNELS, 1e3).flatten(1).to(dtype)))  # (B, D)
        modulation = self.modulation(e).unflatten(-1, (6, -1)).float()

        p = self.config.patch_size
        x = sample.to(dtype).unflatten(-1, (-1, p)).unflatten(-3, (-1, p))  # (B, F, 2C, H/p, p, W/p, p)
        x = x.permute(0, 1, 3, 5, 2, 4, 6).flatten(-3).flatten(2, 3)  # (B, F, H*W/p^2, 2C*p^2)
        x = self.inlet(x) + self.place + self.moment[:frames, None]
        words = self.word(encoder_hidden_states.to(dtype)) + self.word_place  # (B, L, D)
        length = words.shape[1]
        x = torch.cat([words.to(x.dtype), x.flatten(1, 2)], 1)
        cos, sin = rotary(frames, height // p, width // p, self.config.attention_head_dim, length, device)
        for block in self.blocks:
            x = block(x, modulation, cos, sin)

        scale, shift = self.final(e)[:, None].chunk(2, -1)
        x = self.outlet(rms_norm(x[:, length:], x.shape[-1:]) * (1 + scale) + shift).float()
        x = x.unflatten(1, (frames, height // p, width // p)).unflatten(-1, (-1, p, p))
        x = x.permute(0, 1, 4, 2, 5, 3, 6).flatten(-2).flatten(-3, -2)  # (B, F, C, H, W)
        noisy, image = sample.float().chunk(2, 2)
        gates = self.gates(e[:, None] + self.gate_frame[:frames]).float()  # (B, F, 2C)
        keep, copy = gates[..., None, None].chunk(2, 2)
        out = (x + keep * noisy + copy * image).to(sample.dtype)
        return PicoTransformerOutput(sample=out) if return_dict else (out,)
