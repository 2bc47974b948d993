"""The plots of a diagnosis: one-step predictions by noise level, and measured against requested motion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from unstill.lab.bootstrap import Interval
from unstill.lab.interval_text import between
from unstill.lab.leakage import Diagnosis
from unstill.lab.motion_response import ResponseCurve
from unstill.lab.plots import Series, curves


SOURCES = {  # name and colour
    "reference": ("best possible", 6),
    "image": ("the model", 1),
    "weakened": ("with a weakened image", 3),
    "removed": ("without its image", 0),
}


def response_plot(response: ResponseCurve) -> tuple[str, str, str]:
    """Title, description and plot of measured against requested motion."""
    line = [Interval(x, x, x) for x in response.requested]
    svg = curves(
        [
            Series("asked for", response.requested, line, 6, dashed=True),
            Series("the model", response.requested, response.measured, 1),
        ],
        x_label="motion asked for",
        y_label="motion measured",
        lines=(response.real,),
    )
    about = f"Slope {between(response.slope)}: 1 follows, 0 ignores. The thin line is the motion of the clips."
    return "Motion, asked for and made", about, svg


def level_axis(diagnosis: Diagnosis) -> dict[str, Any]:
    """The x axis of plots by noise level, as options of `curves`."""
    log = diagnosis.unit == "sigma"
    label = "noise level sigma" if log else "start (fraction of training time)"
    return {"x_label": label, "log_x": log, "mark": diagnosis.start}


def plots(diagnosis: Diagnosis, present: Sequence[str]) -> list[tuple[str, str, str]]:
    """Title, description and SVG of every plot by noise level; `present` are the sources to draw."""
    x = [level.value for level in diagnosis.levels]

    def of(quantity: str) -> list[Series]:
        return [
            Series(SOURCES[s][0], x, diagnosis.curves[s][quantity], SOURCES[s][1], s == "reference") for s in present
        ]

    shared = level_axis(diagnosis)
    shown = [
        (
            "Explained motion",
            "1 is all of it, 0 a still image. Motion below the dashed curve could be "
            "explained but is lost. Values below \u22120.5 are drawn at the edge.",
            curves(of("explained"), y_label="explained motion", y_range=(-0.5, 1.05), lines=(0, 1), **shared),
        )
    ]
    if diagnosis.leak:
        exact = "reference" in diagnosis.curves
        shown.append(
            (
                "Leakage" if exact else "Leakage, at most",
                "Motion lost to the image, as a share; and how much the image changes the prediction.",
                curves(
                    [
                        Series("leakage", x, diagnosis.leak, 5),
                        Series("sensitivity to the image", x, diagnosis.pull, 4, dashed=True),
                    ],
                    y_label="leakage; sensitivity (dashed)",
                    y_range=(0, 1.05),
                    **shared,
                ),
            )
        )
    shown.append(
        (
            "Flow",
            "Optical flow of the prediction, as a share of the clip's. Values above 2.5 are drawn at the edge.",
            curves(of("flow"), y_label="flow / flow of the clip", y_range=(0, 2.5), lines=(1,), **shared),
        )
    )
    shown.append(
        (
            "First frame",
            "How far the predicted first frame is from the image.",
            curves(of("first_frame"), y_label="RMS difference (of 1)", **shared),
        )
    )
    return shown
