"""Decodes a video file, an animation or a folder of pictures as a stream of frames with time stamps."""

import io
import os
import re
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

import av
import av.container
import av.video.stream
import numpy as np
from av.video.reformatter import Interpolation
from PIL import Image

from unstill.data.images import DAMAGED, PICTURE_SUFFIXES, decode_rgb, open_picture, to_rgb
from unstill.errors import UnstillError


FOLDER_FPS = 8.0
"""The rate of a folder of pictures that does not record its own."""
FPS_KEY = "unstill:fps"
"""The PNG text entry in which `write_video` records the rate of a folder of pictures."""
VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".wmv", ".flv", ".ogv"}
    | {".3gp", ".h264", ".264", ".hevc", ".gif"}
)
_BROWSER_DELAY = 0.1  # what browsers show for animation delays of 10 ms or less
# Containers whose index leads to the right frame; in others FFmpeg guesses, and misses by many frames.
_INDEXED = {"mov", "mp4", "matroska", "webm"}
# Containers without presentation times: what FFmpeg derives from their chunks does not rise where there are B-frames.
_UNTIMED = {"avi"}
# Streams without a container: FFmpeg reads them at 25 frames/s, whatever rate their header states.
_RAW = {"h264", "hevc", "m4v", "mpegvideo"}
# FFmpeg's default is three times as fast and three times as far from the pixels that were encoded.
_CONVERSION = Interpolation.BILINEAR | Interpolation.FULL_CHR_H_INT | Interpolation.ACCURATE_RND


@dataclass(frozen=True, slots=True)
class ShardMember:
    """A video file inside a tar file: `size` bytes from `offset` on."""

    shard: Path
    name: str
    offset: int
    size: int

    def __str__(self) -> str:
        return f"{self.name} in {self.shard.parent}"

    def read(self) -> bytes:
        """The content of the file; raises `UnstillError` if it no longer exists."""
        try:
            with self.shard.open("rb") as file:
                file.seek(self.offset)
                content = file.read(self.size)
        except OSError as error:
            raise UnstillError(f"{self} cannot be read ({error.strerror}).") from error
        if len(content) < self.size:
            raise UnstillError(f"{self} is cut off; the shard is damaged or still being written.")
        return content


@dataclass(frozen=True, slots=True)
class Shown:
    """
    One stored frame, displayed from `time` until `until` (seconds after the first frame).

    `image()` converts it to RGB on demand; call it before the next frame is requested.
    """

    time: float
    until: float
    image: Callable[[], Image.Image]


@dataclass(frozen=True, slots=True)
class Stream:
    """
    An opened video.

    Attributes:
        fps: mean frames per second.
        tick: resolution of the time stamps in seconds.
        duration: in seconds; `None` where the file does not state it.
        frames: function of a start time that iterates over the frames from that time on.
    """

    fps: float
    tick: float
    duration: float | None
    frames: Callable[[float], Iterator[Shown]]


@contextmanager
def open_video(path: Path | ShardMember, folder_fps: float | None = None) -> Iterator[Stream]:
    """
    Opens a video file, an animated GIF/WebP/PNG, or a folder of pictures.

    Args:
        path: file or folder, or a file inside a tar file (then no animated WebP).
        folder_fps: the rate of a folder whose pictures record none (default `FOLDER_FPS`).

    Raises:
        UnstillError: a missing or damaged file, no video stream, or a still picture.
    """
    if isinstance(path, ShardMember):
        content: str | io.BytesIO = io.BytesIO(path.read())
    else:
        if not path.exists():
            raise UnstillError(f"There is no video at {path}; check the path.")
        if path.is_dir():
            yield _folder(path, folder_fps)
            return
        # FFmpeg has no animated WebP, and Pillow composes GIF and APNG frames as browsers do.
        head = _head(path)
        if head[:4] in (b"GIF8", b"\x89PNG") or head[8:12] == b"WEBP" or head[:3] == b"\xff\xd8\xff":
            with open_picture(path) as image:
                yield _animation(path, image)
            return
        content = str(path)
    try:
        container = av.open(content, "r")
    except (OSError, ValueError, av.FFmpegError) as error:
        raise UnstillError(f"{path} is not a video that can be read; it is damaged or of an unknown kind.") from error
    with container:
        if container.format.name == "tty":  # FFmpeg's name for any text file
            raise UnstillError(f"{path} is not a video that can be read; it is a text file.")
        streams = [stream for stream in container.streams.video if not _is_cover(stream)]
        if not streams:
            if container.streams.audio:
                raise UnstillError(f"{path} holds only sound; pass a file with a video stream.")
            raise UnstillError(f"{path} holds no video stream; it is damaged or of another kind.")
        yield _file(path, container, streams[0])


