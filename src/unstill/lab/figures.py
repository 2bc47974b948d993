"""Plots of the lab as files of their own, for documentation: with a legend, and colours for light and dark."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from pathlib import Path

from unstill.data.atomic import replacing
from unstill.lab.page import plot_style
from unstill.lab.plots import WIDTH


Legend = Sequence[tuple[str, int, bool]]
"""(name, colour, dashed)."""
_LETTER, _ROW, _EDGE = 6.4, 20.0, 12.0


def write_figure(path: Path, svg: str, legend: Legend = ()) -> None:
    """One plot of `unstill.lab.plots` as a file that a browser shows by itself."""
    with replacing(path) as temporary:
        temporary.write_text(standalone(svg, legend), encoding="utf-8")


def standalone(svg: str, legend: Legend = ()) -> str:
    head, inside = svg.split(">", 1)
    found = re.search(r'viewBox="0 0 (\S+) (\S+)"', head)
    label = re.search(r'aria-label="([^"]*)"', head)
    assert found and label
    height = float(found[2])
    drawn, top = _legend(legend)
    box = f"{-_EDGE:g} {-top - _EDGE:g} {WIDTH + 2 * _EDGE:g} {height + top + 2 * _EDGE:g}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}" width="{1.5 * (WIDTH + 2 * _EDGE):g}" '
        f'role="img" aria-label="{label[1]}"><style>{plot_style()}</style>'
        f'<rect class="card" x="{-_EDGE:g}" y="{-top - _EDGE:g}" width="{WIDTH + 2 * _EDGE:g}" '
        f'height="{height + top + 2 * _EDGE:g}" rx="10"/>{drawn}{inside}\n'
    )


def _legend(legend: Legend) -> tuple[str, float]:
    """Rows of names above the plot, and their height."""
    parts, x, row = [], 0.0, 0
    placed = []
    for name, colour, dashed in legend:
        width = 26 + _LETTER * len(name) + 16
        if x and x + width > WIDTH:
            x, row = 0.0, row + 1
        placed.append((x, row, name, colour, dashed))
        x += width
    top = _ROW * (row + 1) if placed else 0.0
    for x, row, name, colour, dashed in placed:
        y = -top + _ROW * row + 8
        parts.append(
            f'<line class="line c{colour}{" dashed" if dashed else ""}" x1="{x:g}" x2="{x + 18:g}" y1="{y:g}" '
            f'y2="{y:g}"/><text x="{x + 25:g}" y="{y + 4:g}">{escape(name)}</text>'
        )
    return "".join(parts), top
