"""Aggregates of a comparison: means with intervals, paired differences from plain, the Pareto front."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from unstill.lab.bootstrap import Interval, weights
from unstill.lab.comparison_cells import METRICS, TOY_METRICS


FRONT = ("motion", "fidelity")
ALL_METRICS = (*METRICS, *TOY_METRICS)
BOUNDS = dict.fromkeys(ALL_METRICS, (0.0, np.inf)) | dict.fromkeys(
    ("fidelity", "colour", "detail", "coherence", "outline", "toy_colour"), (0.0, 1.0)
)


@dataclass(frozen=True, slots=True)
class Row:
    """
    One setting of one model at one motion level.

    Attributes:
        means: by metric (those that all cells have), with intervals over images (over seeds, where there is one
            image).
        gains: the same of the paired difference from the first setting of the same model and motion; empty for it.
        front: whether no setting of the same model and motion has both more motion and more fidelity, on the images
            and seeds that all settings could make.
        certainty: in which share of resamples it is on the front; `None` for a single image and seed.
        failed: cells that could not be made, and why.
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
        return self.setting if self.motion is None else f"{self.setting}, motion {self.motion:g}"

    def as_dict(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "setting": self.setting,
            "motion": self.motion,
            "cells": self.cells,
            "means": {name: one.as_dict() for name, one in self.means.items()},
            "gains": {name: one.as_dict() for name, one in self.gains.items()},
            "front": self.front,
            "certainty": None if self.certainty is None else round(self.certainty, 4),
            "failed": list(self.failed),
        }


@dataclass(slots=True)
class _Group:
    """The cells of one row: metric -> {(image, seed): value}."""

    values: dict[str, dict[tuple[str, int], float]]
    failed: set[str] = field(default_factory=set)


def summarise(results: Sequence[dict[str, Any]]) -> list[Row]:
    """Rows in the order in which models, settings and motion levels first occur."""
    made = [one for one in results if "error" not in one]
    metrics = [name for name in ALL_METRICS if name in METRICS or (made and all(name in one for one in made))]
    groups: dict[tuple[str, str, float | None], _Group] = {}
    for one in results:
        place = one["model"], one["setting"], one["motion_asked"]
        group = groups.setdefault(place, _Group({name: {} for name in metrics}))
        if "error" in one:
            group.failed.add(one["error"])
            continue
        for name in metrics:
            group.values[name][(one["image"], one["seed"])] = one[name]
    rows: dict[tuple[str, str, float | None], Row] = {}
    for model, motion in dict.fromkeys((model, motion) for model, _, motion in groups):
        mine = {key: group for key, group in groups.items() if (key[0], key[2]) == (model, motion)}
        rows |= _of_one_model(mine)
    return [rows[key] for key in groups]


def _of_one_model(groups: dict[tuple[str, str, float | None], _Group]) -> dict[tuple[str, str, float | None], Row]:
    """The rows of the settings of one model and motion level. All use the same resamples of the same images."""
    baseline = next(iter(groups.values()))
    metrics = tuple(baseline.values)
    pairs = sorted({pair for group in groups.values() for pair in group.values["motion"]})
    by_image = len({image for image, _ in pairs}) > 1
    units = sorted({pair[0 if by_image else 1] for pair in pairs}, key=str)
    w = weights(len(units)) if units else np.ones((2, 0))

    def resampled(values: dict[tuple[str, int], float]) -> np.ndarray:
        """(1 + R,) means over units, each the mean of its cells; units without a cell do not count."""
        per = [[v for pair, v in values.items() if pair[0 if by_image else 1] == unit] for unit in units]
        there = np.array([bool(cells) for cells in per], dtype=float)
        mean = np.array([np.mean(cells) if cells else 0.0 for cells in per])
        with np.errstate(invalid="ignore"):
            return (w @ mean) / (w @ there)

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
        """Of a metric, which has bounds, or of a difference."""
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
    The Pareto front: `scores` (settings, 2, draws), both the larger the better, to (settings, draws).

    One setting beats another with at least as much of both and more of one.
    """
    if not scores.size:
        return np.zeros((0, 2))
    other, self_ = scores[:, None], scores[None]  # (other, self, 2, draws)
    beats = np.logical_and((other >= self_).all(2), (other > self_).any(2))
    return np.logical_not(beats.any(axis=0))


def as_csv(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def flat(row: Row) -> dict[str, Any]:
    """A row of a table: every interval in three columns."""
    plain = row.as_dict()
    found: dict[str, Any] = {"model": row.model, "setting": row.setting, "motion_asked": row.motion}
    found |= {name: plain[name] for name in ("cells", "front", "certainty")}
    for kind, by in (("", plain["means"]), ("gain_", plain["gains"])):
        for name, numbers in by.items():
            found |= {f"{kind}{name}{suffix}": numbers[k] for k, suffix in _SUFFIXES.items()}
    return found


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
