"""The embedded model's denoiser: a small space-time U-Net with the call signature of Stable Video Diffusion's.

Four ideas make it learn within hours on a laptop. Gates: the output has learned linear skips from the noisy latents
and from the image, per channel, noise level and frame. Layers: the image skip is carried along by predicted motion, K
layers of the image each moved and blended, so that what moves keeps its shape. Centroids: how far a thing has come is
read off as the distance between where it is now and where it was. Joint attention: every position of every frame sees
every other at the coarser grids.
"""

import math
from dataclasses import dataclass

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils import BaseOutput
from torch import Tensor, nn
from torch.nn.functional import affine_grid, gelu, grid_sample, interpolate, scaled_dot_product_attention, silu

from unstill.models.pico.text import LENGTH, WIDTH


@dataclass
class PicoUNetOutput(BaseOutput):
    """
    sample: (B, F, C, H, W), the v-prediction.
    displacement: (B, F, 2, H, W), how far the first layer of the image has come since frame 0, in picture sides.
    """

    sample: Tensor
    displacement: Tensor


def sinusoid(x: Tensor, channels: int, longest: float) -> Tensor:
    """(...,) to (..., channels): cosines and sines with periods from 2 pi to 2 pi * longest."""
    half = channels // 2
    frequency = torch.exp(-math.log(longest) * torch.arange(half, device=x.device, dtype=torch.float32) / half)
    angle = x.float()[..., None] * frequency
    return torch.cat([angle.cos(), angle.sin()], -1)


def _normalise(x: Tensor, dim: int = 1) -> Tensor:
    """Unit mean square over channels. Unlike group normalisation it needs no second pass over memory."""
    return x * torch.rsqrt(x.float().square().mean(dim, keepdim=True) + 1e-5).to(x.dtype)


def _zero(layer: nn.Module) -> nn.Module:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


class Block(nn.Module):
    """Two convolutions in space, modulated by the embedding, then one over three neighbouring frames."""

    def __init__(self, inner: int, outer: int, embedding: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inner, outer, 3, padding=1)
        self.modulation = nn.Linear(embedding, 2 * outer)
        self.conv2 = _zero(nn.Conv2d(outer, outer, 3, padding=1))
        self.skip = nn.Conv2d(inner, outer, 1) if inner != outer else nn.Identity()
        self.time = _zero(nn.Conv2d(3 * outer, outer, 1))

    def forward(self, x: Tensor, embedding: Tensor, frames: int) -> Tensor:
        h = self.conv1(silu(_normalise(x)))
        scale, shift = self.modulation(embedding)[:, :, None, None].chunk(2, 1)  # (B*F, C, 1, 1)
        x = self.skip(x) + self.conv2(silu(_normalise(h) * (1 + scale) + shift))
        # A 3 x 1 x 1 convolution written as 1 x 1 over three shifted copies: far faster on a CPU than conv3d.
        h = silu(_normalise(x)).unflatten(0, (-1, frames))  # (B, F, C, H, W)
        edge = torch.zeros_like(h[:, :1])
        h = torch.cat([torch.cat([edge, h[:, :-1]], 1), h, torch.cat([h[:, 1:], edge], 1)], 2).flatten(0, 1)
        return x + self.time(h.contiguous(memory_format=torch.channels_last))


class Reader(nn.Module):
    """Word codes (B, L, D) to (B, L, T): every word with its place and its neighbours ("red" and "ring")."""

    def __init__(self, width: int, text: int, length: int) -> None:
        super().__init__()
        self.word = nn.Linear(width, text, bias=False)
        self.place = nn.Parameter(torch.randn(length, text) * 0.2)
        self.near1 = nn.Conv1d(text, 2 * text, 3, padding=1)
        self.near2 = nn.Conv1d(2 * text, text, 3, padding=1)

    def forward(self, codes: Tensor) -> Tensor:
        x = (self.word(codes) + self.place[: codes.shape[1]]).transpose(1, 2)  # (B, T, L)
        return _normalise(x + self.near2(gelu(self.near1(x)))).transpose(1, 2)


