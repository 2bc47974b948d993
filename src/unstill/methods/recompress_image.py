"""
Recompressed image: the picture goes through one frame of H.264, so that it looks like a frame of a video.

LTX-2 (https://huggingface.co/papers/2601.03233) conditions on such pictures, since its training clips were compressed.
"""

import io
from dataclasses import dataclass

import av
import numpy as np
from PIL import Image

from unstill.errors import UnstillError, shown
from unstill.methods.base import Method


@dataclass(frozen=True, kw_only=True, slots=True)
class RecompressImage(Method):
    """
    Encodes the picture as a video of one frame (H.264, 4:2:0) and decodes it again before the pipeline sees it.

    Args:
        crf: the quality, from 0 to 51, the higher the coarser; 0 leaves the picture as it is. 33 for LTX-2 to 2.3,
            18 for LTX-2.5.
    """

    crf: int = 33

    summary = "Compresses the picture as a video would be: more motion with LTX."
    use_when = "stands still, from a model that learned from compressed videos (LTX)"
    cost = "nothing; fine detail"
    rank = 38
    needs = frozenset({"image"})
    presets = {"paper": {}, "ltx-2": {}, "ltx-2.5": {"crf": 18}}

    def __post_init__(self) -> None:
        if not (isinstance(self.crf, int) and 0 <= self.crf <= 51):
            raise UnstillError(f"crf of RecompressImage is a whole number from 0 to 51, not {shown(self.crf)}.")

    def on_image(self, picture: Image.Image) -> Image.Image:
        return picture if self.crf == 0 else recompressed(picture, self.crf)


def recompressed(picture: Image.Image, crf: int) -> Image.Image:
    """
    A picture after one frame of H.264 (libx264, preset "veryfast", yuv420p); an odd last row or column is repeated for
    the encoder and cut off again.
    """
    pixels = np.asarray(picture.convert("RGB"))
    height, width = pixels.shape[:2]
    even = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    with io.BytesIO() as file:
        with av.open(file, "w", format="mp4") as out:
            stream = out.add_stream("libx264", rate=1, options={"crf": str(crf), "preset": "veryfast"})
            stream.height, stream.width = even.shape[:2]
            stream.pix_fmt = "yuv420p"
            for frame in (av.VideoFrame.from_ndarray(even, format="rgb24"), None):
                out.mux(stream.encode(frame))
        file.seek(0)
        with av.open(file, "r") as back:
            decoded = next(back.decode(video=0)).to_ndarray(format="rgb24")
    return Image.fromarray(decoded[:height, :width])
