"""Allegro (Zhou et al., https://huggingface.co/papers/2410.15458)."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from PIL import Image

from unstill.errors import UnstillError
from unstill.families.base import Family
from unstill.families.vae_adapters import VideoAdapter


class Allegro(VideoAdapter):
    """
    Text to video. Its autoencoder is not causal: it encodes clips in tiles of 24 frames and 320 x 320 pixels, 4 frames
    to a latent frame.
    """

    usual_scheduler = ("EulerAncestralDiscreteScheduler", {})

    def encode_video(self, pipe: Any, video: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
        tile, stride = pipe.vae.kernel, pipe.vae.stride  # of frames, height, width
        size = len(video), *video.shape[2:]
        if any(side < least or (side - least) % step for side, least, step in zip(size, tile, stride, strict=True)):
            raise UnstillError(
                f"{type(pipe).__name__} encodes clips of {tile[0]} + {stride[0]} n frames, {tile[1]} + {stride[1]} n "
                f"pixels high and {tile[2]} + {stride[2]} n wide, but this one has {size[0]} frames of "
                f"{size[1]}x{size[2]}; cut or resize it."
            )
        with torch.no_grad():
            return self._encode(pipe, (2 * video - 1).to(pipe._execution_device, pipe.vae.dtype), generator)

    def encode_image(
        self,
        pipe: Any,
        image: Image.Image | torch.Tensor,
        size: tuple[int, int, int, int],
        device: torch.device,
        generator: torch.Generator | None = None,
    ) -> torch.Tensor:
        """Encodes a picture as a still clip, and returns its latent frame 0."""
        if isinstance(image, torch.Tensor):
            return super().encode_image(pipe, image, size, device, generator)
        batch, _, height, width = size
        still = self._pixels(pipe, image, height, width).expand(pipe.vae.kernel[0], -1, -1, -1)
        return self.encode_video(pipe, still, generator)[:, :, :1].to(device).expand(batch, -1, -1, -1, -1)

    def _encode(self, pipe: Any, frames: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
        with _tiled(pipe.vae):
            return super()._encode(pipe, frames, generator)

    def _decode(self, pipe: Any, latents: torch.Tensor) -> torch.Tensor:
        with _tiled(pipe.vae):
            return super()._decode(pipe, latents).transpose(1, 2)  # its decoder returns (B, F, C, H, W)


@contextmanager
def _tiled(vae: Any) -> Iterator[None]:
    """Turns tiling on, without which this autoencoder returns nothing, and restores the setting afterwards."""
    tiling, vae.use_tiling = vae.use_tiling, True
    try:
        yield
    finally:
        vae.use_tiling = tiling


FAMILY = Family(adapters={"AllegroPipeline": Allegro()})
