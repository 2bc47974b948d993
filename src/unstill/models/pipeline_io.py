"""Arguments and results that the calls of this library's pipelines share."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import PIL.Image
import torch
from diffusers.utils import BaseOutput
from torch import Tensor

from unstill.data.images import Size, resize_and_crop
from unstill.errors import UnstillError


Images = PIL.Image.Image | list[PIL.Image.Image] | Tensor
Generators = torch.Generator | list[torch.Generator] | None
StepCallback = Callable[[Any, int, Tensor, dict[str, Tensor]], dict[str, Tensor]]
"""Called with (pipeline, step, timestep, {"latents": latents}) as in diffusers; may return other latents."""


@dataclass
class VideoPipelineOutput(BaseOutput):
    """frames: a list of lists of PIL pictures, an array `(B, F, H, W, 3)` or a tensor `(B, F, 3, H, W)`."""

    frames: list[list[PIL.Image.Image]] | np.ndarray | Tensor


def image_pixels(image: Images, size: Size) -> Tensor:
    """
    Images as the pixels that a VAE encodes.

    Args:
        image: PIL pictures of any size, or a tensor `(B, 3, H, W)` or `(3, H, W)` in [0, 1]; resized and cropped.
        size: (height, width).

    Returns:
        `(B, 3, height, width)` in [-1, 1], float32.

    Raises:
        UnstillError: a tensor of another shape.
    """
    if isinstance(image, Tensor):
        pictures = image[None] if image.ndim == 3 else image
        if pictures.ndim != 4 or pictures.shape[1] != 3:
            raise UnstillError(f"image has shape {tuple(image.shape)}; give (B, 3, H, W) with values in [0, 1].")
        pictures = resize_and_crop(pictures.float(), size)
    else:
        images = image if isinstance(image, list) else [image]
        fitted = [np.asarray(resize_and_crop(picture.convert("RGB"), size)) for picture in images]
        pictures = torch.from_numpy(np.stack(fitted)).permute(0, 3, 1, 2) / 255
    return pictures * 2 - 1
