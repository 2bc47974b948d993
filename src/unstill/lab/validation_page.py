"""The page of a validation: its videos, the loss so far, and the figures of all validations so far."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from torch import Tensor

from unstill.lab.bootstrap import Interval
from unstill.lab.html_report import Film, Page, film
from unstill.lab.interval_text import number
from unstill.lab.plots import Series, curves


POINTS = 200
"""The loss is drawn as means over at most so many equal stretches of steps; that of single steps is hard to read."""
IN_A_ROW = 4
ABOUT = {
    "motion": "Mean optical flow of the videos, in picture sides per frame.",
    "explained_motion": "R2 of one-step predictions, against a static clip.",
    "leak": "Share of the motion that is lost because of the image.",
}
"""What the figures of a validation are, below their plots."""


def validation_page(
    run: Path, model: str, step: int, figures: dict[str, float], videos: Sequence[tuple[Tensor, float]]
) -> Page:
    """
    Makes the page.

    Args:
        run: folder of the run, with `loss.csv` and the figures of earlier validations.
        model: its name, for the title.
        step: steps done.
        figures: of this validation.
        videos: of this validation, each a clip `(F, 3, H, W)` and its frames per second.
    """
    page = Page(f"{model} after {step} steps", str(run.absolute().name))
    if videos:
        page.heading("Videos", "Sampled with the averaged weights, where there is an average.")
        films: list[tuple[str, Film | None]] = [(f"video {i}", film(*video)) for i, video in enumerate(videos)]
        for i in range(0, len(films), IN_A_ROW):
            page.films(1 + IN_A_ROW, [(f"after {step} steps" if i == 0 else "", None), *films[i : i + IN_A_ROW]])
    drawn: list[tuple[str, str, str]] = []
    losses = _losses(run / "loss.csv")
    if losses:
        size = -(-len(losses) // POINTS)
        parts = [losses[i : i + size] for i in range(0, len(losses), size)]
        about = f"Means over {size} steps each." if size > 1 else "Every step."
        means = [(part[-1][0], fmean(loss for _, loss in part)) for part in parts]
        drawn.append(("Loss", about, _curve("loss", means, dots=False)))
    rows = [*(row for row in _earlier(run / "validation" / "figures.jsonl") if row["step"] < step)]
    rows.append({"step": step, **figures})
    names = sorted({name for row in rows for name in row} - {"step"})
    for name in names:
        points = [(int(row["step"]), row[name]) for row in rows if name in row]
        if len(points) > 1:
            shown = name.replace("_", " ")
            drawn.append((shown.capitalize(), ABOUT.get(name, ""), _curve(shown, points)))
    if drawn:
        page.heading("Curves", "Loss and figures so far; explained motion and leak at a middle noise level.")
        page.plots(drawn)
    if names:
        page.heading("Figures", "Of every validation so far; videos with the same noise each time.")
        cells = [[str(row["step"]), *(number(row[name]) if name in row else "" for name in names)] for row in rows]
        page.table(["step", *(name.replace("_", " ") for name in names)], cells, [row["step"] == step for row in rows])
    return page


def _curve(label: str, points: Sequence[tuple[int, float]], dots: bool = True) -> str:
    """A plot over the steps, as SVG."""
    values = [Interval(y, y, y) for _, y in points]
    return curves([Series(label, [x for x, _ in points], values, 0, dots=dots)], x_label="step", y_label=label)


def _losses(path: Path) -> list[tuple[int, float]]:
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return [(int(row["step"]), float(row["loss"])) for row in csv.DictReader(file)]


def _earlier(path: Path) -> list[dict[str, float]]:
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]
