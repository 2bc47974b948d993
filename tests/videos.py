"""Video files with B-frames in AVI, which has no presentation times."""

import io
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np


_VOP = b"\x00\x00\x01\xb6"  # start code of an MPEG-4 picture; the next two bits are its type
_B_PICTURE = 2


def _stream(container: av.container.OutputContainer, codec: str, picture: np.ndarray, fps: int) -> av.VideoStream:
    stream = container.add_stream(codec, rate=fps)
    stream.height, stream.width = picture.shape[:2]
    stream.pix_fmt = "yuv420p"
    return stream


def _packets(stream: av.VideoStream, pictures: Sequence[np.ndarray]) -> list[av.Packet]:
    frames = [av.VideoFrame.from_ndarray(picture, format="rgb24") for picture in pictures]
    return [packet for frame in [*frames, None] for packet in stream.encode(frame)]


def h264_avi(path: Path, pictures: Sequence[np.ndarray], fps: int, b_frames: int = 1) -> Path:
    """H.264 in AVI with `b_frames` B-frames in a row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format="avi") as container:
        stream = _stream(container, "libx264", pictures[0], fps)
        stream.options = {"crf": "10", "x264-params": f"bframes={b_frames}:b-adapt=0:scenecut=0:keyint=12"}
        container.mux(_packets(stream, pictures))
    with av.open(str(path)) as made:
        times = [frame.pts for frame in made.decode(video=0)]
    assert times != sorted(times)  # what FFmpeg takes for presentation times goes back and forth
    return path


def packed_avi(path: Path, pictures: Sequence[np.ndarray], fps: int) -> Path:
    """XviD with packed B-frames, as DivX wrote them: P and B in one chunk, then a chunk that says "not coded"."""
    with av.open(io.BytesIO(), "w", format="avi") as container:
        stream = _stream(container, "mpeg4", pictures[0], fps)
        stream.bit_rate, stream.options = 4_000_000, {"b_strategy": "0"}
        stream.codec_context.max_b_frames, stream.codec_context.gop_size = 1, 12
        packets = _packets(stream, pictures)
    chunks: list[tuple[bytes, bool]] = []
    while packets:
        content, key = bytes(packets[0]), packets.pop(0).is_keyframe
        if key:  # user data by which decoders know a packed stream
            place = content.index(_VOP)
            content = content[:place] + b"\x00\x00\x01\xb2DivX503b1393p" + content[place:]
        if packets and _type(bytes(packets[0])) == _B_PICTURE:
            chunks += [(content + bytes(packets.pop(0)), key), (_VOP + b"\x50\xbf", False)]
        else:
            chunks.append((content, key))
    assert sum(len(content) == 6 for content, _ in chunks) >= len(pictures) // 3
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format="avi") as container:
        stream = _stream(container, "mpeg4", pictures[0], fps)
        stream.codec_context.codec_tag = "XVID"
        for number, (content, key) in enumerate(chunks):
            packet = av.Packet(content)
            packet.stream, packet.time_base = stream, Fraction(1, fps)
            packet.pts = packet.dts = number
            packet.is_keyframe = key
            container.mux(packet)
    return path


def _type(content: bytes) -> int:
    return content[content.index(_VOP) + 4] >> 6
