"""`read_video` and `write_video`, for video files, animations and folders of pictures."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image

from unstill.data.decode import FOLDER_FPS, ShardMember, Stream, open_video
from unstill.data.encode import ENCODERS, write_pictures
from unstill.data.files import replacing
from unstill.data.images import Size, check_size, resize_and_crop
from unstill.errors import UnstillError


MEMORY_LIMIT = 2 << 30
"""Bytes of frames that one `read_video` may return."""

Frames = torch.Tensor | Sequence[Image.Image]
"""What can be written: a uint8 or [0, 1] float tensor (F, 3, H, W), or a list of PIL images."""


@dataclass(frozen=True, slots=True)
class Clip:
    """A video in memory: uint8 frames (F, 3, H, W) and frames per second."""

    frames: torch.Tensor
    fps: float

    @property
    def pixels(self) -> torch.Tensor:
        """The frames as float32 in [0, 1]."""
        return self.frames.float() / 255

    def __len__(self) -> int:
        return len(self.frames)


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """Mean rate, and duration in seconds if it is known, from the headers of a video."""

    fps: float
    duration: float | None


def video_info(path: str | os.PathLike[str] | ShardMember) -> VideoInfo:
    """Rate and length of a video; raises UnstillError like `read_video`."""
    with open_video(path if isinstance(path, ShardMember) else Path(path)) as source:
        return VideoInfo(source.fps, source.duration)


def read_video(
    path: str | os.PathLike[str] | ShardMember,
    fps: float | None = None,
    frames: int | None = None,
    size: Size | None = None,
    *,
    start: float = 0.0,
    stride: int = 1,
    hold_last: bool = False,
) -> Clip:
    """
    Reads a clip from a video file, an animated GIF/WebP/PNG or a folder of pictures.

    With `fps`, output frame k is the stored frame that a player shows at `start + k / fps`: the latest one whose time
    stamp is not after that instant (within half a tick where the file's clock rounds). This holds for variable
    frame rates too. Without `fps` every stored frame is taken once, or every `stride`-th. Rotation and non-square
    pixels are applied. Decoding stops at the last frame needed, and only the frames returned are converted and kept.

    Args:
        path: file or folder, or a video in a tar file. A folder's pictures are in natural order (frame_2 before
            frame_10); its rate is the one that `write_video` recorded, or else `fps`, or else 8.
        fps: frames per second to sample at; None keeps the file's own frames.
        frames: how many frames; None reads to the end.
        size: (H, W) to fill by resize and centre crop; None keeps the size.
        start: seconds from the first frame at which the clip begins.
        stride: without `fps`, take every stride-th stored frame.
        hold_last: repeat the last frame where the video is too short, instead of raising.

    Returns:
        Clip with uint8 frames (F, 3, H, W); its `fps` is the rate asked for, or the mean rate of the file / stride.

    Raises:
        UnstillError: no such file, no video, damaged before the last frame needed, too short, or larger than 2 GiB.
    """
    path = path if isinstance(path, ShardMember) else Path(path)
    if fps is not None and not 0 < fps < float("inf"):
        raise UnstillError(f"fps must be a positive number, but got {fps}.")
    if frames is not None and (int(frames) != frames or frames < 1):
        raise UnstillError(f"frames must be a whole number of at least 1, but got {frames}.")
    if not 0 <= start < float("inf"):
        raise UnstillError(f"start must be in seconds from the beginning, 0 or more, but got {start}.")
    if int(stride) != stride or stride < 1 or (fps is not None and stride > 1):
        raise UnstillError(f"stride must be a whole number of at least 1, and 1 where fps is given, but got {stride}.")
    if size is not None:
        check_size(size)
    with open_video(path, folder_fps=fps) as source:
        taken = _sample(path, source, fps, frames, size, start, stride)
        rate = fps or source.fps / stride
    if frames is not None and len(taken) < frames:
        if not (hold_last and taken):
            raise UnstillError(
                f"{path} is too short: {len(taken)} frames at {rate:.4g} fps from {start:.4g} s on, "
                f"but {frames} were asked for; ask for fewer frames{' or a higher fps' if fps else ''}."
            )
        taken += [taken[-1]] * (frames - len(taken))
    if not taken:
        raise UnstillError(f"{path} ends before {start:.4g} s; choose an earlier start.")
    if any(picture.shape != taken[0].shape for picture in taken):
        raise UnstillError(f"The frames of {path} differ in size; pass size=(height, width).")
    stacked = torch.empty((len(taken), 3, *taken[0].shape[:2]), dtype=torch.uint8)
    for index in reversed(range(len(taken))):  # each frame is freed as it is copied, so that none is in memory twice
        stacked.numpy()[index] = taken.pop().transpose(2, 0, 1)  # (H, W, 3) -> (3, H, W)
    return Clip(stacked, rate)


def _sample(
    path: Path | ShardMember,
    source: Stream,
    fps: float | None,
    count: int | None,
    size: Size | None,
    start: float,
    stride: int,
) -> list[np.ndarray]:
    """The sampling rule of `read_video`: a list of (H, W, 3) uint8 arrays, at most `count`."""
    slack = 1e-6
    if source.tick:
        interval = 1 / (source.fps * source.tick)
        if abs(interval - round(interval)) > 1e-3:  # the clock rounds: milliseconds for 30 fps and the like
            slack += min(source.tick / 2, 0.25 / source.fps)
    taken: list[np.ndarray] = []
    used = passed = 0
    for shown in source.frames(start):
        due = 0  # how many output frames this one is
        if fps is None:
            passed += shown.until > start + slack
            due = int(shown.until > start + slack and (passed - 1) % stride == 0)
        else:
            while (count is None or len(taken) + due < count) and (
                start + (len(taken) + due) / fps < shown.until - slack
            ):
                due += 1
        if due:
            picture = shown.image()
            pixels = np.asarray(picture if size is None else resize_and_crop(picture, size))
            taken += [pixels] * due
            used += pixels.nbytes * due
        if used > MEMORY_LIMIT:
            raise UnstillError(
                f"{path} does not fit into memory ({len(taken)} frames are {used / 2**30:.1f} GiB); "
                "pass frames=, a lower fps= or a smaller size=."
            )
        if len(taken) == count:
            break
    return taken


def write_video(
    path: str | os.PathLike[str],
    frames: Frames,
    fps: float = FOLDER_FPS,
    *,
    upscale: int = 1,
    upscale_filter: Literal["lanczos", "nearest"] = "lanczos",
) -> Path:
    """
    Writes a video atomically; the suffix chooses the format.

    `.mp4` is H.264 (yuv420p, BT.709, plays in browsers; odd sizes grow by one repeated row or column), `.gif` and
    `.webp` are endless animations, and a name without suffix is a folder of PNG pictures that records its rate. (WebP
    itself keeps a run of equal frames as one that lasts longer.)

    Args:
        path: where to write; missing folders are created.
        frames: uint8 or [0, 1] float tensor (F, 3, H, W), or PIL images of one size.
        fps: frames per second.
        upscale: whole factor to enlarge by (small models make small videos).
        upscale_filter: "lanczos" is smooth, "nearest" keeps square pixels.

    Returns:
        The path written.

    Raises:
        UnstillError: unknown suffix, frames of a wrong shape or range, or the path cannot be written (full disk ...).
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix and suffix not in ENCODERS:
        raise UnstillError(
            f"Videos are written as {', '.join(ENCODERS)} or into a folder (a name without suffix), not as {suffix}."
        )
    if not 0 < fps <= 1000:
        raise UnstillError(f"fps must be above 0 and at most 1000, but got {fps}.")
    if int(upscale) != upscale or upscale < 1:
        raise UnstillError(f"upscale must be a whole factor of at least 1, but got {upscale}.")
    pixels = as_frames(frames)
    height, width = pixels.shape[-2] * int(upscale), pixels.shape[-1] * int(upscale)
    resample = Image.Resampling.NEAREST if upscale_filter == "nearest" else Image.Resampling.LANCZOS

    def picture(index: int) -> Image.Image:
        image = Image.fromarray(pixels[index].permute(1, 2, 0).contiguous().numpy())
        return image if upscale == 1 else image.resize((width, height), resample)

    with replacing(path, folder=not suffix) as temporary:
        write = ENCODERS[suffix] if suffix else write_pictures
        write(temporary, [partial(picture, index) for index in range(len(pixels))], fps)
    return path


