"""Motion of sampled videos against the motion level asked for (Fig. 1 of the leakage paper)."""

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


LEVELS = (0.1, 0.4, 0.7, 1.0)


@dataclass(frozen=True, slots=True)
class Response:
    """`measured`: mean optical flow at each requested level, in units of the embedded model's motion level,
    `synthetic_world.SCORE_UNIT` picture sides per frame; `real`: that of the clips themselves."""

    requested: tuple[float, ...]
    measured: list[Interval]
    slope: Interval
    real: float

    def as_dict(self) -> dict[str, Any]:
        return {
            "requested": list(self.requested),
            "measured": [one.as_dict() for one in self.measured],
            "slope": self.slope.as_dict(),
            "real_clips": round(self.real, 6),
        }


def takes_motion(pipe: Any) -> bool:
    """Whether the pipeline can be asked for an amount of motion."""
    return bool({"motion", "motion_bucket_id"} & set(parameters(type(pipe))))


def summarise_response(
    readings: Mapping[tuple[int, int], float], real: Mapping[int, float], levels: Sequence[float] = LEVELS
) -> Response:
    """
    Args:
        readings: (clip, place of the level) -> `motion_of` the video that was sampled for it; the same noise at all
            levels. Clips of which one is missing are left out.
        real: clip -> `motion_of` it.
    """
    clips = [i for i in real if all((i, j) in readings for j in range(len(levels)))]
    table = np.array([[readings[i, j] for j in range(len(levels))] for i in clips])
    w = weights(len(clips))
    means = w @ table / len(clips)
    x = np.array(levels) - np.mean(levels)
    return Response(
        tuple(levels),
        [Interval.of(column, len(clips), (0.0, np.inf)) for column in means.T],
        Interval.of(means @ x / (x @ x), len(clips)),
        float(np.mean([real[i] for i in clips])),
    )


def motion_of(video: Tensor) -> float:
    """Mean optical flow of a clip `(F, 3, H, W)` in [0, 1], in units of the embedded model's motion level."""
    return flow_of(video) / synthetic_world.SCORE_UNIT
