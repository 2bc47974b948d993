"""The plots of a comparison, for its report and for documentation."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from unstill.lab.aggregate import Row
from unstill.lab.plots import GREY, Point, Series, curves, differences, scatter


COLOURS = 6
_LEVEL = re.compile(r"([\w-]+):(start|sigma)=([\d.]+)")


class Plot(NamedTuple):
    """A plot: a short name for its file, its title, a sentence on how to read it, and the SVG."""

    name: str
    title: str
    about: str
    svg: str


def plots_of(rows: Sequence[Row]) -> list[Plot]:
    """All plots of one model at one motion level; the first row is the plain setting."""
    points = [
        Point(
            row.setting,
            row.means["motion"],
            row.means["fidelity"],
            colour_of(rows, row),
            row.front,
            group=row.setting.partition(":")[0],
        )
        for row in rows
    ]
    front = Plot(
        "front",
        "Motion against fidelity",
        "Up and to the right is better. The dashed line is the front: no setting lies beyond it.",
        scatter(points, x_label="motion, % of side per frame", y_label="fidelity (proxy)"),
    )
    return [front, *_sweeps(rows), *_gains(rows)]


def colour_of(rows: Sequence[Row], row: Row) -> int:
    """The colour number of a row: one per method, so that all values of a sweep share it; grey for the first row."""
    if row.setting == rows[0].setting:
        return GREY
    methods = list(dict.fromkeys(r.setting.partition(":")[0] for r in rows if r.setting != rows[0].setting))
    return methods.index(row.setting.partition(":")[0]) % COLOURS


def _sweeps(rows: Sequence[Row]) -> list[Plot]:
    """Motion and fidelity against the start level, for methods with three or more of them."""
    by_method: dict[str, list[tuple[float, Row]]] = {}
    units = set()
    for row in rows:
        if match := _LEVEL.fullmatch(row.setting):
            by_method.setdefault(match[1], []).append((float(match[3]), row))
            units.add(match[2])
    swept = {
        method: sorted(points, key=lambda point: point[0]) for method, points in by_method.items() if len(points) > 2
    }
    if not swept or len(units) > 1:
        return []
    unit = units.pop()
    plots = []
    for metric, label in (("motion", "motion, % of side per frame"), ("fidelity", "fidelity (proxy)")):
        series = []
        for method, points in swept.items():
            values = [row.means[metric] for _, row in points]
            series.append(Series(method, [x for x, _ in points], values, colour_of(rows, points[0][1])))
        plain = rows[0].means[metric].value
        svg = curves(series, x_label=f"start ({unit})", y_label=label, log_x=unit == "sigma", lines=(plain,))
        about = f"Further to the left, sampling starts from less noise. The thin line is {rows[0].setting}."
        plots.append(Plot(f"{metric}-by-start", f"{metric.capitalize()} against the start", about, svg))
    return plots


def _gains(rows: Sequence[Row]) -> list[Plot]:
    about = f"Differences from {rows[0].setting}, same image and noise. Certain if the interval does not contain zero."
    names = _labels([row.setting for row in rows])
    plots = []
    for metric, label in (("motion", "Motion gained, % of side per frame"), ("fidelity", "Fidelity gained (proxy)")):
        gained = [
            (name, row.gains[metric], colour_of(rows, row)) for name, row in zip(names, rows, strict=True) if row.gains
        ]
        if gained:
            plots.append(Plot(f"{metric}-gained", label, about, differences(gained, x_label=label)))
    return plots


def _labels(settings: Sequence[str]) -> list[str]:
    """Short names of settings: long ones of a method that occurs at least three times by their values alone."""
    heads = [setting.partition(":")[0] for setting in settings]
    return [
        text if len(text) <= 26 or heads.count(head) < 3 else text.partition(":")[2]
        for text, head in zip(settings, heads, strict=True)
    ]