def _head(path: Path) -> bytes:
    try:
        if path.stat().st_size == 0:  # also a pipe, which would block forever
            raise UnstillError(f"{path} is empty (0 bytes); save it again and retry.")
        with path.open("rb") as file:
            return file.read(16)
    except OSError as error:
        raise UnstillError(f"{path} cannot be read ({error.strerror}).") from error


def natural_key(name: str) -> list[tuple[int, int | str]]:
    """Sort key with numbers in numeric order: frame_2 before frame_10."""
    return [(0, int(part)) if part.isdigit() else (1, part) for part in re.split(r"(\d+)", name.lower()) if part]


def _is_cover(stream: av.video.stream.VideoStream) -> bool:
    """Music files carry their cover picture as a video stream."""
    return av.stream.Disposition.attached_pic in stream.disposition


def _file(
    path: Path | ShardMember, container: av.container.InputContainer, stream: av.video.stream.VideoStream
) -> Stream:
    stream.thread_type = "AUTO"
    kinds = set(container.format.name.split(","))
    rate = stream.average_rate or stream.guessed_rate
    if kinds & _RAW:
        rate = stream.codec_context.framerate or rate
    fps = float(rate) if rate else 25.0
    tick = float(stream.time_base or 0)
    duration = stream.duration * tick if stream.duration and tick else None
    if duration is None and container.duration:
        duration = container.duration / av.time_base
    aspect = float(stream.sample_aspect_ratio or 1) or 1.0

    def ticks_of(frame: av.VideoFrame) -> int | None:
        return frame.dts if kinds & _UNTIMED else frame.pts

    def frames(start: float) -> Iterator[Shown]:
        shown, end = None, 0.0
        try:
            pictures = container.decode(stream)
            first = next(pictures, None)
            # AVI's start_time is not that of its first frame.
            zero = (ticks_of(first) or 0) if first is not None else 0
            if start > 1.0 and tick and kinds & _INDEXED:
                pictures, first = _seek(container, stream, zero + int(start / tick))
                if first is None or first.pts is None or (first.pts - zero) * tick > start:
                    pictures, first = _seek(container, stream, zero)  # a wrong index: read from the beginning
            for frame in pictures if first is None else chain([first], pictures):
                # Decoders return frames in display order. A frame without a time stamp (all of a raw stream, the last
                # ones of an AVI) or with an earlier one than its predecessor is placed directly after it.
                ticks = ticks_of(frame)
                time = (ticks - zero) * tick if ticks is not None else end
                if shown is not None and time < shown[0]:
                    time = end
                if shown is not None and time > shown[0]:
                    yield _shown(*shown, time, aspect)
                length = frame.duration * tick if frame.duration and ticks is not None else 1 / fps
                shown, end = (time, frame), time + length
        except (OSError, ValueError, av.FFmpegError) as error:
            raise UnstillError(
                f"{path} is damaged: decoding stops after {end:.2f} s; repair it, or ask only for frames before that."
            ) from error
        if shown is None:
            raise UnstillError(f"{path} holds no frame that can be decoded; it is damaged or still being written.")
        yield _shown(*shown, end, aspect)
        # A truncated file ends without an error: compare with the length that its header states.
        announced = None
        if duration and stream.frames:
            announced = min(duration, stream.frames / fps)
        elif duration and (("matroska" in kinds and _segment_is_cut(path)) or ("flv" in kinds and _flv_is_cut(path))):
            announced = duration
        if announced and end < 0.95 * announced - 2 / fps:
            raise UnstillError(
                f"{path} is cut off: {end:.2f} of {duration:.2f} s can be decoded; ask only for frames before that."
            )

    return Stream(fps, tick, duration, frames)


def _seek(
    container: av.container.InputContainer, stream: av.video.stream.VideoStream, ticks: int
) -> tuple[Iterator[av.VideoFrame], av.VideoFrame | None]:
    """The frames from the last key frame before a time, and the first of them."""
    container.seek(ticks, stream=stream)
    pictures = container.decode(stream)
    return pictures, next(pictures, None)


