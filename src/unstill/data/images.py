"""Reads still pictures as upright 8-bit RGB images; resizes and crops images and clips to a given size."""

import io
import os
import warnings
from pathlib import Path
from typing import overload

import numpy as np
import torch
from PIL import ExifTags, Image, ImageCms, UnidentifiedImageError

from unstill.errors import UnstillError


PICTURE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".ppm", ".pgm"}
    | {".tga", ".jp2", ".apng"}
)
# An explicit list, because Pillow starts Ghostscript for a file that says it is PostScript. JPEG includes MPO.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "AVIF", "PPM", "TGA", "JPEG2000")
# Errors that Pillow raises for damaged files, besides its own.
DAMAGED = (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, OverflowError)

MAX_PICTURE_BYTES = 640_000_000
"""Limit of decoded pixels in bytes: 4 per pixel of a picture (160 megapixels), 12 of an animation, whose frames are
composed of three pictures. Checked against the declared size, before decoding."""

STRIP = 4_000_000  # pixels that are converted at a time
_TURNS = {  # by the EXIF orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

Size = tuple[int, int]
"""(height, width) in pixels, the order of tensors."""


def read_image(path: str | os.PathLike[str], size: Size | None = None) -> Image.Image:
    """
    Reads one picture as an upright 8-bit RGB image.

    Applies the camera's orientation (EXIF), composites transparency over white, scales 16-bit values, converts
    embedded colour profiles (CMYK included) to sRGB, and takes the first frame of an animation.

    Args:
        path: a picture file.
        size: (H, W) to fill by resize and centre crop. Large JPEGs are then decoded at a fraction of their size.

    Raises:
        UnstillError: no such file, not a picture, damaged, or larger than `MAX_PICTURE_BYTES`.
    """
    path = Path(path)
    with open_picture(path) as image:
        if size is not None and image.format == "JPEG":
            short = max(check_size(size))  # after a turn by EXIF either side can be the short one
            image.draft("RGB", (2 * short, 2 * short))
        picture = decode_rgb(path, image)
    return picture if size is None else resize_and_crop(picture, size)


def decode_rgb(path: Path, image: Image.Image) -> Image.Image:
    """
    The current frame of an open picture file as upright 8-bit sRGB, see `to_rgb`.

    Raises:
        UnstillError: the file is damaged, or there is not enough memory for it.
    """
    try:
        return to_rgb(image)
    except MemoryError as error:
        raise UnstillError(f"There is not enough memory for {path}; scale it down first.") from error
    except DAMAGED as error:
        raise UnstillError(f"{path} is damaged ({error}); save it again and retry.") from error


def open_picture(path: Path) -> Image.Image:
    """
    Opens a picture file without decoding it; the caller closes it.

    Raises:
        UnstillError: see `read_image`.
    """
    if path.parts[:1] in (("http:",), ("https:",)):  # a Path has lost one of the slashes
        raise UnstillError(f"{path} is an address, and none is opened: save the picture and name the file.")
    if not path.exists():
        raise UnstillError(f"There is no picture at {path}; check the path.")
    if path.is_dir():
        raise UnstillError(f"{path} is a folder, not a picture; name one picture inside it.")
    try:
        if path.stat().st_size == 0:
            raise UnstillError(f"{path} is empty (0 bytes); save it again and retry.")
        with warnings.catch_warnings():  # Pillow warns from 89 megapixels on, and refuses from 178
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(path, formats=FORMATS)
        animated = image.format in ("GIF", "PNG", "WEBP") and getattr(image, "is_animated", False)
        if image.width * image.height * (12 if animated else 4) > MAX_PICTURE_BYTES:
            image.close()
            raise UnstillError(_too_large(path, animated))
        return image
    except Image.DecompressionBombError as error:
        raise UnstillError(_too_large(path, False)) from error
    except PermissionError as error:
        raise UnstillError(f"{path} may not be read (permission denied); change its permissions.") from error
    except UnidentifiedImageError as error:
        raise UnstillError(_not_a_picture(path)) from error
    except UnstillError:
        raise
    except DAMAGED as error:
        raise UnstillError(f"{path} is damaged ({error}); save it again and retry.") from error


def to_rgb(image: Image.Image) -> Image.Image:
    """
    The current frame of an open image as upright 8-bit sRGB, transparency over white.

    Converts strip by strip, which needs little more memory than the decoded picture and the result.
    """
    image.load()
    turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    rows = max(1, STRIP // image.width)
    if rows >= image.height:
        upright = _strip_to_rgb(image)
    else:
        upright = Image.new("RGB", image.size)
        for top in range(0, image.height, rows):
            strip = image.crop((0, top, image.width, min(top + rows, image.height)))
            upright.paste(_strip_to_rgb(strip), (0, top))
    return upright if turn is None else upright.transpose(turn)


def _strip_to_rgb(image: Image.Image) -> Image.Image:
    profile = image.info.get("icc_profile")
    if image.mode.startswith("I"):  # 16-bit grey: 65535 is white (convert("L") would clip at 255)
        grey = np.asarray(image).astype(np.float64) / 257.0
        image = Image.fromarray(np.clip(grey + 0.5, 0, 255).astype(np.uint8))
    elif image.mode == "F":
        grey = np.nan_to_num(np.asarray(image).astype(np.float64))
        image = Image.fromarray(np.clip(grey * 255.0 + 0.5, 0, 255).astype(np.uint8))
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    if image.mode == "P":
        image = image.convert("RGB")
    if profile and image.mode in ("RGB", "L", "CMYK"):
        image = _to_srgb(image, profile)
    return image.convert("RGB")


@overload
def resize_and_crop(frames: Image.Image, size: Size) -> Image.Image: ...
@overload
def resize_and_crop(frames: torch.Tensor, size: Size) -> torch.Tensor: ...
def resize_and_crop(frames: Image.Image | torch.Tensor, size: Size) -> Image.Image | torch.Tensor:
    """
    Crops the largest centred part with the aspect ratio of `size`, and resizes it; nothing is padded or stretched.

    Crop and antialiased (Lanczos) resize are one operation on fractional source coordinates, so the aspect ratio is
    exact. Images and clips use the same kernel: a video's first frame equals the frame read as a picture.

    Args:
        frames: a PIL image, or a uint8 or float tensor (..., H, W) on the CPU.
        size: (H, W) in pixels.

    Returns:
        The same kind of object; float tensors are not clamped (Lanczos can overshoot).
    """
    height, width = check_size(size)
    if isinstance(frames, Image.Image):
        box = largest_box(frames.width, frames.height, width, height)
        if frames.size == (width, height):
            return frames
        # `reducing_gap` first halves very large pictures by an exact box filter: same look, several times faster.
        return frames.resize((width, height), Image.Resampling.LANCZOS, box=box, reducing_gap=3.0)
    if frames.ndim < 2 or not (frames.dtype == torch.uint8 or frames.is_floating_point()):
        raise UnstillError(
            f"Frames are a uint8 or float tensor (..., H, W), but got {frames.dtype} {tuple(frames.shape)}."
        )
    if frames.shape[-2:] == (height, width):
        return frames
    planes = frames.reshape(-1, *frames.shape[-2:])
    planes = planes if frames.dtype == torch.uint8 else planes.float()
    resized = [np.asarray(resize_and_crop(Image.fromarray(plane.numpy()), size)) for plane in planes]
    return torch.from_numpy(np.stack(resized)).to(frames.dtype).reshape(*frames.shape[:-2], height, width)


def frame_picture(frame: torch.Tensor) -> Image.Image:
    """A frame `(3, H, W)` in [0, 1] as a picture."""
    return Image.fromarray((frame * 255).round().byte().permute(1, 2, 0).numpy())


def check_size(size: Size) -> Size:
    """`size` as integers; raises `UnstillError` unless it is (H, W) in whole positive pixels."""
    if len(size) != 2 or any(int(side) != side or side < 1 for side in size):
        raise UnstillError(f"A size is (height, width) in whole pixels of at least 1, but got {tuple(size)}.")
    return int(size[0]), int(size[1])


def largest_box(
    width: int, height: int, to_width: int, to_height: int, x: float = 0.5, y: float = 0.5
) -> tuple[float, float, float, float]:
    """
    The largest box of an image with the target's aspect ratio.

    Args:
        width, height: of the image.
        to_width, to_height: of the target.
        x, y: the wanted centre in [0, 1] of width and height; the box is moved where it would leave the image.

    Returns:
        (left, top, right, bottom) in pixels.
    """
    scale = min(width / to_width, height / to_height)
    across, down = min(scale * to_width, float(width)), min(scale * to_height, float(height))
    left = min(max(x * width - across / 2, 0.0), width - across)
    top = min(max(y * height - down / 2, 0.0), height - down)
    return left, top, left + across, top + down


def _to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if ImageCms.getProfileDescription(source).strip().startswith("sRGB"):
            return image
        converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError):
        return image  # a broken or mismatched profile: the plain conversion is the best that is left
    return image if converted is None else converted


def _too_large(path: Path, animated: bool) -> str:
    frames = " in every frame" if animated else ""
    megapixels = MAX_PICTURE_BYTES / (12 if animated else 4) / 1e6
    return f"{path} has more than {megapixels:.0f} megapixels{frames}; scale it down first."


def _not_a_picture(path: Path) -> str:
    import av  # only on the way to an error: pictures alone need no video library

    with path.open("rb") as file:
        if file.read(4).startswith((b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\0", b"MM\0*")):
            return f"{path} is damaged; save it again and retry."
    try:
        with av.open(str(path)) as container:
            kind = container.format.name if container.streams.video else ""
    except (OSError, av.FFmpegError, ValueError):
        kind = ""
    if path.suffix.lower() in (".heic", ".heif", ".svg", ".psd", ".raw", ".dng", ".cr2", ".nef", ".arw", ".jxl"):
        return f"{path} is of a kind that cannot be read ({path.suffix}); convert it to PNG or JPEG."
    # The rest that FFmpeg opens are kinds it takes for video by their names or by mistake (text, PDF, icons).
    if {"mov", "matroska", "avi", "mpegts", "mpeg", "flv", "asf", "ogg"} & set(kind.split(",")):
        return f"{path} is a video, not a picture; save one of its frames as a PNG and pass that."
    return f"{path} is not a picture that can be read; pass a PNG, JPEG, WebP, GIF, TIFF, BMP or AVIF file."
