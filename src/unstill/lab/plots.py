"""
Plots of the lab as self-contained SVG text, see `unstill.lab.svg_figure`: they can stand in a web page or be files of
their own. The tooltip of a point says what it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from unstill.lab.bootstrap import Interval
from unstill.lab.interval_text import between, number
from unstill.lab.svg_figure import HEIGHT, Tooltips, add_legend, light, log_axis, new_figure, svg_of


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


GREY = 6
"""Number of the neutral series colour."""


@dataclass(frozen=True, slots=True)
class Series:
    """
    A curve with intervals.

    Attributes:
        name: entry of the legend.
        x, y: its points; y of equal ends draws no band.
        colour: 0 to 6; 6 is grey.
        dashed: for a reference to compare with.
        dots: whether its points are marked.
    """

    name: str
    x: Sequence[float]
    y: Sequence[Interval]
    colour: int
    dashed: bool = False
    dots: bool = True


@dataclass(frozen=True, slots=True)
class Point:
    """
    A point with an interval along each axis.

    Attributes:
        name: shown in its tooltip.
        group: entry of the legend; points of one group share a colour.
        marked: points on the front, which are larger and joined.
    """

    name: str
    x: Interval
    y: Interval
    colour: int
    marked: bool = False
    group: str = ""


def curves(
    series: Sequence[Series],
    *,
    x_label: str,
    y_label: str,
    log_x: bool = False,
    y_range: tuple[float, float] | None = None,
    lines: Sequence[float] = (),
    mark: float | None = None,
) -> str:
    """
    Lines with bands, as SVG.

    Args:
        y_range: limits of the y axis; points beyond it are drawn at its edge.
        lines: heights of thin horizontal lines.
        mark: an x to point out by a dashed vertical line.
    """
    with new_figure() as (figure, axes, tips):
        _draw_curves(figure, axes, tips, series, log_x=log_x, y_range=y_range, lines=lines, mark=mark)
        return svg_of(figure, axes, tips, x_label, y_label, f"{y_label} against {x_label}")


def curves_picture(series: Sequence[Series], *, x_label: str, y_label: str, dpi: int = 144, **options: Any) -> Tensor:
    """The same plot as pixels, uint8 `(3, H, W)`, for programs that show no SVG; `options` as of `curves`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    drawn: dict[str, Any] = {"log_x": False, "y_range": None, "lines": (), "mark": None, **options}
    with new_figure() as (figure, axes, tips):
        _draw_curves(figure, axes, tips, series, **drawn)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        figure.set_dpi(dpi)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        return torch.from_numpy(np.array(canvas.buffer_rgba())[..., :3]).permute(2, 0, 1)


def _draw_curves(
    figure: Figure,
    axes: Axes,
    tips: Tooltips,
    series: Sequence[Series],
    *,
    log_x: bool,
    y_range: tuple[float, float] | None,
    lines: Sequence[float],
    mark: float | None,
) -> None:
    low, high = y_range or (-math.inf, math.inf)
    for height in lines:
        axes.axhline(height, color=light("soft"), linewidth=0.8, zorder=1)
    if mark is not None:
        axes.axvline(mark, color=light("accent"), linewidth=1.2, linestyle=(0, (3, 3)), zorder=1)
    handles = []
    for curve in series:
        colour = light(str(curve.colour))
        known = [(x, y) for x, y in zip(curve.x, curve.y, strict=True) if y.known and y.high > y.low]
        if known:
            ends = [[min(max(end, low), high) for end in (y.low, y.high)] for _, y in known]
            lower, upper = ([end[i] for end in ends] for i in (0, 1))
            axes.fill_between([x for x, _ in known], lower, upper, color=colour, alpha=0.14, linewidth=0, zorder=2)
        finite = [(x, y) for x, y in zip(curve.x, curve.y, strict=True) if math.isfinite(y.value)]
        xs, ys = [x for x, _ in finite], [min(max(y.value, low), high) for _, y in finite]
        style = (0, (5, 3)) if curve.dashed else "solid"
        handles += axes.plot(xs, ys, color=colour, linewidth=1.8, linestyle=style, zorder=3, clip_on=False)
        for x, at, (_, y) in zip(xs, ys, finite, strict=True) if curve.dots else ():
            tip = tips.add(f"{curve.name}, {number(x)}: {between(y)}")
            axes.plot([x], [at], "o", color=colour, markersize=4.5, zorder=4, gid=tip, clip_on=False)
    if log_x:
        log_axis(axes, [x for curve in series for x in curve.x])
    if y_range is not None:
        axes.set_ylim(*y_range)
    if not any(math.isfinite(y.value) for curve in series for y in curve.y):
        axes.set_ylim(0, 1)
    if len(series) > 1:
        add_legend(figure, handles, [curve.name for curve in series])


