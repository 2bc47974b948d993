"""Scores as a table on a terminal."""

from __future__ import annotations

from rich.table import Table

from unstill.metrics.quick_scores import ROWS
from unstill.metrics.quick_scores import measure as measure


def table(scores: dict[str, dict[str, float]]) -> Table:
    """Scores by name of the video, in words."""
    shown = Table(box=None, pad_edge=False, header_style="bold")
    shown.add_column("")
    for name in scores:
        shown.add_column(name, justify="right")
    for key, words, form in ROWS:
        values = [form.format(one[key]) if key in one else "" for one in scores.values()]
        if any(values):
            shown.add_row(words, *values)
    return shown
