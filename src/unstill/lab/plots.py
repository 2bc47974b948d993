"""
Plots of the lab as SVG text, drawn by matplotlib.

Every SVG is self-contained: it can stand in a web page or be a file of its own. Colours are CSS variables with a value
for light and one for dark (`prefers-color-scheme`), text stays text in the font of the system, and the same data give
the same bytes. What a point is, is also in its tooltip. matplotlib is imported when the first plot is drawn.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from unstill.lab.bootstrap import Interval
from unstill.lab.interval_text import between, number


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


WIDTH, HEIGHT = 5.4, 3.5
"""Size of a plot in inches of 72 points; row plots grow with their rows."""
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
GREY = 6
"""Number of the neutral series colour."""

_COLOURS = {  # role: (light, dark)
    "card": ("#ffffff", "#1c2024"),
    "ink": ("#1f2328", "#e7e9ec"),
    "soft": ("#57606a", "#a3abb5"),
    "faint": ("#d9dce1", "#3a4048"),
    "hair": ("#eceef1", "#292e34"),
    "accent": ("#0b6e5f", "#5cc9b3"),
    "0": ("#1b6ca8", "#6db3ea"),
    "1": ("#d1571b", "#f2925c"),
    "2": ("#0b8a6a", "#4fcfa8"),
    "3": ("#9a4fb0", "#cf94e2"),
    "4": ("#8a6d00", "#dcc04a"),
    "5": ("#c2345c", "#f27d9b"),
    "6": ("#6b7280", "#9aa3ae"),
}


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
    with _figure() as (figure, axes, tips):
        _draw_curves(figure, axes, tips, series, log_x=log_x, y_range=y_range, lines=lines, mark=mark)
        return _svg(figure, axes, tips, x_label, y_label, f"{y_label} against {x_label}")


def curves_picture(series: Sequence[Series], *, x_label: str, y_label: str, dpi: int = 144, **options: Any) -> Tensor:
    """The same plot as pixels, uint8 `(3, H, W)`, for programs that show no SVG; `options` as of `curves`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    drawn: dict[str, Any] = {"log_x": False, "y_range": None, "lines": (), "mark": None, **options}
    with _figure() as (figure, axes, tips):
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
    tips: _Tips,
    series: Sequence[Series],
    *,
    log_x: bool,
    y_range: tuple[float, float] | None,
    lines: Sequence[float],
    mark: float | None,
) -> None:
    low, high = y_range or (-math.inf, math.inf)
    for height in lines:
        axes.axhline(height, color=_light("soft"), linewidth=0.8, zorder=1)
    if mark is not None:
        axes.axvline(mark, color=_light("accent"), linewidth=1.2, linestyle=(0, (3, 3)), zorder=1)
    handles = []
    for one in series:
        colour = _light(str(one.colour))
        known = [(x, y) for x, y in zip(one.x, one.y, strict=True) if y.known and y.high > y.low]
        if known:
            ends = [[min(max(end, low), high) for end in (y.low, y.high)] for _, y in known]
            lower, upper = ([end[i] for end in ends] for i in (0, 1))
            axes.fill_between([x for x, _ in known], lower, upper, color=colour, alpha=0.14, linewidth=0, zorder=2)
        finite = [(x, y) for x, y in zip(one.x, one.y, strict=True) if math.isfinite(y.value)]
        xs, ys = [x for x, _ in finite], [min(max(y.value, low), high) for _, y in finite]
        style = (0, (5, 3)) if one.dashed else "solid"
        handles += axes.plot(xs, ys, color=colour, linewidth=1.8, linestyle=style, zorder=3, clip_on=False)
        for x, at, (_, y) in zip(xs, ys, finite, strict=True) if one.dots else ():
            tip = tips.add(f"{one.name}, {number(x)}: {between(y)}")
            axes.plot([x], [at], "o", color=colour, markersize=4.5, zorder=4, gid=tip, clip_on=False)
    if log_x:
        _log_axis(axes, [x for one in series for x in one.x])
    if y_range is not None:
        axes.set_ylim(*y_range)
    if not any(math.isfinite(y.value) for one in series for y in one.y):
        axes.set_ylim(0, 1)
    if len(series) > 1:
        _legend(figure, handles, [one.name for one in series])