class Attention(nn.Module):
    """Self-attention over all positions of all frames, a look at the words, then a feed-forward layer."""

    def __init__(self, channels: int, side: int, frames: int, text: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.place = nn.Parameter(torch.randn(1, 1, side * side, channels) * 0.2)
        self.moment = nn.Parameter(torch.randn(1, frames, 1, channels) * 0.2)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = _zero(nn.Linear(channels, channels))
        self.ask = nn.Linear(channels, channels)
        self.words = nn.Linear(text, 2 * channels)
        self.told = _zero(nn.Linear(channels, channels))
        self.widen = nn.Linear(channels, 2 * channels)
        self.narrow = _zero(nn.Linear(2 * channels, channels))

    def forward(self, x: Tensor, words: Tensor, frames: int) -> Tensor:
        n, channels, height, width = x.shape
        tokens = x.permute(0, 2, 3, 1).reshape(n // frames, frames, height * width, channels)
        h = (_normalise(tokens, -1) + self.place + self.moment[:, :frames]).flatten(1, 2)  # (B, F*H*W, C)
        q, k, v = self.qkv(h).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        h = scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        tokens = tokens.flatten(1, 2) + self.out(h)
        q = self.ask(_normalise(tokens, -1)).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k, v = self.words(words).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        tokens = tokens + self.told(scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        tokens = tokens + self.narrow(gelu(self.widen(_normalise(tokens, -1))))
        return tokens.reshape(n, height, width, channels).permute(0, 3, 1, 2)


class PicoUNet(ModelMixin, ConfigMixin):
    """v-prediction from noisy latents and image latents, concatenated on channels.

    The call is that of diffusers' `UNetSpatioTemporalConditionModel`: sample (B, F, 2C, H, W); timestep 0.25 ln(sigma
    / alpha), scalar or (B,); encoder_hidden_states (B, L, 32) the codes of a caption's words, None and zeros being no
    caption; added_time_ids (B, 3) = (fps, motion bucket, noise added to the image).
    """

    unspecified_motion = 255.0  # the motion bucket that means "as you see fit"

    @register_to_config
    def __init__(
        self,
        in_channels: int = 12,
        out_channels: int = 6,
        block_out_channels: tuple[int, int, int] = (48, 112, 160),
        sample_size: int = 16,
        num_frames: int = 8,
        embedding: int = 192,
        layers: int = 3,
        cross_attention_dim: int = WIDTH,
        text: int = 96,
    ) -> None:
        super().__init__()
        fine, middle, coarse = block_out_channels
        self.from_noise = nn.Sequential(nn.Linear(64, embedding), nn.SiLU(), nn.Linear(embedding, embedding))
        self.from_ids = nn.Sequential(nn.Linear(96, embedding), nn.SiLU(), _zero(nn.Linear(embedding, embedding)))
        self.from_frame = nn.Linear(32, embedding)
        self.reader = Reader(cross_attention_dim, text, LENGTH)
        self.from_text = _zero(nn.Linear(text, embedding))
        self.gates = _zero(nn.Linear(embedding, 2 * out_channels))
        self.inlet = nn.Conv2d(in_channels, fine, 3, padding=1)
        self.down1 = Block(fine, fine, embedding)
        self.pool1 = nn.Conv2d(fine, middle, 3, stride=2, padding=1)
        self.down2 = Block(middle, middle, embedding)
        self.look2 = Attention(middle, sample_size // 2, num_frames, text)
        self.pool2 = nn.Conv2d(middle, coarse, 3, stride=2, padding=1)
        self.down3 = Block(coarse, coarse, embedding)
        self.look3 = Attention(coarse, sample_size // 4, num_frames, text)
        self.up3 = Block(coarse, coarse, embedding)
        self.up2 = Block(coarse + middle, middle, embedding)
        self.look1 = Attention(middle, sample_size // 2, num_frames, text)
        self.up1 = Block(middle + fine, fine, embedding)
        self.identity = nn.Conv2d(fine, 32, 1)
        self.sharpness = nn.Parameter(torch.tensor(10.0))
        # Not zero: layers that begin alike would stay alike.
        self.motion = nn.Conv2d(fine, 3 * layers, 3, padding=1)
        self.outlet = nn.Sequential(
            nn.Conv2d(fine + out_channels, fine, 3, padding=1),
            nn.SiLU(),
            _zero(nn.Conv2d(fine, out_channels, 3, padding=1)),
        )

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor | float,
        encoder_hidden_states: Tensor | None = None,
        added_time_ids: Tensor | None = None,
        return_dict: bool = True,
    ) -> PicoUNetOutput | tuple[Tensor, Tensor]:
        batch, frames, _, height, width = sample.shape
        t = torch.as_tensor(timestep, device=sample.device, dtype=torch.float32).expand(batch)
        if added_time_ids is None:
            added_time_ids = t.new_tensor([7.0, self.unspecified_motion, 0.0]).expand(batch, 3)
        dtype = self.inlet.weight.dtype
        order = torch.arange(frames, device=sample.device)
        if encoder_hidden_states is None:
            encoder_hidden_states = t.new_zeros(batch, LENGTH, self.config.cross_attention_dim)
        words = self.reader(encoder_hidden_states.to(dtype))
        e = self.from_noise(sinusoid(t * 250, 64, 1e4).to(dtype))
        e = e + self.from_ids(sinusoid(added_time_ids, 32, 1e3).flatten(1).to(dtype))
        e = e + self.from_text(words.mean(1))
        e = e[:, None] + self.from_frame(sinusoid(order * 20, 32, 1e3).to(dtype))[None]
        e = silu(e).flatten(0, 1)  # (B*F, E)

        x = self.inlet(sample.flatten(0, 1).to(dtype).contiguous(memory_format=torch.channels_last))
        fine = self.down1(x, e, frames)
        middle = self.look2(self.down2(self.pool1(fine), e, frames), words, frames)
        x = self.look3(self.down3(self.pool2(middle), e, frames), words, frames)
        x = self.up3(x, e, frames)
        x = self.up2(torch.cat([interpolate(x, scale_factor=2.0), middle], 1), e, frames)
        x = self.look1(x, words, frames)
        x = self.up1(torch.cat([interpolate(x, scale_factor=2.0), fine], 1), e, frames)

        noisy, image = sample.flatten(0, 1).float().chunk(2, 1)  # (B*F, C, H, W) each
        share, travel = self._layers(self.motion(x).float(), order.repeat(batch))
        travel = torch.cat([travel[:, :1] + self._shift(x, frames)[:, None], travel[:, 1:]], 1)
        carried = self._carried(image, share, travel)
        keep, copy = self.gates(e).float()[:, :, None, None].chunk(2, 1)
        out = self.outlet(torch.cat([x, carried.to(x.dtype)], 1)).float() + keep * noisy + copy * carried
        out = out.unflatten(0, (batch, frames)).to(sample.dtype)
        displacement = travel[:, 0].unflatten(0, (batch, frames))
        return PicoUNetOutput(sample=out, displacement=displacement) if return_dict else (out, displacement)

    def _shift(self, x: Tensor, frames: int) -> Tensor:
        """How far what is seen at each position has come since frame 0, (B*F, 2, H, W) in sides.

        Positions of one thing have alike embeddings; attention by likeness finds the centroid of the thing in its own
        frame and in frame 0. That is robust where details are lost in noise, and exact for a rigid shift.
        """
        n, _, height, width = x.shape
        thing = _normalise(self.identity(x).float().flatten(2), 1).transpose(1, 2).unflatten(0, (-1, frames))
        query = thing * (self.sharpness / thing.shape[-1])  # cosine times sharpness, (B, F, P, D)
        now = (query @ thing.transpose(-1, -2)).softmax(-1)
        before = (query @ thing[:, :1].transpose(-1, -2)).softmax(-1)  # (B, F, P, P)
        places = (affine_grid(torch.eye(2, 3, device=x.device)[None], [1, 1, height, width], align_corners=False)) / 2
        return ((now - before) @ places.reshape(-1, 2)).transpose(-1, -2).reshape(n, 2, height, width)

    @staticmethod
    def _layers(field: Tensor, order: Tensor) -> tuple[Tensor, Tensor]:
        """The share (N, K, H, W) of each layer, and how far it comes in `order` frames (N, K, 2, H, W), in sides."""
        k = field.shape[1] // 3
        velocity = field[:, k:].unflatten(1, (k, 2)) * 0.05
        return field[:, :k].softmax(1), velocity * order[:, None, None, None, None]

    @staticmethod
    def _carried(image: Tensor, share: Tensor, travel: Tensor) -> Tensor:
        """Blends layers of the image (N, C, H, W), each fetched from where it has come from."""
        height, width = image.shape[-2:]
        still = affine_grid(torch.eye(2, 3, device=image.device)[None], [1, 1, height, width], align_corners=False)
        grid = still[:, None] - 2 * travel.permute(0, 1, 3, 4, 2)  # (N, K, H, W, 2), in half sides
        moved = grid_sample(
            image, grid.flatten(1, 2), mode="bilinear", padding_mode="border", align_corners=False
        ).unflatten(2, (share.shape[1], height))  # (N, C, K, H, W)
        return (moved * share[:, None]).sum(2)
