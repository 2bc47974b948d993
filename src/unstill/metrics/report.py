"""The result of an evaluation, as a table for a terminal and as plain data for JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from unstill.metrics.registry import reported_values


if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True, kw_only=True, slots=True)
class MetricScore:
    """
    One score of a set of videos.

    Attributes:
        value: the mean; for distances, one number from two sets.
        error: standard error of the mean; of the inception score the deviation over its splits; None where there is
            none.
        count: number of values that the mean is over; for distances, number of generated videos.
        reference: the same score of the real videos; None where there are none.
    """

    value: float
    error: float | None
    count: int
    reference: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationReport:
    """
    The scores of a folder of videos.

    Attributes:
        generated, reference: the folders.
        videos: number of generated videos that were measured.
        settings: fields of `EvaluationSettings`, and `features`, the extractor behind the Frechet distance.
        scores: by name of the metric.
        by_video: relative name of a video: its values by name; where a value exists per frame, the mean.
        skipped: by file, why it was left out.
        notes: remarks for the reader of the scores.
    """

    generated: str
    reference: str | None
    videos: int
    settings: dict[str, Any]
    scores: dict[str, MetricScore]
    by_video: dict[str, dict[str, float]]
    skipped: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON, with label, unit and direction of every score and whether it is a proxy."""
        content = asdict(self)
        content["notes"] = list(self.notes)
        values = reported_values()
        for name, score in content["scores"].items():
            value, _ = values[name]
            score.update(label=value.label, unit=value.unit, better=value.better, proxy=value.proxy)
            if value.vbench is not None:
                low, high = value.vbench
                score["vbench_normalised"] = (score["value"] - low) / (
                    high - low
                )  # not clipped, as on its leaderboard
        return content

    def table(self) -> Table:
        """A table of the scores for a terminal."""
        from rich.table import Table

        size = self.settings["size"]
        caption = f"flow {self.settings['flow']}" + (f" at {size[1]} x {size[0]}" if size else "")
        shown = Table(box=None, pad_edge=False, header_style="bold", caption=caption, caption_justify="left")
        counted = f"{self.videos} video{'s' * (self.videos != 1)}"
        columns = ["", counted, "±"] + (["reference"] if self.reference else []) + ["unit", "better"]
        for column in columns:
            shown.add_column(column, justify="left" if column in ("", "unit", "better") else "right")
        values = reported_values()
        for name, score in self.scores.items():
            value, _ = values[name]
            row = [
                f"{value.label} (proxy)" if value.proxy else f"{value.label}",
                _figure(score.value),
                _figure(score.error),
            ]
            if self.reference:
                row.append(_figure(score.reference))
            shown.add_row(*row, value.unit, value.better or "")
        return shown


def _figure(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.1f}" if abs(value) >= 100 else f"{value:.4f}" if abs(value) < 1 else f"{value:.2f}"
