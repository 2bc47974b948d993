"""
A matplotlib figure in the style of the lab, and its conversion to self-contained SVG text.

Colours become CSS variables with a value for light and one for dark (`prefers-color-scheme`), text stays text in the
font of the system, and the same data give the same bytes. matplotlib is imported when the first figure is made.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from html import escape
from typing import TYPE_CHECKING, Any

from unstill.lab.interval_text import number


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


WIDTH, HEIGHT = 5.4, 3.5
"""Size of a plot in inches of 72 points; row plots grow with their rows."""
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"

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


class Tooltips:
    """Texts of tooltips by the id of their mark; in the SVG they become `<title>` elements."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def add(self, text: str) -> str:
        self.texts.append(text)
        return f"tip-{len(self.texts) - 1}"

    def insert(self, svg: str) -> str:
        return re.sub(
            r'<g id="tip-(\d+)">', lambda match: f"<g><title>{escape(self.texts[int(match[1])])}</title>", svg
        )


@contextmanager
def new_figure(height: float = HEIGHT) -> Iterator[tuple[Figure, Axes, Tooltips]]:
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
        "text.color": light("soft"),
        "axes.labelcolor": light("soft"),
        "axes.edgecolor": light("faint"),
        "axes.facecolor": "none",
        "figure.facecolor": light("card"),
        "grid.color": light("hair"),
        "grid.linewidth": 0.8,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.spines.left": False,
        "xtick.color": light("faint"),
        "xtick.labelcolor": light("soft"),
        "ytick.color": light("faint"),
        "ytick.labelcolor": light("soft"),
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
        yield figure, axes, Tooltips()


def svg_of(figure: Figure, axes: Axes, tips: Tooltips, x_label: str, y_label: str, title: str) -> str:
    """The figure as SVG text; `title` is its description for screen readers."""
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<style type="text/css">.*?</style>', "", svg, flags=re.DOTALL)
    svg = tips.insert(svg).replace("xlink:href=", "href=")
    referred = set(re.findall(r'(?:href="|url\()#([\w-]+)', svg))
    svg = re.sub(r' id="([\w.-]+)"', lambda match: match[0] if match[1] in referred else "", svg)
    for role, (colour, _) in _COLOURS.items():
        svg = re.sub(f"{colour}\\b", f"var(--plot-{role}, {colour})", svg)
    svg = re.sub(r"font-family: 'DejaVu Sans';? ?", "", svg)
    size = re.search(r'viewBox="0 0 (\S+) (\S+)"', svg)
    assert size
    head = (
        f'<svg class="plot" font-family="{FONT}" xmlns="http://www.w3.org/2000/svg" '
        f'viewBox="0 0 {size[1]} {size[2]}" width="{1.6 * float(size[1]):g}" role="img" '
        f'aria-label="{escape(title, quote=True)}"><style>{_STYLE}</style>'
    )
    return head + svg[svg.index(">") + 1 :].strip() + "\n"


def add_legend(figure: Figure, handles: Sequence[Any], names: Sequence[str]) -> None:
    """A legend above the plot, in as many columns as fit."""
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
        labelcolor=light("ink"),
    )


def log_axis(axes: Axes, values: Sequence[float]) -> None:
    """Makes the x axis logarithmic, with limits around `values`."""
    from matplotlib.ticker import LogLocator, NullFormatter

    low, high = min(values), max(values)
    axes.set_xscale("log")
    if high > low:
        axes.set_xlim(low / (high / low) ** 0.02, high * (high / low) ** 0.02)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if high / low > 30 else (1.0, 2.0, 5.0)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(lambda value, _: number(value))


def light(role: str) -> str:
    """The light colour of a role, which `svg_of` replaces by its variable."""
    return _COLOURS[role][0]


def _variables(scheme: int) -> str:
    return ";".join(f"--plot-{role}:{colours[scheme]}" for role, colours in _COLOURS.items())


_STYLE = (
    f".plot{{{_variables(0)};stroke-linejoin:round;stroke-linecap:butt}}"
    f"@media(prefers-color-scheme:dark){{.plot{{{_variables(1)}}}}}"
)
