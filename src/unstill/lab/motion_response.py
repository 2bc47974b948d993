"""Motion of sampled videos against the requested motion level (Fig. 1 of the leakage paper)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from unstill.data import synthetic_world
from unstill.lab.bootstrap import Interval, weights
from unstill.lab.probe_clips import flow_of
from unstill.models.call_arguments import parameters


REQUESTED_LEVELS = (0.1, 0.4, 0.7, 1.0)


@dataclass(frozen=True, slots=True)
class ResponseCurve:
    """
    Measured against requested motion, in units of the embedded model's motion level: `synthetic_world.SCORE_UNIT`
    picture sides per frame.

    Attributes:
        requested: motion levels.
        measured: mean optical flow at each of them.
        slope: of a straight line through the means.
        real: mean optical flow of the clips themselves.
    """

    requested: tuple[float, ...]
    measured: list[Interval]
    slope: Interval
    real: float

    def as_dict(self) -> dict[str, Any]:
        return {
            "requested": list(self.requested),
            "measured": [interval.as_dict() for interval in self.measured],
            "slope": self.slope.as_dict(),
            "real_clips": round(self.real, 6),
        }


def takes_motion(pipe: Any) -> bool:
    """Whether the pipeline's call takes a motion level."""
    return bool({"motion", "motion_bucket_id"} & set(parameters(type(pipe))))


def summarise_response(
    readings: Mapping[tuple[int, int], float], real: Mapping[int, float], levels: Sequence[float] = REQUESTED_LEVELS
) -> ResponseCurve:
    """
    Means, slope and their intervals over clips.

    Args:
        readings: `motion_of` the sampled videos, by (index of the clip, index of the level); the same noise at all
            levels. Clips without a video at every level are left out.
        real: `motion_of` the clips, by index.
        levels: the requested levels.
    """
    clips = [i for i in real if all((i, j) in readings for j in range(len(levels)))]
    table = np.array([[readings[i, j] for j in range(len(levels))] for i in clips])
    w = weights(len(clips))
    means = w @ table / len(clips)
    x = np.array(levels) - np.mean(levels)
    return ResponseCurve(
        tuple(levels),
        [Interval.of(column, len(clips), (0.0, np.inf)) for column in means.T],
        Interval.of(means @ x / (x @ x), len(clips)),
        float(np.mean([real[i] for i in clips])),
    )


def motion_of(video: Tensor) -> float:
    """Mean optical flow of a clip `(F, 3, H, W)` in [0, 1], in units of the embedded model's motion level."""
    return flow_of(video) / synthetic_world.SCORE_UNIT
