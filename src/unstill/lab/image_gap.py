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
from unstill.methods.base import Method
from unstill.models import registry
from unstill.models.call_arguments import arguments, generate, parameters, takes_text_alone


Video = torch.Tensor
"""`(F, 3, H, W)` in [0, 1]."""


@dataclass(frozen=True, slots=True)
class ImageGap:
    """
    Attributes:
        without: motion of the videos made of a text alone.
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
        """A video of a text alone, and one of the same text and seed and the former's first frame."""
        text, seed = self.text_of(index), self.seed + index
        without = self._generate(self.text_pipe(), None, text, seed)
        with apply(self.pipe, *self.methods) if self.methods else nullcontext():
            return without, self._generate(self.pipe, without[0], text, seed)

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


def summarise_image_gap(pairs: Sequence[tuple[float, float]]) -> ImageGap:
    """
    Args:
        pairs: of every text, the motion without and with the image, as `motion_of` measures it; at least one.

    Returns:
        Means with bootstrap intervals over texts.
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
