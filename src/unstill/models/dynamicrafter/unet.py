"""The denoiser of DynamiCrafter (https://huggingface.co/papers/2310.12190) and of VideoCrafter1's image-to-video."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.loaders import PeftAdapterMixin
from diffusers.models.attention import AttentionMixin
from diffusers.models.embeddings import get_timestep_embedding
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils import BaseOutput
from torch import Tensor, nn

from unstill.errors import UnstillError
from unstill.models.dynamicrafter.layers import (
    GROUPS,
    Context,
    Downsample,
    ResBlock,
    SpatialTransformer,
    TemporalTransformer,
    Upsample,
    to_frames,
    to_video,
)


@dataclass
class DynamiCrafterUNetOutput(BaseOutput):
    """sample: `(B, C, F, H, W)`."""

    sample: Tensor


class DynamiCrafterUNet(ModelMixin, AttentionMixin, ConfigMixin, PeftAdapterMixin):
    """
    A U-Net over folded frames, with temporal convolutions and temporal attention in every block. State dict keys are
    those of the released checkpoints, without their prefix.

    Args:
        sample_size: (height, width) of the latents it was trained for.
        in_channels: 8 where image latents are concatenated to the noisy ones (DynamiCrafter), else 4 (VideoCrafter).
        block_out_channels: one per level, each at half the size of the one before.
        attention_levels: how many levels attend, from the finest one down. The middle always does.
        text_tokens: the first tokens of the context, which the text takes; the others are the image's.
        image_tokens: of the image, per frame, in a context that has some for each frame.
        default_fps: conditioning if the call gives no fps; for DynamiCrafter 256 a frame stride.
        gated_image: learned weights of the image tokens (DynamiCrafter 256).
    """

    _supports_gradient_checkpointing = True
    _no_split_modules = ["ResBlock", "SpatialTransformer", "TemporalTransformer"]

    @register_to_config
    def __init__(
        self,
        sample_size: tuple[int, int] = (40, 64),
        num_frames: int = 16,
        in_channels: int = 8,
        out_channels: int = 4,
        block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280),
        layers_per_block: int = 2,
        attention_levels: int = 3,
        attention_head_dim: int = 64,
        cross_attention_dim: int = 1024,
        text_tokens: int = 77,
        image_tokens: int = 16,
        default_fps: int = 24,
        gated_image: bool = False,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.gradient_checkpointing = False
        width, head_dim = block_out_channels[0], attention_head_dim
        embedding = 4 * width

        def block(inner: int, outer: int, level: int) -> list[nn.Module]:
            layers: list[nn.Module] = [ResBlock(inner, outer, embedding, dropout)]
            return layers + attention(outer) if level < attention_levels else layers

        def attention(channels: int) -> list[nn.Module]:
            return [
                SpatialTransformer(channels, head_dim, cross_attention_dim, gated_image),
                TemporalTransformer(channels, channels // head_dim, head_dim),
            ]

        def mlp() -> nn.Sequential:
            return nn.Sequential(nn.Linear(width, embedding), nn.SiLU(), nn.Linear(embedding, embedding))

        self.time_embed, self.fps_embedding = mlp(), mlp()
        nn.init.zeros_(self.fps_embedding[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.fps_embedding[-1].bias)  # type: ignore[arg-type]

        self.input_blocks = nn.ModuleList([nn.ModuleList([nn.Conv2d(in_channels, width, 3, padding=1)])])
        self.init_attn = nn.ModuleList([TemporalTransformer(width, 8, head_dim, convolution=True)])
        channels, skips = width, [width]
        for level, outer in enumerate(block_out_channels):
            for _ in range(layers_per_block):
                self.input_blocks.append(nn.ModuleList(block(channels, outer, level)))
                channels = outer
                skips.append(channels)
            if level < len(block_out_channels) - 1:
                self.input_blocks.append(nn.ModuleList([Downsample(channels)]))
                skips.append(channels)
        self.middle_block = nn.ModuleList(
            [
                ResBlock(channels, channels, embedding, dropout),
                *attention(channels),
                ResBlock(channels, channels, embedding, dropout),
            ]
        )
        self.output_blocks = nn.ModuleList()
        for level, outer in reversed(list(enumerate(block_out_channels))):
            for i in range(layers_per_block + 1):
                layers = block(channels + skips.pop(), outer, level)
                channels = outer
                if level and i == layers_per_block:
                    layers.append(Upsample(channels))
                self.output_blocks.append(nn.ModuleList(layers))
        self.out = nn.Sequential(
            nn.GroupNorm(GROUPS, channels), nn.SiLU(), nn.Conv2d(channels, out_channels, 3, padding=1)
        )

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor | float,
        encoder_hidden_states: Tensor,
        fps: Tensor | int | None = None,
        return_dict: bool = True,
    ) -> DynamiCrafterUNetOutput | tuple[Tensor]:
        """
        Args:
            sample: `(B, in_channels, F, H, W)`.
            timestep: scalar or `(B,)`, training steps.
            encoder_hidden_states: `(B, L, C)`: text tokens, then image tokens: `image_tokens` for each frame in turn,
                or any other number that all frames share.
            fps: scalar or `(B,)`; `None`: `default_fps`.
        """
        _, _, frames, height, width = sample.shape
        divisor = 2 ** (len(self.config.block_out_channels) - 1)
        if height % divisor or width % divisor:
            raise UnstillError(
                f"Latents of {height}x{width} cannot be halved often enough; use multiples of {divisor}."
            )
        fps = self.config.default_fps if fps is None else fps
        embedding = self._embed(self.time_embed, timestep, sample) + self._embed(self.fps_embedding, fps, sample)
        context = self._context(encoder_hidden_states, frames)

        x = self.input_blocks[0][0](to_frames(sample))  # type: ignore[index]
        x = self.init_attn[0](x, frames)
        skips = [x]
        for block in list(self.input_blocks)[1:]:
            x = self._run(block, x, embedding, context, frames)  # type: ignore[arg-type]
            skips.append(x)
        x = self._run(self.middle_block, x, embedding, context, frames)
        for block in self.output_blocks:
            x = self._run(block, torch.cat([x, skips.pop()], 1), embedding, context, frames)  # type: ignore[arg-type]
        x = to_video(self.out(x), frames)
        return DynamiCrafterUNetOutput(sample=x) if return_dict else (x,)

    def _embed(self, mlp: nn.Sequential, value: Tensor | float, sample: Tensor) -> Tensor:
        """`(B, E)`: sinusoids, cosines first."""
        value = torch.as_tensor(value, device=sample.device).expand(len(sample))
        waves = get_timestep_embedding(value, self.config.block_out_channels[0], True, downscale_freq_shift=0)
        return mlp(waves.to(sample.dtype))

    def _context(self, tokens: Tensor, frames: int) -> Context:
        text, image = tokens.tensor_split([self.config.text_tokens], 1)
        if image.shape[1] == frames * self.config.image_tokens:
            image = image.reshape(-1, self.config.image_tokens, image.shape[2])  # (B F, 16, C)
        elif not image.shape[1]:
            raise UnstillError(
                f"encoder_hidden_states has {tokens.shape[1]} tokens; give {self.config.text_tokens} of text and then "
                f"those of the image."
            )
        return Context(text, image)

    def _run(self, block: Iterable[nn.Module], x: Tensor, embedding: Tensor, context: Context, frames: int) -> Tensor:
        for layer in block:
            arguments: tuple[Any, ...] = ()
            if isinstance(layer, ResBlock):
                arguments = (embedding, frames)
            elif isinstance(layer, SpatialTransformer):
                arguments = (context,)
            elif isinstance(layer, TemporalTransformer):
                arguments = (frames,)
            if self.gradient_checkpointing and torch.is_grad_enabled():
                x = self._gradient_checkpointing_func(layer, x, *arguments)
            else:
                x = layer(x, *arguments)
        return x