def as_frames(frames: Frames) -> torch.Tensor:
    """Frames of any accepted kind as a uint8 tensor (F, 3, H, W) on the CPU."""
    if not isinstance(frames, torch.Tensor):
        images = list(frames)
        if not images or not all(isinstance(image, Image.Image) and image.size == images[0].size for image in images):
            raise UnstillError("A video is a tensor (F, 3, H, W) or a list of PIL images, at least one, of one size.")
        return torch.from_numpy(np.stack([np.asarray(image.convert("RGB")) for image in images])).permute(0, 3, 1, 2)
    if frames.ndim != 4 or frames.shape[1] != 3 or 0 in frames.shape:
        raise UnstillError(f"A video is a tensor (F, 3, H, W) with at least one frame, but got {tuple(frames.shape)}.")
    frames = frames.detach().cpu()
    if frames.dtype == torch.uint8:
        return frames
    if not frames.is_floating_point():
        raise UnstillError(f"A video is uint8 or float, but got {frames.dtype}.")
    frames = frames.float()
    low, high = frames.aminmax()
    if not (low >= -1e-3 and high <= 1 + 1e-3):  # written so that NaN fails as well
        raise UnstillError(f"Float frames must be in [0, 1], but these are in [{low:.3g}, {high:.3g}].")
    return (frames.clamp(0, 1) * 255).round().to(torch.uint8)
