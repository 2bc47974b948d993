"""
A reward for pictures of the synthetic world: whether they show the toys that the caption names, in the right colours,
shapes and ground colour. It uses the picture alone and has no weights.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unstill.data.images import resize_and_crop
from unstill.data.synthetic_drawing import SHAPES, depth_inside
from unstill.data.synthetic_world import COLOURS
from unstill.errors import UnstillError


SIDE = 32  # pictures are averaged to this many pixels, in which a toy is about 12 wide
_TURNS = {
    "triangle": (3, 6),
    "square": (4, 5),
    "star": (5, 5),
    "flower": (6, 3),
}  # symmetry, number of angles tried
_RADII = (0.155, 0.18, 0.205)  # of toys, in picture sides


def world(prompt: str, images: Sequence[Image.Image]) -> list[float]:
    """
    The mean over the toys that `prompt` names ("a red ring and a blue star ... over green") of how visible each is,
    and of the share of the border that has the colour of the ground, from about 0 to 1.

    Raises:
        UnstillError: the prompt names no toy and no ground.
    """
    toys, ground = parse(prompt)
    if not toys and ground is None:
        raise UnstillError(
            f"The reward world looks for toys such as 'a red ring' over 'green', and {prompt!r} names none; use "
            "another reward."
        )
    scores = []
    for picture in map(_pixels, images):
        parts = [evidence(picture, colour)[SHAPES.index(shape)].item() for colour, shape in toys]
        if ground is not None:
            parts.append(ground_share(picture, ground))
        scores.append(sum(parts) / len(parts))
    return scores


def parse(prompt: str) -> tuple[list[tuple[str, str]], str | None]:
    """The (colour, shape) pairs and the colour of the ground that a caption names."""
    words = re.findall(r"[a-z]+", prompt.lower())
    pairs = list(zip(words, words[1:], strict=False))
    toys = [(a, b) for a, b in pairs if a in COLOURS and b in SHAPES]
    return toys, next((b for a, b in pairs if a == "over" and b in COLOURS), None)


def evidence(picture: Tensor, colour: str) -> Tensor:
    """
    How visible a toy of each shape is in a colour, `(shapes,)`: the largest normalised correlation, over positions,
    sizes and angles, of its silhouette with the hue similarity of the pixels.

    Args:
        picture: `(3, SIDE, SIDE)` in [0, 1].
    """
    padded = torch.nn.functional.pad(likeness(picture, colour), (0, SIDE, 0, SIDE))
    outlines, windows, sizes, shapes = _templates()
    spectrum, squares = torch.fft.rfft2(padded), torch.fft.rfft2(padded.square())
    overlap = torch.fft.irfft2(outlines * spectrum)
    mean = torch.fft.irfft2(windows * spectrum) / sizes
    spread = (torch.fft.irfft2(windows * squares) / sizes - mean.square()).clamp(min=0).sqrt()
    alike = overlap / (sizes.sqrt() * (spread + 0.05))  # 0.05 suppresses faint traces of a colour
    middle = alike[:, SIDE // 8 : SIDE - SIDE // 8, SIDE // 8 : SIDE - SIDE // 8]  # where centres of toys are
    best = middle.flatten(1).amax(1)
    return torch.stack([best[shapes == index].amax() for index in range(len(SHAPES))])


def ground_share(picture: Tensor, colour: str) -> float:
    """The share of the picture's border that has the hue of a colour."""
    border = torch.ones(SIDE, SIDE, dtype=torch.bool)
    border[2:-2, 2:-2] = False
    return likeness(picture, colour, width=0.06)[border].mean().item()


def likeness(picture: Tensor, colour: str, width: float = 0.035) -> Tensor:
    """The similarity of each pixel's hue to that of a colour, `(H, W)` in [0, 1]; 0 for grey pixels."""
    high, low = picture.amax(0), picture.amin(0)
    chroma = high - low
    red, green, blue = picture
    part = chroma.clamp(min=1e-6)
    sixth = torch.where(
        high == red,
        ((green - blue) / part) % 6,
        torch.where(high == green, (blue - red) / part + 2, (red - green) / part + 4),
    )
    hue_error = ((sixth / 6 - COLOURS[colour][0] + 0.5) % 1 - 0.5).abs()
    return torch.exp(-((hue_error / width) ** 2)) * ((chroma - 0.05) / 0.2).clamp(0, 1)


@cache
def _templates() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """
    Spectra of outlines (mean 0 and deviation 1 inside of their windows) and of windows, the pixels of the windows, and
    which shape each is.
    """
    axis = torch.arange(2 * SIDE)
    axis = torch.where(axis < SIDE, axis, axis - 2 * SIDE) / SIDE  # the centre is pixel 0; correlation wraps around
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    r, phi = (x * x + y * y).sqrt(), torch.atan2(y, x)
    outlines, windows, shapes = [], [], []
    for index, shape in enumerate(SHAPES):
        fold, count = _TURNS.get(shape, (1, 1))
        for radius in _RADII:
            for turn in range(count):
                inside = depth_inside(
                    torch.tensor(index), torch.tensor(radius), r, phi - 2 * math.pi / fold * turn / count
                )
                outline, window = torch.sigmoid(inside * SIDE / 0.6), (r < 1.35 * radius + 1.5 / SIDE).float()
                mean = (outline * window).sum() / window.sum()
                centred = (outline - mean) * window
                outlines.append(centred / centred.norm())
                windows.append(window)
                shapes.append(index)
    stacked = torch.stack(windows)
    spectra = torch.fft.rfft2(torch.stack(outlines)).conj(), torch.fft.rfft2(stacked).conj()
    return *spectra, stacked.sum((1, 2))[:, None, None], torch.tensor(shapes)


def _pixels(image: Image.Image) -> Tensor:
    """(3, SIDE, SIDE) in [0, 1], the means of blocks of pixels."""
    side = max(SIDE, min(image.size) // SIDE * SIDE)
    square = np.asarray(resize_and_crop(image.convert("RGB"), (side, side)), dtype=np.float32) / 255
    blocks = square.reshape(SIDE, side // SIDE, SIDE, side // SIDE, 3).mean((1, 3))
    return torch.from_numpy(blocks).permute(2, 0, 1)
