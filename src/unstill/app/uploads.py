"""Uploaded pictures: only files in the upload folder are opened, sizes are checked first, only pixels are kept."""

import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from PIL import Image

from unstill.app.limits import Limits
from unstill.data.images import decode_rgb, open_picture
from unstill.errors import UnstillError


SCANS = 100  # maximum in a JPEG; encoders write about ten, and each costs a pass over all pixels
# A single thread, since the allocator of every thread would keep freed memory of its own.
_decoder = ThreadPoolExecutor(1, thread_name_prefix="decoder")
# Not gradio's queue: one that is full of videos to make would keep visitors from choosing a picture.
_waiting = threading.Semaphore(32)


def own_upload(path: Any, folder: Path, limits: Limits) -> Path:
    """
    Resolves the path of an uploaded file.

    Args:
        path: as sent in the request.
        folder: the resolved folder of uploads.
        limits: of the server.

    Raises:
        UnstillError: no regular file in `folder` after links are resolved, or one above the size limit. The message is
            always the same, so that it does not reveal which files exist.
    """
    gone = UnstillError("This picture is not on the server; upload it again.")
    if not isinstance(path, str):
        raise gone
    try:
        real = Path(path).resolve(strict=True)
        status = real.stat()
    except (OSError, ValueError, RuntimeError) as error:  # missing, a null byte, a loop of links
        raise gone from error
    if not real.is_relative_to(folder) or not stat.S_ISREG(status.st_mode) or status.st_size > limits.upload:
        raise gone
    return real


def checked_picture(path: Path, limits: Limits) -> Image.Image:
    """
    Decodes an uploaded picture.

    Metadata, such as where a photograph was taken, is dropped. One picture is decoded at a time, which bounds the
    memory.

    Returns:
        Upright 8-bit RGB, at most `limits.side` pixels per side.

    Raises:
        UnstillError: a file that is too large, damaged or no picture, or too many requests; the message does not
            contain the path on the server.
    """
    if not path.is_file():
        raise UnstillError("This picture is not on the server any more; upload it again.")
    size = path.stat().st_size
    if size > limits.upload:
        raise UnstillError(
            f"This file has {size / 1e6:.0f} MB; pictures may have {limits.upload / 1e6:.0f}, so scale it down first."
        )
    if not _waiting.acquire(blocking=False):
        raise UnstillError("Many pictures are being read just now; try again in a minute.")
    try:
        return _decoder.submit(_decoded, path, limits).result()
    except UnstillError as error:
        raise UnstillError(str(error).replace(str(path), path.name)) from error
    finally:
        _waiting.release()


def _decoded(path: Path, limits: Limits) -> Image.Image:
    with open_picture(path) as image:
        if image.width * image.height > limits.megapixels * 1e6:
            raise UnstillError(
                f"This picture has {image.width * image.height / 1e6:.0f} megapixels; up to {limits.megapixels} "
                "can be read, so scale it down first."
            )
        if image.format == "JPEG":
            if path.read_bytes().count(b"\xff\xda") > SCANS:
                raise UnstillError(f"This JPEG has more than {SCANS} scans; save it again and retry.")
            scale = 2 * limits.side / max(image.size)  # the JPEG decoder scales down to twice the final size
            if scale < 1:
                image.draft("RGB", (max(1, int(image.width * scale)), max(1, int(image.height * scale))))
        picture = decode_rgb(path, image)
    picture.thumbnail((limits.side, limits.side), Image.Resampling.LANCZOS, reducing_gap=3.0)
    return Image.frombytes("RGB", picture.size, picture.tobytes())  # a new image without metadata
