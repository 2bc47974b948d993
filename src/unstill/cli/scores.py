"""Scores as a table on a terminal."""

from __future__ import annotations

from rich.table import Table

from unstill.metrics.quick_scores import ROWS


def scores_table(scores: dict[str, dict[str, float]]) -> Table:
    """
    A table with a row per score and a column per video.

    Args:
        scores: by name of the video, the values by name of the score; missing ones leave their cell empty.
    """
    columns = Table(box=None, pad_edge=False, header_style="bold")
    columns.add_column("")
    for name in scores:
        columns.add_column(name, justify="right")
    for key, label, template in ROWS:
        values = [template.format(of_video[key]) if key in of_video else "" for of_video in scores.values()]
        if any(values):
            columns.add_row(label, *values)
    return columns
