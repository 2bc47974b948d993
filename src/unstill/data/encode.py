"""Encoders: each writes frames, produced one at a time, to one kind of file."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import av.filter
import av.filter.context
import numpy as np
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, Interpolation
from PIL import Image, PngImagePlugin

from unstill.data.decode import FPS_KEY
from unstill.data.files import PICTURE_NAME
from unstill.errors import UnstillError


Pictures = Sequence[Callable[[], Image.Image]]
"""Frames produced on demand, so that a long enlarged video is never in memory as a whole."""
_CONVERSION = Interpolation.BICUBIC | Interpolation.FULL_CHR_H_INP | Interpolation.ACCURATE_RND


def write_mp4(path: Path, pictures: Pictures, fps: float) -> None:
    """H.264 in the one form that every browser plays: yuv420p, BT.709 limited range, index at the front."""
    first = _even(np.asarray(pictures[0]()))
    with _errors(), av.open(str(path), "w", options={"movflags": "+faststart"}) as container:
        # Without macroblock trees, with which x264 writes other bytes for the same frames now and then (at 480 pixels
        # in 4 of 30 files): the same seed gives the same file.
        options = {"crf": "16", "preset": "medium", "x264-params": "mbtree=0"}
        stream = container.add_stream("libx264", rate=_rate(fps), options=options)
        stream.height, stream.width = first.shape[:2]
        stream.pix_fmt = "yuv420p"
        codec = stream.codec_context
        codec.colorspace, codec.color_range = Colorspace.ITU709, ColorRange.MPEG
        codec.color_primaries, codec.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
        for picture in pictures:
            frame = av.VideoFrame.from_ndarray(_even(np.asarray(picture())), format="rgb24")
            yuv = frame.reformat(
                format="yuv420p",
                dst_colorspace=Colorspace.ITU709,
                dst_color_range=ColorRange.MPEG,
                interpolation=int(_CONVERSION),
            )
            container.mux(stream.encode(yuv))
        container.mux(stream.encode())


def write_gif(path: Path, pictures: Pictures, fps: float) -> None:
    """
    An endless GIF with one palette made for the whole clip.

    Error diffusion keeps local colours about 30% closer than an ordered (Bayer) dither at the same file size.
    """
    if fps > 50:
        raise UnstillError(f"Browsers play no GIF faster than 50 fps, but fps is {fps:.4g}; write an .mp4 instead.")
    first = pictures[0]()
    last = round(100 * len(pictures) / fps) - round(100 * (len(pictures) - 1) / fps)
    with _errors():
        palette = _palette(pictures, first)
        graph = av.filter.Graph()
        frames = graph.add_buffer(
            width=first.width, height=first.height, format=av.VideoFormat("rgb24"), time_base=Fraction(1, 100)
        )
        colours = graph.add_buffer(
            width=palette.width, height=palette.height, format=palette.format, time_base=Fraction(1, 100)
        )
        paletteuse, sink = graph.add("paletteuse", "dither=sierra2_4a"), graph.add("buffersink")
        frames.link_to(paletteuse, 0, 0)
        colours.link_to(paletteuse, 0, 1)
        paletteuse.link_to(sink)
        graph.configure()
        palette.pts, palette.time_base = 0, Fraction(1, 100)
        colours.push(palette)
        colours.push(None)
        with av.open(str(path), "w", format="gif", options={"loop": "0"}) as container:
            stream = container.add_stream("gif", rate=100)
            stream.height, stream.width, stream.pix_fmt = first.height, first.width, "pal8"
            for index, picture in enumerate([*pictures, None]):
                if picture is None:
                    frames.push(None)
                else:
                    frame = av.VideoFrame.from_image(picture())
                    frame.pts, frame.time_base = round(100 * index / fps), Fraction(1, 100)
                    frames.push(frame)
                for indexed in _drain(sink):
                    for packet in stream.encode(indexed):
                        packet.duration = last  # the muxer derives every delay but the last from the times
                        container.mux(packet)
            container.mux(stream.encode())


def write_webp(path: Path, pictures: Pictures, fps: float) -> None:
    """An endless animated WebP; delays are whole milliseconds that add up to the exact time."""
    delays = [round(1000 * (index + 1) / fps) - round(1000 * index / fps) for index in range(len(pictures))]
    rest = (picture() for picture in pictures[1:])
    pictures[0]().save(path, save_all=True, append_images=rest, duration=delays, loop=0, quality=88, method=4)


def write_pictures(path: Path, pictures: Pictures, fps: float) -> None:
    """PNG pictures frame_00000.png ... in an existing folder; each records the rate, so that reading back keeps it."""
    record = PngImagePlugin.PngInfo()
    record.add_text(FPS_KEY, repr(float(fps)))
    for index, picture in enumerate(pictures):
        picture().save(path / PICTURE_NAME.format(index), pnginfo=record, compress_level=6)


ENCODERS: dict[str, Callable[[Path, Pictures, float], None]] = {
    ".mp4": write_mp4,
    ".gif": write_gif,
    ".webp": write_webp,
}


def _palette(pictures: Pictures, first: Image.Image) -> av.VideoFrame:
    """256 colours for all frames together, as a 16x16 frame."""
    graph = av.filter.Graph()
    frames = graph.add_buffer(
        width=first.width, height=first.height, format=av.VideoFormat("rgb24"), time_base=Fraction(1, 100)
    )
    sink = graph.add("buffersink")
    graph.link_nodes(frames, graph.add("palettegen", "stats_mode=full:reserve_transparent=0"), sink).configure()
    for index, picture in enumerate(pictures):
        frame = av.VideoFrame.from_image(picture())
        frame.pts, frame.time_base = index, Fraction(1, 100)
        frames.push(frame)
    frames.push(None)
    (palette,) = _drain(sink)
    return palette


def _drain(sink: av.filter.context.FilterContext) -> Iterator[av.VideoFrame]:
    """The frames that a filter graph has ready now."""
    while True:
        try:
            frame = sink.pull()
        except (av.BlockingIOError, av.EOFError):
            return
        assert isinstance(frame, av.VideoFrame)
        yield frame


def _even(picture: np.ndarray) -> np.ndarray:
    """(H, W, 3) with odd sides grown by their last row or column, because yuv420p halves both."""
    height, width = picture.shape[:2]
    if height % 2 == width % 2 == 0:
        return picture
    return np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")


def _rate(fps: float) -> Fraction:
    """29.97 means 30000/1001, and so on; other rates become the nearest small fraction."""
    for nominal in (24, 30, 48, 60, 120):
        if abs(fps - nominal * 1000 / 1001) < 0.005:
            return Fraction(nominal * 1000, 1001)
    return Fraction(fps).limit_denominator(1000)


@contextmanager
def _errors() -> Iterator[None]:
    """Converts FFmpeg's errors into `OSError`, as the file system's own errors are."""
    try:
        yield
    except av.FFmpegError as error:
        raise OSError(error.errno, error.strerror) from error
