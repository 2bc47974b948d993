"""The page of a validation: the loss so far, the figures of all validations so far, and the videos of this one."""

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
    losses = _losses(run / "loss.csv")
    if losses:
        size = -(-len(losses) // POINTS)
        parts = [losses[i : i + size] for i in range(0, len(losses), size)]
        means = [(part[-1][0], fmean(loss for _, loss in part)) for part in parts]
        about = f"Means over {size} steps each." if size > 1 else "Every step."
        drawn = curves(
            [Series("loss", [x for x, _ in means], [Interval(y, y, y) for _, y in means], 0, dots=False)],
            x_label="step",
            y_label="loss",
        )
        page.plots([("Loss", about, drawn)])
    rows = [*(row for row in _earlier(run / "validation" / "figures.jsonl") if row["step"] < step)]
    rows.append({"step": step, **figures})
    names = sorted({name for row in rows for name in row} - {"step"})
    if names:
        page.heading("Figures", "Of every validation so far; videos with the same noise each time.")
        cells = [[str(row["step"]), *(number(row[name]) if name in row else "" for name in names)] for row in rows]
        page.table(["step", *(name.replace("_", " ") for name in names)], cells, [row["step"] == step for row in rows])
    if videos:
        page.heading("Videos", "Sampled with the averaged weights, where there is an average.")
        shown: list[tuple[str, Film | None]] = [(f"video {i}", film(*video)) for i, video in enumerate(videos)]
        for i in range(0, len(shown), IN_A_ROW):
            page.films(1 + IN_A_ROW, [("", None), *shown[i : i + IN_A_ROW]])
    return page


def _losses(path: Path) -> list[tuple[int, float]]:
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return [(int(row["step"]), float(row["loss"])) for row in csv.DictReader(file)]


def _earlier(path: Path) -> list[dict[str, float]]:
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]
