"""Aggregates of a comparison: means with intervals, paired differences from plain, the Pareto front."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from unstill.lab.bootstrap import Interval, weights
from unstill.lab.video_measures import METRICS, TOY_METRICS


FRONT = ("motion", "fidelity")
ALL_METRICS = (*METRICS, *TOY_METRICS)
BOUNDS = dict.fromkeys(ALL_METRICS, (0.0, np.inf)) | dict.fromkeys(
    ("fidelity", "colour", "detail", "coherence", "outline", "toy_colour"), (0.0, 1.0)
)


@dataclass(frozen=True, slots=True)
class Row:
    """
    The results of one setting of one model at one motion level.

    Attributes:
        model: its name.
        setting: its name.
        motion: the requested motion level; `None` where none was requested.
        cells: number of videos.
        means: means by metric, for metrics that all cells have. The intervals are over images (over seeds if there is
            one image).
        gains: means of the paired differences from the first setting of the same model and motion; empty for that
            setting.
        front: whether it is on the Pareto front: no setting of the same model and motion has both more motion and
            more fidelity. Compared on the images and seeds for which all settings made a video.
        certainty: the share of resamples in which it is on the front; `None` for a single image and seed.
        failed: the error messages of the cells without a video.
    """

    model: str
    setting: str
    motion: float | None
    cells: int
    means: dict[str, Interval]
    gains: dict[str, Interval]
    front: bool
    certainty: float | None
    failed: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The setting, with its motion level if it has one."""
        return self.setting if self.motion is None else f"{self.setting}, motion {self.motion:g}"

    def as_dict(self) -> dict[str, Any]:
        """The row as JSON values."""
        return {
            "model": self.model,
            "setting": self.setting,
            "motion": self.motion,
            "cells": self.cells,
            "means": {metric: mean.as_dict() for metric, mean in self.means.items()},
            "gains": {metric: gain.as_dict() for metric, gain in self.gains.items()},
            "front": self.front,
            "certainty": None if self.certainty is None else round(self.certainty, 4),
            "failed": list(self.failed),
        }


_RowKey = tuple[str, str, float | None]  # model, setting, motion level


@dataclass(slots=True)
class _Group:
    """The cells of one row: metric -> {(image, seed): value}."""

    values: dict[str, dict[tuple[str, int], float]]
    failed: set[str] = field(default_factory=set)


def summarise_cells(cells: Sequence[dict[str, Any]]) -> list[Row]:
    """
    Aggregates the cells of a comparison.

    Args:
        cells: as `Comparison.results` returns them.

    Returns:
        One row for each model, setting and motion level, in the order in which they first occur.
    """
    measured = [cell for cell in cells if "error" not in cell]
    metrics = [
        name for name in ALL_METRICS if name in METRICS or (measured and all(name in cell for cell in measured))
    ]
    groups: dict[_RowKey, _Group] = {}
    for cell in cells:
        key = cell["model"], cell["setting"], cell["motion_asked"]
        group = groups.setdefault(key, _Group({name: {} for name in metrics}))
        if "error" in cell:
            group.failed.add(cell["error"])
            continue
        for name in metrics:
            group.values[name][(cell["image"], cell["seed"])] = cell[name]
    rows: dict[_RowKey, Row] = {}
    for model, motion in dict.fromkeys((model, motion) for model, _, motion in groups):
        rows |= _rows({key: group for key, group in groups.items() if (key[0], key[2]) == (model, motion)})
    return [rows[key] for key in groups]


