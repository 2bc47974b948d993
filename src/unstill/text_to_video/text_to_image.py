"""Candidates from a text-to-image pipeline in place of the video model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from unstill.data.images import resize_and_crop
from unstill.errors import UnstillError
from unstill.models.call_arguments import clear_refusals
from unstill.models.hub import hub_answers
from unstill.progress import StepProgress
from unstill.text_to_video.candidates import batches


class TextToImage:
    """
    A text-to-image pipeline of diffusers, loaded at the first call: candidates read from a folder do not need it.

    Args:
        name: folder or hub id.
        device: of the pipeline.
        dtype: of its weights.
        offload: keeps on `device` only the component in use.
    """

    def __init__(self, name: str, device: torch.device, dtype: torch.dtype, offload: bool = False) -> None:
        self.name, self.device, self.dtype, self.offload = name, device, dtype, offload
        self._pipe: Any = None

    def __call__(self, **call: Any) -> Any:
        if self._pipe is None:
            self._pipe = self._load()
        return self._pipe(**call)

    def _load(self) -> Any:
        from diffusers import AutoPipelineForText2Image

        local = Path(self.name).is_dir() or not hub_answers(self.name)
        try:
            pipe = AutoPipelineForText2Image.from_pretrained(self.name, dtype=self.dtype, local_files_only=local)
        except (OSError, ValueError) as error:
            raise UnstillError(
                f"The text-to-image model {self.name} could not be loaded: it is neither a diffusers folder nor in "
                "the local cache nor on a hub that can be reached, or makes no pictures from text; name another one."
            ) from error
        pipe.set_progress_bar_config(disable=True)
        if self.offload and self.device.type != "cpu":
            pipe.enable_model_cpu_offload(device=self.device)
        else:
            pipe.to(self.device)
        return pipe


def from_text_to_image(
    make: Callable[..., Any],
    prompt: str,
    count: int,
    size: tuple[int, int],
    batch: int,
    generator: torch.Generator,
    progress: StepProgress,
) -> list[Image.Image]:
    """
    Generates pictures with a diffusers text-to-image pipeline, or a callable with the same arguments and result.

    Args:
        make: the pipeline.
        prompt: of all pictures.
        count: number of pictures.
        size: (height, width) that they are resized and cropped to.
        batch: pictures in one call.
        generator: of all noise.
        progress: called with the number of pictures done and in total.

    Raises:
        UnstillError: the result does not hold as many PIL pictures as were requested.
    """
    images: list[Image.Image] = []
    for part in batches(count, batch):
        requested = part.stop - part.start
        with clear_refusals(make):
            result = make(prompt=prompt, num_images_per_prompt=requested, generator=generator, output_type="pil")
        pictures = getattr(result, "images", None)
        if not isinstance(pictures, list) or not all(isinstance(image, Image.Image) for image in pictures):
            raise UnstillError(
                f"text_to_image returned {type(result).__name__}, but PIL pictures in `.images` were expected, "
                "as of a diffusers text-to-image pipeline."
            )
        if len(pictures) != requested:
            raise UnstillError(
                f"text_to_image returned {len(pictures)} pictures, but num_images_per_prompt is {requested}."
            )
        images += [resize_and_crop(image.convert("RGB"), size) for image in pictures]
        progress(part.stop, count)
    return images
