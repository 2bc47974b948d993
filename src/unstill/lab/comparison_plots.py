"""The plots of a comparison, for its report and for documentation."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from unstill.lab.aggregate import Row
from unstill.lab.plots import GREY, Point, Series, curves, differences, scatter


COLOURS = 6
_LEVEL = re.compile(r"([\w-]+):(start|sigma)=([\d.]+)")


class Drawn(NamedTuple):
    """A plot: a short name for its file, its title, what to look at in it, and the SVG."""

    name: str
    title: str
    about: str
    svg: str


def drawn(rows: Sequence[Row]) -> list[Drawn]:
    """All plots of the settings of one model at one motion level, the first of which is the plain one."""
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
    front = Drawn(
        "front",
        "Motion against fidelity",
        "Up and to the right is better. The dashed line is the front: no setting lies beyond it.",
        scatter(points, x_label="motion, % of side per frame", y_label="fidelity (proxy)"),
    )
    return [front, *_sweeps(rows), *_gains(rows)]


def colour_of(rows: Sequence[Row], row: Row) -> int:
    """By method, so that the values of a sweep share one; grey for the first setting."""
    if row.setting == rows[0].setting:
        return GREY
    names = list(dict.fromkeys(one.setting.partition(":")[0] for one in rows if one.setting != rows[0].setting))
    return names.index(row.setting.partition(":")[0]) % COLOURS


def _sweeps(rows: Sequence[Row]) -> list[Drawn]:
    """Motion and fidelity against the level at which sampling starts, where three or more of one method were tried."""
    by_method: dict[str, list[tuple[float, Row]]] = {}
    units = set()
    for row in rows:
        if found := _LEVEL.fullmatch(row.setting):
            by_method.setdefault(found[1], []).append((float(found[3]), row))
            units.add(found[2])
    swept = {method: sorted(those, key=lambda one: one[0]) for method, those in by_method.items() if len(those) > 2}
    if not swept or len(units) > 1:
        return []
    unit = units.pop()
    made = []
    for metric, words in (("motion", "motion, % of side per frame"), ("fidelity", "fidelity (proxy)")):
        series = []
        for method, those in swept.items():
            values = [row.means[metric] for _, row in those]
            series.append(Series(method, [x for x, _ in those], values, colour_of(rows, those[0][1])))
        plain = rows[0].means[metric].value
        svg = curves(series, x_label=f"start ({unit})", y_label=words, log_x=unit == "sigma", lines=(plain,))
        about = f"The further to the left, the less noise sampling starts from. The thin line is {rows[0].setting}."
        made.append(Drawn(f"{metric}-by-start", f"{metric.capitalize()} against the start", about, svg))
    return made


def _gains(rows: Sequence[Row]) -> list[Drawn]:
    about = f"Against {rows[0].setting}, same image and noise. Intervals that do not cross zero are certain."
    names = _labels([row.setting for row in rows])
    made = []
    for metric, words in (("motion", "Motion gained, % of side per frame"), ("fidelity", "Fidelity gained (proxy)")):
        gained = [
            (name, row.gains[metric], colour_of(rows, row)) for name, row in zip(names, rows, strict=True) if row.gains
        ]
        if gained:
            made.append(Drawn(f"{metric}-gained", words, about, differences(gained, x_label=words)))
    return made


def _labels(settings: Sequence[str]) -> list[str]:
    """Names that fit beside a plot: those of one method with many values are named by the values."""
    heads = [one.partition(":")[0] for one in settings]
    return [
        text if len(text) <= 26 or heads.count(head) < 3 else text.partition(":")[2]
        for text, head in zip(settings, heads, strict=True)
    ]