def _rows(groups: dict[_RowKey, _Group]) -> dict[_RowKey, Row]:
    """The rows of all settings of one model and motion level, computed from the same resamples of the images."""
    baseline = next(iter(groups.values()))
    metrics = tuple(baseline.values)
    pairs = sorted({pair for group in groups.values() for pair in group.values["motion"]})
    by_image = len({image for image, _ in pairs}) > 1
    units = sorted({pair[0 if by_image else 1] for pair in pairs}, key=str)
    w = weights(len(units)) if units else np.ones((2, 0))

    def resampled(values: dict[tuple[str, int], float]) -> np.ndarray:
        """(1 + R,) means over units of the means of their cells; units without a cell are left out."""
        by_unit = [[v for pair, v in values.items() if pair[0 if by_image else 1] == unit] for unit in units]
        has_cells = np.array([bool(cells) for cells in by_unit], dtype=float)
        mean = np.array([np.mean(cells) if cells else 0.0 for cells in by_unit])
        with np.errstate(invalid="ignore"):
            return (w @ mean) / (w @ has_cells)

    draws = {key: {name: resampled(group.values[name]) for name in metrics} for key, group in groups.items()}
    usable = [key for key, group in groups.items() if group.values["motion"]]
    shared = {pair for pair in pairs if all(pair in groups[key].values["motion"] for key in usable)}
    scores = [
        [resampled({p: v for p, v in groups[key].values[name].items() if p in shared}) for name in FRONT]
        for key in usable
    ]
    on_front = _front(np.array(scores)) if shared else np.zeros((len(usable), 2))
    several = len(units) > 1 and bool(shared)

    def interval(values: np.ndarray, name: str = "") -> Interval:
        """The interval of the metric `name`, within its bounds, or of an unbounded difference."""
        return Interval.of(values, len(units), BOUNDS.get(name, (-np.inf, np.inf)))

    rows = {}
    for key, group in groups.items():
        gains: dict[str, Interval] = {}
        if group is not baseline and group.values["motion"] and baseline.values["motion"]:
            for name in metrics:
                ours, theirs = group.values[name], baseline.values[name]
                gains[name] = interval(resampled({p: v - theirs[p] for p, v in ours.items() if p in theirs}))
        front = on_front[usable.index(key)] if key in usable else np.zeros(2)
        rows[key] = Row(
            model=key[0],
            setting=key[1],
            motion=key[2],
            cells=len(group.values["motion"]),
            means={name: interval(draws[key][name], name) for name in metrics} if key in usable else {},
            gains=gains,
            front=bool(front[0]),
            certainty=float(np.mean(front[1:])) if several else None,
            failed=tuple(sorted(group.failed)),
        )
    return rows


def _front(scores: np.ndarray) -> np.ndarray:
    """
    Which settings are on the Pareto front.

    A setting dominates another if both its scores are at least as large and one is larger.

    Args:
        scores: (settings, 2, draws); larger is better.

    Returns:
        (settings, draws) bool.
    """
    if not scores.size:
        return np.zeros((0, 2))
    other, self_ = scores[:, None], scores[None]  # (other, self, 2, draws)
    dominates = np.logical_and((other >= self_).all(2), (other > self_).any(2))
    return np.logical_not(dominates.any(axis=0))


def as_csv(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> str:
    """CSV text of `rows`, restricted to `columns`."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def flat(row: Row) -> dict[str, Any]:
    """A row of `summary.csv`, where every interval takes three columns."""
    content = row.as_dict()
    columns: dict[str, Any] = {"model": row.model, "setting": row.setting, "motion_asked": row.motion}
    columns |= {name: content[name] for name in ("cells", "front", "certainty")}
    for prefix, intervals in (("", content["means"]), ("gain_", content["gains"])):
        for metric, ends in intervals.items():
            columns |= {f"{prefix}{metric}{suffix}": ends[end] for end, suffix in _SUFFIXES.items()}
    return columns


_SUFFIXES = {"value": "", "low": "_low", "high": "_high"}
COLUMNS = (
    "model",
    "setting",
    "motion_asked",
    "cells",
    "front",
    "certainty",
    *(f"{kind}{name}{suffix}" for kind in ("", "gain_") for name in ALL_METRICS for suffix in _SUFFIXES.values()),
)
