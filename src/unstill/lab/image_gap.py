"""
The motion that a model loses by seeing an image: a video of a text alone against one of the same text and the first
frame of that very video.

Choi et al., "Adaptive Low-Pass Guidance", https://huggingface.co/papers/2506.08456, Section 3: the image is one that
the model itself has made, so that nothing but the way in which it is given differs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from unstill.data.images import frame_picture
from unstill.errors import UnstillError
from unstill.hooks import apply
from unstill.lab.bootstrap import Interval, weights
from unstill.lab.motion_response import motion_of
from unstill.methods.base import Method
from unstill.models import registry
from unstill.models.call_arguments import arguments, generate, parameters, takes_text_alone


Video = torch.Tensor
"""`(F, 3, H, W)` in [0, 1]."""


@dataclass(frozen=True, slots=True)
class ImageGap:
    """
    Attributes:
        without: motion of the videos made of a text alone, as `motion_of` measures it.
        with_image: motion of those made of the same texts and the first frames of the former.
        gap: with_image - without, paired; below 0 where the image takes motion away.
    """

    without: Interval
    with_image: Interval
    gap: Interval

    def as_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name).as_dict() for name in self.__slots__}


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoPairs:
    """
    Makes pairs of videos with pipelines.

    Args:
        pipe: the image-to-video pipeline.
        text_pipe: returns the one that makes a video of a text alone, perhaps the same.
        text_of: the text of a pair, by its index.
        methods: act in the videos with an image.
        frames, size: of the videos, size as (height, width) in pixels.
        seed: of pair i: `seed + i`.
    """

    pipe: Any
    text_pipe: Callable[[], Any]
    text_of: Callable[[int], str]
    methods: Sequence[Method] = ()
    frames: int
    size: tuple[int, int]
    seed: int = 0

    def make(self, index: int) -> tuple[Video, Video]:
        """The videos without and with an image."""
        return video_pair(self._of_text, self._of_image, self.text_of(index), self.seed + index)

    def _of_text(self, text: str, seed: int) -> Video:
        return self._generate(self.text_pipe(), None, text, seed)

    def _of_image(self, first: torch.Tensor, text: str, seed: int) -> Video:
        with apply(self.pipe, *self.methods) if self.methods else nullcontext():
            return self._generate(self.pipe, first, text, seed)

    def _generate(self, pipe: Any, first: torch.Tensor | None, text: str, seed: int) -> Video:
        picture = None if first is None else frame_picture(first)
        call = arguments(type(pipe), image=picture, prompt=text, frames=self.frames, size=self.size)
        return generate(pipe, call, seed).float() / 255


def check_image_gap(model: str, text_model: str | None, pairs: int, has_text: bool) -> None:
    """
    Raises `UnstillError` where pairs of videos cannot be made; an unknown hub id passes.

    Args:
        model, text_model: names, folders or hub ids.
        pairs: how many.
        has_text: whether there are texts.
    """
    if not pairs:
        raise UnstillError(
            f"{text_model} is for the gap between videos with and without an image; also give the number of pairs."
        )
    if not has_text:
        raise UnstillError(
            "The gap between videos with and without an image needs a text; give a prompt, or leave out the clips."
        )
    cls = registry.pipeline_class(model)
    if cls is not None and not {"image", "prompt"} <= set(parameters(cls)):
        raise UnstillError(
            f"{model} does not take both an image and a text, so it cannot show what the image changes; leave out "
            "the gap."
        )
    free = cls if text_model is None else registry.pipeline_class(text_model)
    if free is not None and not takes_text_alone(free):
        advice = "leave out the gap" if text_model else "name the text-to-video model that belongs to it"
        raise UnstillError(f"{text_model or model} makes no video of a text alone; {advice}.")


def video_pair(
    of_text: Callable[[str, int], Video], of_image: Callable[[torch.Tensor, str, int], Video], prompt: str, seed: int
) -> tuple[Video, Video]:
    """A video of a text alone, and one of the same text and the former's first frame; arguments as of
    `measure_image_gap`."""
    free = of_text(prompt, seed)
    return free, of_image(free[0], prompt, seed)


def measure_image_gap(
    of_text: Callable[[str, int], Video],
    of_image: Callable[[torch.Tensor, str, int], Video],
    prompts: Sequence[str],
    motion: Callable[[Video], float] = motion_of,
) -> ImageGap:
    """
    Makes two videos of every prompt.

    Args:
        of_text: makes a video of a prompt and a seed, without an image: the same model, or its text-to-video twin.
        of_image: makes a video of a picture `(3, H, W)`, a prompt and a seed.
        prompts: at least one; the seed is a prompt's place in the list.
        motion: what is compared.

    Raises:
        UnstillError: no prompts.
    """
    if not prompts:
        raise UnstillError("The gap between videos with and without an image needs prompts; give at least one.")
    pairs = [video_pair(of_text, of_image, prompt, seed) for seed, prompt in enumerate(prompts)]
    return summarise_image_gap([(motion(free), motion(held)) for free, held in pairs])


def summarise_image_gap(pairs: Sequence[tuple[float, float]]) -> ImageGap:
    """
    Args:
        pairs: of every prompt, the motion without and with the image.

    Returns:
        Means with bootstrap intervals over prompts.
    """
    values = np.array(pairs)
    shares = weights(len(pairs)) / len(pairs)
    without, with_image, gap = (
        Interval.of(shares @ column, len(pairs), bounds)
        for column, bounds in (
            (values[:, 0], (0.0, np.inf)),
            (values[:, 1], (0.0, np.inf)),
            (values[:, 1] - values[:, 0], (-np.inf, np.inf)),
        )
    )
    return ImageGap(without, with_image, gap)
