"""Uploaded pictures: looked at before they are decoded, and kept only as pixels."""

from pathlib import Path

from PIL import Image

from unstill.app.limits import Limits
from unstill.data.images import open_picture, read_image
from unstill.errors import UnstillError


def checked_picture(path: Path, limits: Limits) -> Image.Image:
    """
    The picture in an uploaded file as upright 8-bit RGB of at most `limits.side` pixels: nothing else of the file,
    such as where a photograph was taken, is kept.

    Raises:
        UnstillError: too large, damaged or no picture; the sentence does not say where the server keeps it.
    """
    size = path.stat().st_size
    if size > limits.upload:
        raise UnstillError(
            f"This file has {size / 1e6:.0f} MB; pictures may have {limits.upload / 1e6:.0f}, so scale it down first."
        )
    try:
        with open_picture(path) as image:
            if image.width * image.height > limits.megapixels * 1e6:
                raise UnstillError(
                    f"This picture has {image.width * image.height / 1e6:.0f} megapixels; up to {limits.megapixels} "
                    "can be read, so scale it down first."
                )
        picture = read_image(path)
    except UnstillError as error:
        raise UnstillError(str(error).replace(str(path), path.name)) from error
    picture.thumbnail((limits.side, limits.side), Image.Resampling.LANCZOS, reducing_gap=3.0)
    return Image.frombytes("RGB", picture.size, picture.tobytes())  # a new one, without what hangs on the old one