def scatter(points: Sequence[Point], *, x_label: str, y_label: str) -> str:
    """Points with intervals along both axes, as SVG; the marked ones are joined as a staircase, the front."""
    from matplotlib.lines import Line2D

    with new_figure() as (figure, axes, tips):
        for point in points:
            colour, (x, y) = light(str(point.colour)), (point.x, point.y)
            line: dict[str, Any] = {"color": colour, "alpha": 0.6, "linewidth": 1.3, "zorder": 2}
            if x.known:
                axes.plot([x.low, x.high], [y.value, y.value], **line)
            if y.known:
                axes.plot([x.value, x.value], [y.low, y.high], **line)
            size = 9 if point.marked else 6
            tip = tips.add(f"{point.name}: {x_label} {between(x)}, {y_label} {between(y)}")
            edge: dict[str, Any] = {"markeredgecolor": light("card"), "markeredgewidth": 1.0}
            axes.plot([x.value], [y.value], "o", color=colour, markersize=size, zorder=4, gid=tip, **edge)
        front = sorted((p for p in points if p.marked), key=lambda p: p.x.value)
        if front:
            (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
            xs, ys = [left], [front[0].y.value]
            for here, after in zip(front, [*front[1:], None], strict=True):
                xs += [here.x.value, here.x.value]
                ys += [here.y.value, after.y.value if after else bottom]
            axes.plot(xs, ys, color=light("accent"), linewidth=1.2, linestyle=(0, (4, 4)), alpha=0.8, zorder=1)
            axes.set_xlim(left, right)
            axes.set_ylim(bottom, top)
        groups = {point.group: point.colour for point in points if point.group}
        if len(groups) > 1:
            dots = [
                Line2D([], [], marker="o", linestyle="none", markersize=6, color=light(str(colour)))
                for colour in groups.values()
            ]
            add_legend(figure, dots, list(groups))
        return svg_of(figure, axes, tips, x_label, y_label, f"{y_label} against {x_label}")


def differences(rows: Sequence[tuple[str, Interval, int]], *, x_label: str) -> str:
    """One row each of (name, difference, colour), as SVG; a vertical line marks zero."""
    with new_figure(0.6 + 0.28 * len(rows)) as (figure, axes, tips):
        axes.axvline(0, color=light("soft"), linewidth=0.9, zorder=1)
        for i, (name, difference, colour_number) in enumerate(rows):
            colour = light(str(colour_number))
            if difference.known:
                axes.plot([difference.low, difference.high], [i, i], color=colour, linewidth=1.6, alpha=0.65, zorder=2)
            tip = tips.add(f"{name}: {between(difference)}")
            edge: dict[str, Any] = {"markeredgecolor": light("card"), "markeredgewidth": 1.0}
            axes.plot([difference.value], [i], "o", color=colour, markersize=7, zorder=3, gid=tip, **edge)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_yticks(range(len(rows)), [_short(name, 34) for name, _, _ in rows], color=light("ink"))
        axes.grid(True, axis="x")
        axes.grid(False, axis="y")
        return svg_of(figure, axes, tips, x_label, "", x_label)


def heatmap(rows: Sequence[tuple[str, Sequence[Interval]]], columns: Sequence[str], *, x_label: str) -> str:
    """
    A table as SVG whose fields are the fuller of colour the higher their value, from 0 to the highest.

    Args:
        rows: name and values of every row, from the top.
        columns: names.
        x_label: what the columns are.
    """
    from matplotlib.patches import Rectangle

    highest = max((one.value for _, row in rows for one in row if math.isfinite(one.value)), default=0) or 1.0
    with new_figure(max(HEIGHT, 0.7 + 0.13 * len(rows))) as (figure, axes, tips):
        for i, (name, row) in enumerate(rows):
            for j, (column, one) in enumerate(zip(columns, row, strict=True)):
                tip = tips.add(f"{name}, {column}: {between(one)}")
                full = min(max(one.value / highest, 0.0), 1.0) if math.isfinite(one.value) else 0.0
                colour: dict[str, Any] = {"facecolor": light("accent"), "alpha": full, "linewidth": 0, "zorder": 2}
                axes.add_patch(Rectangle((j, i), 0.94, 0.94, gid=tip, **colour))
        every = -(-len(rows) // 24)  # names that fit beside the rows
        axes.set_yticks([i + 0.47 for i in range(0, len(rows), every)], [name for name, _ in rows[::every]])
        axes.set_xticks([j + 0.47 for j in range(len(columns))], columns)
        axes.set_xlim(-0.06, len(columns))
        axes.set_ylim(len(rows), -0.06)
        axes.grid(False)
        return svg_of(figure, axes, tips, x_label, "", f"{rows[0][0]} and others against {x_label}")


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "\u2026"
