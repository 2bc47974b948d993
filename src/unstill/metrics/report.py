"""What an evaluation says: scores with their meaning, for people as a table, for programs as plain data."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from unstill.metrics.vbench import DIMENSIONS, normalised


if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True, slots=True)
class Meaning:
    """`label`: in a person's words. `better`: which way is better, if either is. `proxy`: stands in for a network."""

    label: str
    unit: str = ""
    better: str = ""
    proxy: bool = False


MEANINGS = {
    "motion_score": Meaning("moves, summed over the frames", "px"),
    "motion_per_pair": Meaning("moves, between neighbouring frames", "px"),
    "camera_motion": Meaning("camera part of it", "px"),
    "object_motion": Meaning("object part of it", "px"),
    "zoom": Meaning("grows or shrinks per frame (zoom)"),
    "motion_affinity": Meaning("differs from the first frame (PIA)", "levels"),
    "motion_score_error": Meaning("motion is off that of its reference video", "px", "lower"),
    "first_frame_error": Meaning("first frame differs from the image", "of 1", "lower"),
    "proxy_colour_fidelity": Meaning("keeps the image's colours", "", "higher", proxy=True),
    "proxy_structure_fidelity": Meaning("keeps the image's layout", "", "higher", proxy=True),
    "proxy_edge_fidelity": Meaning("keeps the image's detail", "", "higher", proxy=True),
    "proxy_coherence": Meaning("neighbouring frames are alike", "", "higher", proxy=True),
    "temporal_flickering": Meaning("steadiness, unfiltered (VBench)", "", "higher"),
    "clip_image_fidelity": Meaning("resembles the image (CLIP)", "", "higher"),
    "clip_temporal_coherence": Meaning("neighbouring frames agree (CLIP)", "", "higher"),
    "clip_text_alignment": Meaning("matches the text (CLIP)", "", "higher"),
    "background_consistency": Meaning("background consistency (VBench)", "", "higher"),
    "subject_consistency": Meaning("subject consistency (VBench)", "", "higher"),
    "i2v_subject": Meaning("subject stays that of the image (VBench-I2V)", "", "higher"),
    "dynamic_degree": Meaning("share of videos that move (VBench)", "", "higher"),
    "aesthetic_quality": Meaning("aesthetic quality (VBench)", "", "higher"),
    "fvd": Meaning("Frechet video distance", "", "lower"),
    "proxy_frechet_distance": Meaning("Frechet distance of random features", "", "lower", proxy=True),
    "inception_score": Meaning("inception score (C3D)", "", "higher"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """A mean, its standard error, and the number of values it is the mean of; `reference`: the same of real videos.

    The distances are one number from two sets: their `count` is the number of generated videos, they have no error.
    The error of the inception score is the deviation over its splits.
    """

    value: float
    error: float | None
    count: int
    reference: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    generated: str
    reference: str | None
    videos: int
    settings: dict[str, Any]
    scores: dict[str, Score]
    by_video: dict[str, dict[str, float]]
    """Relative name: its values; where a value exists per frame, the mean."""
    skipped: dict[str, str] = field(default_factory=dict)
    """File: why it was left out."""
    notes: tuple[str, ...] = ()
    """What a reader of the numbers should know."""

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON; scores carry unit, direction and whether they are proxies."""
        content = asdict(self)
        content["notes"] = list(self.notes)
        for name, score in content["scores"].items():
            meaning = MEANINGS[name]
            score.update(unit=meaning.unit, better=meaning.better or None, proxy=meaning.proxy)
            if name in DIMENSIONS:
                score["vbench_normalised"] = normalised({name: score["value"]})[name]
        return content

    def table(self) -> Table:
        """For a terminal."""
        from rich.table import Table

        size = self.settings["size"]
        caption = f"flow {self.settings['flow']}" + (f" at {size[1]} x {size[0]}" if size else "")
        shown = Table(box=None, pad_edge=False, header_style="bold", caption=caption, caption_justify="left")
        counted = f"{self.videos} video{'s' * (self.videos != 1)}"
        columns = ["", counted, "±"] + (["reference"] if self.reference else []) + ["unit", "better"]
        for column in columns:
            shown.add_column(column, justify="left" if column in ("", "unit", "better") else "right")
        for name, score in self.scores.items():
            meaning = MEANINGS[name]
            row = [meaning.label + (" (proxy)" if meaning.proxy else ""), _figure(score.value), _figure(score.error)]
            if self.reference:
                row.append(_figure(score.reference))
            shown.add_row(*row, meaning.unit, meaning.better)
        return shown


def _figure(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.1f}" if abs(value) >= 100 else f"{value:.4f}" if abs(value) < 1 else f"{value:.2f}"