def _segment_is_cut(path: Path | ShardMember) -> bool:
    """
    Whether a Matroska or WebM file ends before its segment does, by the size in the segment's header (RFC 8794).

    The stated duration is not enough: it is that of the longest track, which may be sound.
    """
    head, size = _head_and_size(path)
    place = 0
    for identifier in (b"\x1aE\xdf\xa3", b"\x18S\x80g"):  # EBML header, segment
        if head[place : place + 4] != identifier or place + 5 > len(head) or head[place + 4] == 0:
            return False
        width = 9 - head[place + 4].bit_length()  # of the size that follows, given by its leading zeros
        bits = 7 * width
        length = int.from_bytes(head[place + 4 : place + 4 + width], "big") & ((1 << bits) - 1)
        place += 4 + width
        if identifier == b"\x18S\x80g":
            return length != (1 << bits) - 1 and place + length > size  # all ones: unknown, a live recording
        place += length
    return False


def _flv_is_cut(path: Path | ShardMember) -> bool:
    """
    Whether a Flash video is shorter than its metadata states: a property `filesize` in its first tag, a number in
    AMF0 (Adobe's FLV specification, E.5). Live recordings have none, or 0."""
    head, size = _head_and_size(path)
    mark = b"\x00\x08filesize\x00"  # length of the name, the name, the type of a number
    place = head.find(mark) + len(mark)
    if mark not in head or place + 8 > len(head):
        return False
    announced: float = struct.unpack(">d", head[place : place + 8])[0]
    return announced > size


def _head_and_size(path: Path | ShardMember) -> tuple[bytes, int]:
    if isinstance(path, ShardMember):
        return path.read()[:4096], path.size
    with path.open("rb") as file:
        return file.read(4096), path.stat().st_size


def _shown(time: float, frame: av.VideoFrame, until: float, aspect: float) -> Shown:
    def image() -> Image.Image:
        pixels = frame.to_ndarray(format="rgb24", interpolation=int(_CONVERSION))
        picture = Image.fromarray(pixels)
        if aspect != 1.0:  # pixels that are not square, as in DV and DVD
            picture = picture.resize((max(1, round(picture.width * aspect)), picture.height), Image.Resampling.BICUBIC)
        turns = round(frame.rotation / 90) % 4  # counter-clockwise
        return Image.fromarray(np.ascontiguousarray(np.rot90(np.asarray(picture), turns))) if turns else picture

    return Shown(time, until, image)


def _animation(path: Path, image: Image.Image) -> Stream:
    count = getattr(image, "n_frames", 1)
    if count < 2:
        raise UnstillError(f"{path} is a single picture, not a video; pass a video, an animation or a folder.")

    def frames(start: float) -> Iterator[Shown]:
        time = 0.0
        for index in range(count):
            try:
                image.seek(index)
                image.load()
            except DAMAGED as error:
                raise UnstillError(
                    f"{path} is damaged: decoding stops after {index} of {count} frames; save it again and retry."
                ) from error
            delay = float(image.info.get("duration", 0)) / 1000
            until = time + (delay if delay > 0.0101 else _BROWSER_DELAY)
            if until > start:
                yield Shown(time, until, lambda: to_rgb(image))
            time = until

    fps, duration = 1 / _BROWSER_DELAY, None
    try:
        for read, shown in enumerate(frames(0.0), start=1):
            fps, duration = read / shown.until, shown.until
    except UnstillError:
        pass  # reported when the damaged frame is read
    return Stream(fps, 0.01 if image.format == "GIF" else 0.001, duration, frames)


def _folder(path: Path, folder_fps: float | None) -> Stream:
    try:
        names = [entry.name for entry in os.scandir(path) if entry.is_file() and not entry.name.startswith(".")]
    except OSError as error:
        raise UnstillError(f"The folder {path} cannot be read ({error.strerror}).") from error
    names = sorted((name for name in names if Path(name).suffix.lower() in PICTURE_SUFFIXES), key=natural_key)
    if not names:
        raise UnstillError(f"The folder {path} holds no pictures; pass a folder of frames or a video file.")
    with open_picture(path / names[0]) as first:
        recorded = first.info.get(FPS_KEY)
    fps = float(recorded) if recorded else folder_fps or FOLDER_FPS

    def frames(start: float) -> Iterator[Shown]:
        for index, name in enumerate(names):
            if (index + 1) / fps > start:
                yield Shown(index / fps, (index + 1) / fps, partial(_read, path / name))

    return Stream(fps, 1e-6, len(names) / fps, frames)


def _read(file: Path) -> Image.Image:
    with open_picture(file) as image:
        return decode_rgb(file, image)
