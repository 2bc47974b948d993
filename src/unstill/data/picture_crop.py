"""Fits a picture of another aspect ratio to a model's frames: a crop, or the whole picture on a blurred background."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from PIL import Image, ImageFilter

from unstill.data.images import Size, check_size, largest_box, resize_and_crop
from unstill.errors import UnstillError


CUT = 0.35
"""Largest share of a picture that `"auto"` cuts off: a 3:2 picture loses a third of its width in a square frame and is
cropped, a 16:9 picture would lose 44 % and is shown whole."""

Crop = Literal["auto", "centre", "fit"] | tuple[float, float]
"""Which part of a picture fills a frame of another aspect ratio: the middle (`"centre"`), the whole on a blurred
ground (`"fit"`), the largest part around (x, y) in percent from the left and the top, or `"auto"`: the middle unless
that cuts off more than `CUT`, then the whole."""


@dataclass(frozen=True, slots=True)
class FittedPicture:
    """
    A picture as a model sees it.

    Attributes:
        picture: at the model's size.
        crop: what was done: `"whole"` (the aspect ratio is the model's), `"fit"`, or `"X,Y"`, the middle of the part
            in percent.
        box: the part of the original that is seen, (left, top, right, bottom) in its pixels.
        note: one sentence about what was cut off or added; empty for `"whole"`.
    """

    picture: Image.Image
    crop: str
    box: tuple[float, float, float, float]
    note: str


def parse_crop(text: str | tuple[float, float]) -> Crop:
    """
    Parses a crop from `"auto"`, `"centre"`, `"fit"` or `"X,Y"` in percent; a tuple is checked.

    Raises:
        UnstillError: any other value.
    """
    if not isinstance(text, str):
        return _check_crop(text)
    word = text.strip().lower()
    word = {"center": "centre"}.get(word, word)
    if word in ("auto", "centre", "fit"):
        return word  # type: ignore[return-value]
    try:
        x, y = (float(part.strip().removesuffix("%")) for part in word.split(","))
    except ValueError:
        raise _not_a_crop(text) from None
    return _check_crop((x, y))


def fit_picture(picture: Image.Image, size: Size, crop: Crop = "auto") -> FittedPicture:
    """
    Fits a picture to the frame size of a model.

    Args:
        picture: an upright RGB image.
        size: (H, W) in pixels.
        crop: see `Crop`. A part around a point near the border is moved inside the picture.

    Raises:
        UnstillError: an invalid size or crop.
    """
    height, width = check_size(size)
    crop = _check_crop(crop)
    whole = (0.0, 0.0, float(picture.width), float(picture.height))
    x, y = crop if isinstance(crop, tuple) else (50.0, 50.0)
    box = largest_box(picture.width, picture.height, width, height, x / 100, y / 100)
    seen = (box[2] - box[0]) * (box[3] - box[1]) / (picture.width * picture.height)
    if seen > 0.99:  # less than a pixel of a small frame is cut off
        return FittedPicture(resize_and_crop(picture, size), "whole", box, "")
    if crop == "fit" or (crop == "auto" and 1 - seen > CUT):
        fitted, sides = _on_blurred_ground(picture, height, width)
        note = f"The model sees the whole picture, with a blurred copy of it {sides} ({1 - seen:.0%} of the frame)."
        return FittedPicture(fitted, "fit", whole, note)
    part = picture.resize((width, height), Image.Resampling.LANCZOS, box=box, reducing_gap=3.0)
    middle = (box[0] + box[2]) / 2 / picture.width, (box[1] + box[3]) / 2 / picture.height
    name = ",".join(f"{100 * value:.3g}" for value in middle)
    return FittedPicture(part, name, box, f"The model sees {seen:.0%} of the picture; {_cut_off(picture, box)}.")


def _check_crop(crop: Crop) -> Crop:
    if crop in ("auto", "centre", "fit"):
        return crop
    if isinstance(crop, tuple) and len(crop) == 2 and all(0 <= value <= 100 for value in crop):
        return crop
    raise _not_a_crop(crop)


def _not_a_crop(crop: object) -> UnstillError:
    return UnstillError(
        f"A crop is auto, centre, fit (the whole picture), or X,Y, the middle of the part to show in percent from the "
        f"left and the top, such as 30,50; but got {crop!r}."
    )


def _cut_off(picture: Image.Image, box: tuple[float, float, float, float]) -> str:
    """How much is cut off at which sides, in words."""
    shares = {
        "left": box[0] / picture.width,
        "right": 1 - box[2] / picture.width,
        "top": box[1] / picture.height,
        "bottom": 1 - box[3] / picture.height,
    }
    cut = [f"{share:.0%} at the {side}" for side, share in shares.items() if share >= 0.005]
    return f"cut off: {' and '.join(cut)}"


def _on_blurred_ground(picture: Image.Image, height: int, width: int) -> tuple[Image.Image, str]:
    """The whole picture on a blurred enlargement of itself, and the sides on which the background is visible."""
    ground = resize_and_crop(picture, (height, width))
    ground = ground.filter(ImageFilter.GaussianBlur(min(height, width) / 16))
    scale = min(width / picture.width, height / picture.height)
    inner = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    left, top = (width - inner[0]) // 2, (height - inner[1]) // 2
    ground.paste(picture.resize(inner, Image.Resampling.LANCZOS, reducing_gap=3.0), (left, top))
    return ground, "left and right" if left > top else "above and below"
