"""Does a model move as much as it is asked to? (Fig. 1 of the leakage paper: output motion minus input motion.)"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from unstill.data import world
from unstill.lab.bootstrap import Interval, weights
from unstill.lab.subjects import Subject, flow_of
from unstill.models.calling import generate, parameters


LEVELS = (0.1, 0.4, 0.7, 1.0)


@dataclass(frozen=True, slots=True)
class Response:
    """`measured`: mean optical flow at each requested level, in units of the embedded model's motion level, 3 % of the
    picture's side per frame; `real`: that of the clips themselves."""

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


def respond(
    pipe: Any,
    subjects: Sequence[Subject],
    call: Callable[[Subject, float], dict[str, Any]],
    levels: Sequence[float] = LEVELS,
    *,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Response:
    """
    One video per clip and level, sampled as the pipeline does; the same noise at all levels.

    Args:
        call: arguments of the pipeline's call for a clip and a requested level in [0, 1].
    """
    readings = np.zeros((len(subjects), len(levels)))
    for i, subject in enumerate(subjects):
        for j, level in enumerate(levels):
            video = generate(pipe, call(subject, level), seed + i).float() / 255
            readings[i, j] = flow_of(video) / world.SCORE_UNIT
            if progress is not None:
                progress(i * len(levels) + j + 1)
    w = weights(len(subjects))
    means = w @ readings / len(subjects)
    x = np.array(levels) - np.mean(levels)
    real = float(np.mean([flow_of(one.video) for one in subjects])) / world.SCORE_UNIT
    return Response(tuple(levels), [Interval.of(column) for column in means.T], Interval.of(means @ x / (x @ x)), real)
