"""
The motion that a model loses by seeing an image: a video of a text alone against one of the same text and the first
frame of that very video.

Choi et al., "Adaptive Low-Pass Guidance", https://huggingface.co/papers/2506.08456, Section 3: the image is one that
the model itself has made, so that nothing but the way in which it is given differs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from unstill.errors import UnstillError
from unstill.lab.bootstrap import Interval, weights
from unstill.lab.probe_clips import flow_of


Video = torch.Tensor
"""`(F, 3, H, W)` in [0, 1]."""


@dataclass(frozen=True, slots=True)
class ImageGap:
    """
    Attributes:
        without: motion of the videos made of a text alone, picture sides per frame.
        with_image: motion of those made of the same texts and the first frames of the former.
        gap: with_image - without, paired; below 0 where the image takes motion away.
    """

    without: Interval
    with_image: Interval
    gap: Interval

    def as_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name).as_dict() for name in self.__slots__}


def measure_image_gap(
    of_text: Callable[[str, int], Video],
    of_image: Callable[[torch.Tensor, str, int], Video],
    prompts: Sequence[str],
    motion: Callable[[Video], float] = flow_of,
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
    pairs = []
    for seed, prompt in enumerate(prompts):
        free = of_text(prompt, seed)
        pairs.append((motion(free), motion(of_image(free[0], prompt, seed))))
    values = np.array(pairs)
    w = weights(len(pairs))
    shares = w / w.sum(1, keepdims=True)
    without, with_image, gap = (
        Interval.of(shares @ column, len(pairs))
        for column in (values[:, 0], values[:, 1], values[:, 1] - values[:, 0])
    )
    return ImageGap(without, with_image, gap)