def scatter(points: Sequence[Point], *, x_label: str, y_label: str) -> str:
    """Points with intervals along both axes, as SVG; the marked ones are joined as a staircase, the front."""
    from matplotlib.lines import Line2D

    with _figure() as (figure, axes, tips):
        for point in points:
            colour, (x, y) = _light(str(point.colour)), (point.x, point.y)
            line: dict[str, Any] = {"color": colour, "alpha": 0.6, "linewidth": 1.3, "zorder": 2}
            if x.known:
                axes.plot([x.low, x.high], [y.value, y.value], **line)
            if y.known:
                axes.plot([x.value, x.value], [y.low, y.high], **line)
            size = 9 if point.marked else 6
            tip = tips.add(f"{point.name}: {x_label} {between(x)}, {y_label} {between(y)}")
            edge: dict[str, Any] = {"markeredgecolor": _light("card"), "markeredgewidth": 1.0}
            axes.plot([x.value], [y.value], "o", color=colour, markersize=size, zorder=4, gid=tip, **edge)
        front = sorted((p for p in points if p.marked), key=lambda p: p.x.value)
        if front:
            (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
            xs, ys = [left], [front[0].y.value]
            for here, after in zip(front, [*front[1:], None], strict=True):
                xs += [here.x.value, here.x.value]
                ys += [here.y.value, after.y.value if after else bottom]
            axes.plot(xs, ys, color=_light("accent"), linewidth=1.2, linestyle=(0, (4, 4)), alpha=0.8, zorder=1)
            axes.set_xlim(left, right)
            axes.set_ylim(bottom, top)
        groups = {point.group: point.colour for point in points if point.group}
        if len(groups) > 1:
            dots = [
                Line2D([], [], marker="o", linestyle="none", markersize=6, color=_light(str(colour)))
                for colour in groups.values()
            ]
            _legend(figure, dots, list(groups))
        return _svg(figure, axes, tips, x_label, y_label, f"{y_label} against {x_label}")


def differences(rows: Sequence[tuple[str, Interval, int]], *, x_label: str) -> str:
    """One row each of (name, difference, colour), as SVG; a vertical line marks zero."""
    with _figure(0.6 + 0.28 * len(rows)) as (figure, axes, tips):
        axes.axvline(0, color=_light("soft"), linewidth=0.9, zorder=1)
        for i, (name, one, number_of_colour) in enumerate(rows):
            colour = _light(str(number_of_colour))
            if one.known:
                axes.plot([one.low, one.high], [i, i], color=colour, linewidth=1.6, alpha=0.65, zorder=2)
            tip = tips.add(f"{name}: {between(one)}")
            edge: dict[str, Any] = {"markeredgecolor": _light("card"), "markeredgewidth": 1.0}
            axes.plot([one.value], [i], "o", color=colour, markersize=7, zorder=3, gid=tip, **edge)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_yticks(range(len(rows)), [_short(name, 34) for name, _, _ in rows], color=_light("ink"))
        axes.grid(True, axis="x")
        axes.grid(False, axis="y")
        return _svg(figure, axes, tips, x_label, "", x_label)


class _Tips:
    """Tooltips by the id of their mark; ids become `<title>` elements."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def add(self, text: str) -> str:
        self.texts.append(text)
        return f"tip-{len(self.texts) - 1}"

    def insert(self, svg: str) -> str:
        return re.sub(
            r'<g id="tip-(\d+)">', lambda found: f"<g><title>{escape(self.texts[int(found[1])])}</title>", svg
        )


@contextmanager
def _figure(height: float = HEIGHT) -> Iterator[tuple[Figure, Axes, _Tips]]:
    """A figure in the style of the lab, without the global state of pyplot; matplotlib's defaults otherwise."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    style = {
        "svg.fonttype": "none",
        "svg.hashsalt": "unstill",
        "text.parse_math": False,
        "font.family": ["DejaVu Sans"],  # measured with it; the SVG names the system's font, which is narrower
        "font.size": 9,
        "text.color": _light("soft"),
        "axes.labelcolor": _light("soft"),
        "axes.edgecolor": _light("faint"),
        "axes.facecolor": "none",
        "figure.facecolor": _light("card"),
        "grid.color": _light("hair"),
        "grid.linewidth": 0.8,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.spines.left": False,
        "xtick.color": _light("faint"),
        "xtick.labelcolor": _light("soft"),
        "ytick.color": _light("faint"),
        "ytick.labelcolor": _light("soft"),
        "ytick.major.size": 0,
        "xtick.minor.size": 0,
    }
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(style)
        figure = Figure(figsize=(WIDTH, height), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1))
        axes = figure.add_subplot()
        axes.grid(True, axis="y")
        formatted: Any = lambda value, _: number(value)  # noqa: E731
        axes.xaxis.set_major_formatter(formatted)
        axes.yaxis.set_major_formatter(formatted)
        yield figure, axes, _Tips()


