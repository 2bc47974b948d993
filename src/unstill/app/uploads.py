"""Uploaded pictures: only this server's own files are opened, their size is checked first, only pixels are kept."""

import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from PIL import Image

from unstill.app.limits import Limits
from unstill.data.images import decode_rgb, open_picture
from unstill.errors import UnstillError


SCANS = 100  # of a JPEG; encoders write about ten, and every one is a pass over all pixels
# One thread: in several, each would keep freed memory of its own for later.
_decoder = ThreadPoolExecutor(1, thread_name_prefix="decoder")
_waiting = threading.Semaphore(32)


def own_upload(path: Any, folder: Path, limits: Limits) -> Path:
    """The resolved path of a file that was uploaded to this server.

    Args:
        path: what a request says.
        folder: the resolved folder of uploads.

    Raises:
        UnstillError: no regular file inside of `folder` once links are followed, or one above the limit. The sentence
            is always the same, so that nobody learns which files there are.
    """
    gone = UnstillError("This picture is not on the server; upload it again.")
    if not isinstance(path, str):
        raise gone
    try:
        real = Path(path).resolve(strict=True)
        status = real.stat()
    except (OSError, ValueError, RuntimeError) as error:  # not there, a null byte, links in a circle
        raise gone from error
    if not real.is_relative_to(folder) or not stat.S_ISREG(status.st_mode) or status.st_size > limits.upload:
        raise gone
    return real


def checked_picture(path: Path, limits: Limits) -> Image.Image:
    """
    The picture in an uploaded file as upright 8-bit RGB of at most `limits.side` pixels: nothing else of the file,
    such as where a photograph was taken, is kept. One picture is decoded at a time, so that many visitors take no
    more memory than one.

    Raises:
        UnstillError: too large, damaged or no picture, or too many wait; the sentence does not say where the server
            keeps it.
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
            scale = 2 * limits.side / max(image.size)  # twice what is kept: the rest is left out by the decoder
            if scale < 1:
                image.draft("RGB", (max(1, int(image.width * scale)), max(1, int(image.height * scale))))
        picture = decode_rgb(path, image)
    picture.thumbnail((limits.side, limits.side), Image.Resampling.LANCZOS, reducing_gap=3.0)
    return Image.frombytes("RGB", picture.size, picture.tobytes())  # a new one, without what hangs on the old one
