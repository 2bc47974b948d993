"""
Plots as SVG text for a web page. Colours are the page's (`--s0` ... `--s5`, `--ink`, `--faint`), so that one plot
serves light and dark; sizes are those of a phone's width, so that the letters stay readable there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from unstill.lab.bootstrap import Interval


WIDTH, HEIGHT = 420.0, 280.0
LEFT, RIGHT, TOP, BOTTOM = 58.0, 12.0, 12.0, 42.0


@dataclass(frozen=True, slots=True)
class Series:
    """A curve with intervals. `colour`: number of one of the page's colours. `dashed`: for what is a yardstick.
    `dots`: whether its points are marked; those of a formula are not."""

    name: str
    x: Sequence[float]
    y: Sequence[Interval]
    colour: int
    dashed: bool = False
    dots: bool = True


@dataclass(frozen=True, slots=True)
class Point:
    """A named point with an interval each way; `marked` points are joined as the front."""

    name: str
    x: Interval
    y: Interval
    colour: int
    marked: bool = False


class _Axis:
    """Data to picture, and the places of the ticks."""

    def __init__(self, low: float, high: float, start: float, end: float, log: bool = False) -> None:
        if not high > low:
            low, high = low - 0.5 * abs(low) - 1e-6, high + 0.5 * abs(high) + 1e-6
        self.low, self.high, self.start, self.end, self.log = low, high, start, end, log

    def __call__(self, value: float) -> float:
        value = min(max(value, self.low), self.high)
        if self.log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 2)

    def ticks(self) -> list[float]:
        if self.log:
            steps = (1, 10) if self.high / self.low > 30 else (1, 2, 5, 10)
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            found = sorted({s * 10.0**p for p in powers for s in steps})
            return [t for t in found if self.low * 0.999 <= t <= self.high * 1.001]
        rough = (self.high - self.low) / 5
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)
        first = math.ceil(self.low / step - 1e-9)
        return [k * step for k in range(first, math.floor(self.high / step + 1e-9) + 1)]


def curves(
    series: Sequence[Series],
    *,
    x_label: str,
    y_label: str,
    log_x: bool = False,
    y_range: tuple[float, float] | None = None,
    lines: Sequence[float] = (),
    mark: float | None = None,
    title: str = "",
) -> str:
    """
    Lines with bands.

    Args:
        y_range: what is beyond it is drawn at its edge.
        lines: heights of thin horizontal lines.
        mark: an x to point out.
    """
    xs = [x for s in series for x in s.x]
    x = _Axis(min(xs), max(xs), LEFT, WIDTH - RIGHT, log_x)
    if y_range is None:
        values = [v for s in series for y in s.y for v in (y.low, y.high, y.value) if math.isfinite(v)] + list(lines)
        values = values or [0.0, 1.0]
        margin = 0.05 * (max(values) - min(values))
        y_range = (min(values) - margin, max(values) + margin)
    y = _Axis(*y_range, HEIGHT - BOTTOM, TOP)
    parts = _frame(x, y, x_label, y_label)
    parts += [f'<line class="rule" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(at)}" y2="{y(at)}"/>' for at in lines]
    if mark is not None:
        parts.append(f'<line class="mark" x1="{x(mark)}" x2="{x(mark)}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
    for one in series:
        known = [(a, b) for a, b in zip(one.x, one.y, strict=True) if b.known]
        upper = [f"{x(a)},{y(b.high)}" for a, b in known]
        lower = [f"{x(a)},{y(b.low)}" for a, b in reversed(known)]
        if known:
            parts.append(f'<polygon class="band c{one.colour}" points="{" ".join(upper + lower)}"/>')
    for one in series:
        known = [(a, b) for a, b in zip(one.x, one.y, strict=True) if math.isfinite(b.value)]
        path = " ".join(f"{x(a)},{y(b.value)}" for a, b in known)
        parts.append(f'<polyline class="line c{one.colour}{" dashed" if one.dashed else ""}" points="{path}"/>')
        for a, b in known if one.dots else ():
            said = f"{one.name}, {number(a)}: {between(b)}"
            parts.append(
                f'<circle class="dot c{one.colour}" cx="{x(a)}" cy="{y(b.value)}" r="3.2">'
                f"<title>{escape(said)}</title></circle>"
            )
    return _svg(parts, title or y_label)


def scatter(points: Sequence[Point], *, x_label: str, y_label: str, title: str = "") -> str:
    """Points with intervals both ways; the marked ones are joined by a staircase: nothing lies beyond it."""
    x = _range([p.x for p in points], LEFT, WIDTH - RIGHT)
    y = _range([p.y for p in points], HEIGHT - BOTTOM, TOP)
    parts = _frame(x, y, x_label, y_label)
    front = sorted((p for p in points if p.marked), key=lambda p: p.x.value)
    if front:
        steps = [f"{x(x.low)},{y(front[0].y.value)}"]
        for here, after in zip(front, [*front[1:], None], strict=True):
            steps.append(f"{x(here.x.value)},{y(here.y.value)}")
            steps.append(f"{x(here.x.value)},{y(after.y.value if after else y.low)}")
        parts.append(f'<polyline class="front" points="{" ".join(steps)}"/>')
    for p in points:
        at = (x(p.x.value), y(p.y.value))
        said = f"{p.name}: {x_label} {between(p.x)}, {y_label} {between(p.y)}"
        parts.append(
            f'<g class="point c{p.colour}"><title>{escape(said)}</title>'
            + (f'<line x1="{x(p.x.low)}" x2="{x(p.x.high)}" y1="{at[1]}" y2="{at[1]}"/>' if p.x.known else "")
            + (f'<line x1="{at[0]}" x2="{at[0]}" y1="{y(p.y.low)}" y2="{y(p.y.high)}"/>' if p.y.known else "")
            + f'<circle cx="{at[0]}" cy="{at[1]}" r="{5.5 if p.marked else 4}"/></g>'
        )
    return _svg(parts, title or f"{y_label} against {x_label}")


def differences(rows: Sequence[tuple[str, Interval, int]], *, x_label: str, title: str = "") -> str:
    """One row each: name, difference with its interval, colour; zero is a line. What does not cross it is certain."""
    height = 26.0 * len(rows) + BOTTOM + TOP
    ends = [v for _, one, _ in rows for v in (one.low, one.high, one.value) if math.isfinite(v)] + [0.0]
    margin = 0.04 * (max(ends) - min(ends))
    x = _Axis(min(ends) - margin, max(ends) + margin, 170.0, WIDTH - RIGHT)
    bottom = height - BOTTOM
    parts = [
        f'<line class="grid" x1="{x(t)}" x2="{x(t)}" y1="{TOP}" y2="{bottom}"/>'
        f'<text class="tick" x="{x(t)}" y="{bottom + 16}" text-anchor="middle">{number(t)}</text>'
        for t in x.ticks()
    ]
    parts.append(f'<line class="zero" x1="{x(0)}" x2="{x(0)}" y1="{TOP}" y2="{bottom}"/>')
    for i, (name, one, colour) in enumerate(rows):
        at = TOP + 26.0 * i + 13
        parts.append(
            f'<text class="name" x="162" y="{at + 4}" text-anchor="end">{escape(_short(name, 26))}'
            f"<title>{escape(name)}</title></text>"
            f'<g class="point c{colour}"><title>{escape(f"{name}: {between(one)}")}</title>'
            + (f'<line x1="{x(one.low)}" x2="{x(one.high)}" y1="{at}" y2="{at}"/>' if one.known else "")
            + f'<circle cx="{x(one.value)}" cy="{at}" r="4.5"/></g>'
        )
    parts.append(
        f'<text class="label" x="{(170 + WIDTH - RIGHT) / 2}" y="{height - 6}" text-anchor="middle">'
        f"{escape(x_label)}</text>"
    )
    return _svg(parts, title or x_label, height)


def number(value: float) -> str:
    """A figure as short as it may be: 0.36, 12, 200."""
    if not math.isfinite(value):
        return "\u2013"
    if value == 0:
        return "0"
    size = abs(value)
    text = f"{value:.0f}" if size >= 100 else f"{value:.3g}" if size >= 1 else f"{value:.3f}".rstrip("0").rstrip(".")
    return "0" if text in ("-0", "0", "") else text.replace("-", "\u2212")


def between(one: Interval) -> str:
    """An estimate and its interval in words; the estimate alone where there is no interval."""
    if not one.known:
        return number(one.value)
    return f"{number(one.value)} ({number(one.low)} to {number(one.high)})"


def _range(found: Sequence[Interval], start: float, end: float) -> _Axis:
    values = [v for one in found for v in (one.low, one.high, one.value) if math.isfinite(v)]
    margin = 0.06 * (max(values) - min(values))
    return _Axis(min(values) - margin, max(values) + margin, start, end)


def _frame(x: _Axis, y: _Axis, x_label: str, y_label: str) -> list[str]:
    bottom = HEIGHT - BOTTOM
    parts = [
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(t)}" y2="{y(t)}"/>'
        f'<text class="tick" x="{LEFT - 7}" y="{y(t) + 4}" text-anchor="end">{number(t)}</text>'
        for t in y.ticks()
    ]
    parts += [
        f'<line class="grid" x1="{x(t)}" x2="{x(t)}" y1="{bottom}" y2="{bottom + 4}"/>'
        f'<text class="tick" x="{x(t)}" y="{bottom + 17}" text-anchor="middle">{number(t)}</text>'
        for t in x.ticks()
    ]
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{bottom}" y2="{bottom}"/>')
    parts.append(
        f'<text class="label" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 6}" text-anchor="middle">'
        f"{escape(x_label)}</text>"
        f'<text class="label" transform="translate(11 {(TOP + bottom) / 2}) rotate(-90)" text-anchor="middle">'
        f"{escape(y_label)}</text>"
    )
    return parts


def _svg(parts: Sequence[str], title: str, height: float = HEIGHT) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH:g} {height:g}" role="img" aria-label="{escape(title, quote=True)}" '
        f'xmlns="http://www.w3.org/2000/svg">{"".join(parts)}</svg>'
    )


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "\u2026"