def _svg(figure: Figure, axes: Axes, tips: _Tips, x_label: str, y_label: str, title: str) -> str:
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    drawn = text.getvalue()
    drawn = drawn[drawn.index("<svg") :]
    drawn = re.sub(r"<metadata>.*?</metadata>", "", drawn, flags=re.DOTALL)
    drawn = re.sub(r'<style type="text/css">.*?</style>', "", drawn, flags=re.DOTALL)
    drawn = tips.insert(drawn).replace("xlink:href=", "href=")
    referred = set(re.findall(r'(?:href="|url\()#([\w-]+)', drawn))
    drawn = re.sub(r' id="([\w.-]+)"', lambda found: found[0] if found[1] in referred else "", drawn)
    for role, (light, _) in _COLOURS.items():
        drawn = re.sub(f"{light}\\b", f"var(--plot-{role}, {light})", drawn)
    drawn = re.sub(r"font-family: 'DejaVu Sans';? ?", "", drawn)
    size = re.search(r'viewBox="0 0 (\S+) (\S+)"', drawn)
    assert size
    head = (
        f'<svg class="plot" font-family="{FONT}" xmlns="http://www.w3.org/2000/svg" '
        f'viewBox="0 0 {size[1]} {size[2]}" width="{1.6 * float(size[1]):g}" role="img" '
        f'aria-label="{escape(title, quote=True)}"><style>{_STYLE}</style>'
    )
    return head + drawn[drawn.index(">") + 1 :].strip() + "\n"


def _legend(figure: Figure, handles: Sequence[Any], names: Sequence[str]) -> None:
    """Above the plot, in as many columns as fit."""
    widest = max(map(len, names))
    columns = max(1, min(len(names), int(WIDTH * 72 / (5.6 * widest + 34))))
    figure.legend(
        handles,
        names,
        loc="outside upper left",
        ncols=columns,
        frameon=False,
        handlelength=1.8,
        columnspacing=1.4,
        labelcolor=_light("ink"),
    )


def _log_axis(axes: Axes, values: Sequence[float]) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    low, high = min(values), max(values)
    axes.set_xscale("log")
    if high > low:
        axes.set_xlim(low / (high / low) ** 0.02, high * (high / low) ** 0.02)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if high / low > 30 else (1.0, 2.0, 5.0)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(lambda value, _: number(value))


def _light(role: str) -> str:
    return _COLOURS[role][0]


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "\u2026"


def _variables(scheme: int) -> str:
    return ";".join(f"--plot-{role}:{colours[scheme]}" for role, colours in _COLOURS.items())


_STYLE = (
    f".plot{{{_variables(0)};stroke-linejoin:round;stroke-linecap:butt}}"
    f"@media(prefers-color-scheme:dark){{.plot{{{_variables(1)}}}}}"
)
