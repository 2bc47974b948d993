"""The measurements of one video of a comparison, and their range in its stored result."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Annotated, Self

import numpy as np
import torch
from PIL import Image
from pydantic import Field, model_validator

from unstill.documents import Stored
from unstill.lab.probe_clips import pair_flows
from unstill.lab.toys import measure_toys
from unstill.metrics import first_frame_error, proxy_coherence, proxy_colour_fidelity, proxy_edge_fidelity
from unstill.metrics.motion import VISIBLE_SHARE
from unstill.metrics.onset import onset_time


METRICS = ("motion", "fidelity", "colour", "detail", "coherence", "first_frame_error", "motion_onset", "seconds")
"""motion: mean optical flow, % of the shorter side per frame; fidelity: mean of the proxies colour and detail;
motion_onset: seconds that the video stands still before it moves, its whole length if it never moves; seconds:
sampling time, on a CPU the processor time."""
TOY_METRICS = ("travel", "travel_share", "outline", "toy_colour", "background_error")
"""For pictures of the synthetic world, see `unstill.lab.toys.ToyMeasures`. travel_share: travel divided by the
requested travel, which is that of the picture's true clip, scaled to the requested motion level."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Toys:
    """
    The toys of a picture of the synthetic world, and their motion in its true clip.

    Attributes:
        masks: (S, H, W) bool, where they are in the picture.
        motion: motion level of the true clip.
        travel: of the toys in the true clip, % of the side per frame.
    """

    masks: torch.Tensor
    motion: float
    travel: float

    @property
    def fingerprint(self) -> str:
        """A hash of all fields."""
        content = self.masks.numpy().tobytes() + repr((self.motion, self.travel)).encode()
        return hashlib.sha256(content).hexdigest()


_Share = Annotated[float, Field(ge=0, le=1)]
_Amount = Annotated[float, Field(ge=0, le=1e9)]


class StoredCell(Stored):
    """The JSON file of a finished cell: the cell, and its measurements or the error that prevented them."""

    model: str
    setting: str
    motion_asked: float | None
    image: str
    seed: int
    error: str | None = None
    motion: _Amount | None = None
    fidelity: _Share | None = None
    colour: _Share | None = None
    detail: _Share | None = None
    coherence: _Share | None = None
    first_frame_error: _Share | None = None
    motion_onset: _Amount | None = None
    seconds: _Amount | None = None
    travel: _Amount | None = None
    travel_share: _Amount | None = None
    outline: _Amount | None = None
    toy_colour: _Amount | None = None
    background_error: _Amount | None = None

    @model_validator(mode="after")
    def _measurements_or_error(self) -> Self:
        missing = [name for name in METRICS if getattr(self, name) is None]
        if self.error is None and missing:
            raise ValueError(f"{missing[0]} is missing")
        return self


def measure_video(
    video: torch.Tensor,
    picture: Image.Image,
    toys: Toys | None = None,
    motion: float | None = None,
    fps: float = 8.0,
) -> dict[str, float]:
    """
    Measures a video of a comparison.

    Args:
        video: uint8 (F, 3, H, W).
        picture: that it was made from, of the same size.
        toys: of the picture, if they are known.
        motion: requested motion level.
        fps: frames per second of the video.

    Returns:
        `METRICS` without seconds; with toys also `TOY_METRICS`, of which travel_share needs a motion level.
    """
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    colour, detail = proxy_colour_fidelity(video, pixels), proxy_edge_fidelity(video, pixels)
    flows = pair_flows(video.float() / 255)
    onset = onset_time(flows, fps, VISIBLE_SHARE)
    figures = {
        "motion": 100 * float(flows.mean()),
        "fidelity": (colour + detail) / 2,
        "colour": colour,
        "detail": detail,
        "coherence": proxy_coherence(video),
        "first_frame_error": first_frame_error(video, pixels),
        "motion_onset": (len(video) - 1) / fps if onset is None else onset,
    }
    if toys is not None and (measured := measure_toys(video.float() / 255, pixels.float() / 255, toys.masks)):
        figures |= {"travel": measured.travel, "outline": measured.outline, "toy_colour": measured.colour}
        if math.isfinite(measured.background_error):  # NaN where toys cover the whole picture
            figures["background_error"] = measured.background_error
        if motion:
            figures["travel_share"] = measured.travel / (toys.travel * motion / toys.motion)
    return {name: round(value, 6) for name, value in figures.items()}
