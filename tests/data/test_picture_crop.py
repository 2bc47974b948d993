"""What a model sees of pictures of other aspect ratios than its own."""

import numpy as np
import pytest
from PIL import Image

from unstill.data.images import resize_and_crop
from unstill.data.picture_crop import fit_picture, parse_crop
from unstill.errors import UnstillError


def ramp(width: int, height: int) -> Image.Image:
    """Red tells the place from left to right, green from top to bottom, both 0 to 255."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, 0 * x], -1).round().astype(np.uint8))


def seen(picture: Image.Image) -> tuple[float, float, float, float]:
    """The left, right, top and bottom end of the part of a ramp, from 0 to 1."""
    pixels = np.asarray(picture).astype(float) / 255
    red, green = pixels[..., 0], pixels[..., 1]
    return red[:, 0].mean(), red[:, -1].mean(), green[0].mean(), green[-1].mean()


@pytest.mark.parametrize(
    ("size", "crop", "expected"),
    [
        ((300, 200), "auto", (1 / 6, 5 / 6, 0, 1)),
        ((300, 200), "centre", (1 / 6, 5 / 6, 0, 1)),
        ((300, 200), (0.0, 50.0), (0, 2 / 3, 0, 1)),  # moved inside
        ((300, 200), (100.0, 0.0), (1 / 3, 1, 0, 1)),
        ((300, 200), (40.0, 50.0), (0.4 - 1 / 3, 0.4 + 1 / 3, 0, 1)),
        ((200, 400), (50.0, 30.0), (0, 1, 0.05, 0.55)),
    ],
)
def test_the_part_around_a_point(
    size: tuple[int, int], crop: object, expected: tuple[float, float, float, float]
) -> None:
    fitted = fit_picture(ramp(*size), (100, 100), crop)  # type: ignore[arg-type]
    assert fitted.picture.size == (100, 100)
    assert seen(fitted.picture) == pytest.approx(expected, abs=0.012)
    assert fitted.box == pytest.approx(
        [e * s for e, s in zip(np.array(expected)[[0, 2, 1, 3]], size * 2, strict=True)]
    )


def test_the_centre_is_the_crop_of_before() -> None:
    picture = ramp(300, 200)
    assert fit_picture(picture, (64, 64), "centre").picture.tobytes() == resize_and_crop(picture, (64, 64)).tobytes()


@pytest.mark.parametrize(("width", "height"), [(320, 180), (180, 320)])
def test_a_long_picture_is_shown_whole_on_a_blurred_ground(width: int, height: int) -> None:
    fitted = fit_picture(ramp(width, height), (96, 96))
    assert fitted.crop == "fit" and fitted.picture.size == (96, 96) and fitted.box == (0, 0, width, height)
    pixels = np.asarray(fitted.picture).astype(float)
    pixels = pixels if width > height else pixels.transpose(1, 0, 2)[..., [1, 0, 2]]
    inner = pixels[21:75]  # 54 of 96 lines
    assert inner[:, 0, 0].max() < 5 and inner[:, -1, 0].min() > 250 and inner[0, :, 1].max() < 6
    assert pixels[20, :, 1].min() > 30  # the ground is the picture blurred, not black and not the picture's border
    sides = "above and below" if width > height else "left and right"
    assert fitted.note == f"The model sees the whole picture, with a blurred copy of it {sides} (44% of the frame)."


def test_what_was_cut_off_is_said() -> None:
    fitted = fit_picture(ramp(300, 200), (96, 96))
    assert fitted.note == "The model sees 67% of the picture; cut off: 17% at the left and 17% at the right."
    assert fitted.crop == "50,50"
    fitted = fit_picture(ramp(200, 400), (96, 96), (50, 0))
    assert fitted.note == "The model sees 50% of the picture; cut off: 50% at the bottom."
    assert fitted.crop == "50,25"  # what was done, not what was asked for
    for picture, size in (
        (ramp(200, 200), (96, 96)),
        (ramp(161, 90), (576, 1024)),
        (Image.new("RGB", (1, 1)), (8, 8)),
    ):
        for crop in ("auto", "centre", "fit", (0.0, 0.0)):
            fitted = fit_picture(picture, size, crop)
            assert (fitted.crop, fitted.note) == ("whole", "") and fitted.picture.size == size[::-1]


def test_extreme_pictures() -> None:
    for width, height in ((2000, 1), (1, 2000), (3, 1)):
        for crop in ("auto", "centre", "fit", (100.0, 100.0)):
            assert fit_picture(ramp(width, height), (40, 30), crop).picture.size == (30, 40)


def test_crops_are_read() -> None:
    assert [parse_crop(text) for text in ("auto", "Centre", "center", " fit", "30,50", "30%, 50.5%")] == [
        "auto",
        "centre",
        "centre",
        "fit",
        (30, 50),
        (30, 50.5),
    ]
    for wrong in ("", "left", "30", "30,50,60", "-1,50", "30,101", "nan,5", "inf,0"):
        with pytest.raises(UnstillError, match="A crop is auto, centre, fit"):
            parse_crop(wrong)
    with pytest.raises(UnstillError, match="A crop is"):
        fit_picture(ramp(9, 9), (4, 4), "middle")  # type: ignore[arg-type]
