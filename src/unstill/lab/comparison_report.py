"""The report of a comparison: a verdict, tables and plots, and the videos."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unstill.data.video import read_video
from unstill.errors import UnstillError
from unstill.lab.aggregate import COLUMNS, Row, as_csv, flat
from unstill.lab.comparison_cells import Comparison
from unstill.lab.comparison_plots import colour_of, drawn
from unstill.lab.html_report import Film, Page, film
from unstill.lab.interval_text import between, number
from unstill.lab.plots import Series, curves


if TYPE_CHECKING:
    from rich.table import Table


MOST = 30_000_000
"""Bytes of video in a report, which base64 makes a third more; what does not fit stays in the folder."""
SHOWN = (  # metric, words
    ("motion", "motion, % of side"),
    ("fidelity", "fidelity (proxy)"),
    ("coherence", "coherence (proxy)"),
    ("first_frame_error", "first frame off by"),
    ("seconds", "seconds"),
)
SHOWN_OF_TOYS = (
    ("travel", "travel, % of side"),
    ("travel_share", "travel / asked"),
    ("outline", "outline kept"),
    ("toy_colour", "colours kept"),
    ("background_error", "background off by"),
)


def comparison_verdict(rows: Sequence[Row]) -> list[str]:
    """One sentence per model and motion level: which settings certainly move more, and what fidelity that costs; where
    none does, which keeps the image best."""
    said = []
    several = len({(row.model, row.motion) for row in rows}) > 1
    for model, motion in dict.fromkeys((row.model, row.motion) for row in rows):
        mine = [row for row in rows if (row.model, row.motion) == (model, motion) and row.means]
        if not mine:
            continue
        where = f"{model}{'' if motion is None else f' at motion {motion:g}'}: " if several else ""
        plain = next(row for row in rows if (row.model, row.motion) == (model, motion))
        if not plain.means:
            said.append(f"{where}Not one video of {plain.setting} could be made, so there is nothing to compare with.")
            continue
        if not plain.means["motion"].known:
            said.append(f"{where}One image and one seed show no difference for certain; use more of them.")
            continue
        more = [row for row in mine if row.gains and row.gains["motion"].low > 0]
        if not more:
            true = [row for row in mine if row.gains and row.gains["fidelity"].low > 0 <= row.gains["motion"].high]
            most = max(true, key=lambda row: row.means["fidelity"].value, default=None)
            also = "" if most is None else f" With no certain loss of motion, {most.setting} is the most faithful."
            said.append(f"{where}No setting certainly moves more than {plain.setting}.{also}")
            continue
        best = max(more, key=lambda row: row.means["motion"].value)
        gain = best.gains["motion"].value / max(plain.means["motion"].value, 1e-9)
        price = best.gains["fidelity"]
        if price.high < 0:
            cost = f"at the price of {-price.value:.3f} fidelity ({-price.high:.3f} to {-price.low:.3f})"
        else:
            cost = "with no certain loss of fidelity"
        free = [row.setting for row in more if row.gains["fidelity"].high >= 0 and row is not best]
        also = f" Without certain loss also move more: {', '.join(free)}." if free else ""
        said.append(f"{where}{best.setting} moves most, {gain:+.0%} against {plain.setting}, {cost}.{also}")
    return said or ["Not one video could be made; see below why."]


def table(rows: Sequence[Row]) -> Table:
    """For a terminal."""
    from rich.table import Table

    shown = Table(box=None, pad_edge=False, header_style="bold")
    several = len({row.model for row in rows}) > 1
    for column in (*(["model"] if several else []), "setting", *(words for _, words in SHOWN), "front"):
        name = column in ("model", "setting")  # settings differ in their ends
        shown.add_column(column, justify="left" if name else "right", overflow="fold" if name else "ellipsis")
    for row in rows:
        figures = [number(row.means[name].value) if row.means else "" for name, _ in SHOWN]
        mark = "\u2713" if row.front else "" if row.means else "failed"
        shown.add_row(*([row.model] if several else []), _names(rows)(row), *figures, mark)
    return shown


def page(comparison: Comparison, rows: Sequence[Row], facts: dict[str, Any]) -> Page:
    models = list(dict.fromkeys(row.model for row in rows))
    results = [one for one in comparison.results() if "error" not in one]
    seeds = len({one["seed"] for one in results})
    count = ", ".join(
        f"{n} {word}{'' if n == 1 else 's'}"
        for n, word in ((len(results), "video"), (len(comparison.images), "image"), (seeds, "seed"))
    )
    made = Page(f"{', '.join(models)}: {len(rows)} settings compared", count)
    made.verdict(*comparison_verdict(rows))
    for model in models:
        for motion in dict.fromkeys(row.motion for row in rows if row.model == model):
            mine = [row for row in rows if row.model == model and row.motion == motion]
            title = f"{model}{'' if motion is None else f', asked for motion {motion:g}'}"
            _numbers(made, title, [row for row in mine if row.means])
            for row in mine:
                for reason in row.failed:
                    made.note(f"{row.setting}: {reason}")
    if len({row.motion for row in rows}) > 1:
        _sweep(made, rows)
    _films(made, comparison, rows, results)
    made.heading("How to read this")
    made.prose(_READING)
    made.facts("Settings and versions", facts)
    return made


_READING = (
    "*Intervals* are 95 % bootstrap intervals over images (over seeds, where there is one image), widened for few of "
    "them as Student's t is; of one image and one seed there are none. Differences are paired: same image and noise.",
    "*Certain* means that the interval of one difference excludes zero. Of many settings some stand out by chance: "
    "try the best of them on other images.",
    "*Motion* is mean optical flow (DIS) in per cent of the picture's shorter side per frame. Flicker and noise count "
    "as motion, so look at the videos too.",
    "*Fidelity* is the mean of two weight-free proxies: how well frames keep the image's colours, and its detail. "
    "Good for a trend between settings of one model, never for a table.",
    "*The toys* are known exactly on pictures of the synthetic world. Travel is the path of their centres, while they "
    "can be found; asked is what the motion level means for the scene that the picture is of. Outline is the overlap "
    "(IoU) with their outline in the picture, shifted and turned to fit: about 0.95 for the world's own clips, lower "
    "the more they break up. Background is what no motion of the camera explains.",
    "*The front* holds the settings that no other beats in both motion and fidelity; its certainty is the share of "
    "resamples of the images in which a setting is on it. Only what all settings could make counts.",
)


def _names(rows: Sequence[Row]) -> Callable[[Row], str]:
    """How rows are called: with their motion level only where there are several."""
    several = len({row.motion for row in rows}) > 1
    return lambda row: row.name if several else row.setting


def _numbers(made: Page, title: str, rows: Sequence[Row]) -> None:
    if not rows:
        return
    made.heading(title, "Point at a mark to read its figures.")
    plots = drawn(rows)
    made.plots([(one.title, one.about, one.svg) for one in plots])
    made.table(
        ["setting", *(words for _, words in SHOWN), "on the front"],
        [[row.setting, *(between(row.means[name]) for name, _ in SHOWN), _share(row.certainty)] for row in rows],
        [row.front for row in rows],
    )
    measured = toy_columns(rows)
    if measured:
        made.heading("The toys themselves", "Flicker and break-up raise motion, but not these.")
        made.table(
            ["setting", *(words for _, words in measured)],
            [[row.setting, *(between(row.means[name]) for name, _ in measured)] for row in rows],
            [row.front for row in rows],
        )


def toy_columns(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """(metric, heading) of the measures of toys that rows have: none for pictures from elsewhere."""
    return [(name, words) for name, words in SHOWN_OF_TOYS if rows and all(name in row.means for row in rows)]


def _share(certainty: float | None) -> str:
    return "" if certainty is None else f"{certainty:.0%}"


def _sweep(made: Page, rows: Sequence[Row]) -> None:
    """Motion made against motion asked for, one curve per setting."""
    made.heading("Asked for and made", "Motion of the videos against the motion level that was asked for.")
    plots = []
    for model in dict.fromkeys(row.model for row in rows):
        mine = [row for row in rows if row.model == model and row.motion is not None and row.means]
        curve: dict[str, list[Row]] = {}
        for row in mine:
            curve.setdefault(row.setting, []).append(row)
        series = [
            Series(
                name, [r.motion or 0.0 for r in those], [r.means["motion"] for r in those], colour_of(rows, those[0])
            )
            for name, those in curve.items()
        ]
        svg = curves(series, x_label="motion asked for", y_label="motion, % of side per frame")
        plots.append((model, "One curve per setting.", svg))
    made.plots(plots)


def _films(made: Page, comparison: Comparison, rows: Sequence[Row], results: Sequence[dict[str, Any]]) -> None:
    """One row per setting, one column per image and seed, as many as fit."""
    places = list(dict.fromkeys((one["image"], one["seed"]) for one in results))
    by_cell = {
        (one["model"], one["setting"], one["motion_asked"], one["image"], one["seed"]): one["cell"] for one in results
    }
    used, left_out = 0, 0
    cells: list[tuple[str, Film | None]] = []
    several, named = len({row.model for row in rows}) > 1, _names(rows)
    for row in rows:
        cells.append((f"{row.model}: {named(row)}" if several else named(row), None))
        for image, seed in places:
            key = by_cell.get((row.model, row.setting, row.motion, image, seed))
            one = None if key is None else _small(comparison, key)
            if one is None or used + len(one.mp4) > MOST:
                left_out += key is not None
                cells.append(("", None))
                continue
            used += len(one.mp4) + len(one.poster)
            cells.append((f"{image}, seed {seed}", one))
    made.heading("Videos", "One row per setting; the columns share image and noise.")
    made.films(1 + len(places), cells)
    if left_out:
        made.note(f"{left_out} videos are not shown here; all are in {comparison.folder / 'videos'}.")


def _small(comparison: Comparison, key: str) -> Film | None:
    try:
        clip = read_video(comparison.video(key))
    except UnstillError:  # a video may be deleted after it was measured
        return None
    return film(clip.pixels, clip.fps)


WRITTEN = ("report.html", "cells.csv", "summary.csv")


def write(comparison: Comparison, rows: Sequence[Row], facts: dict[str, Any], folder: Path) -> None:
    """`report.html`, and `cells.csv` and `summary.csv` beside it, into `folder`."""
    page(comparison, rows, facts).save(folder / "report.html")
    results = comparison.results()
    columns = list(dict.fromkeys(name for one in results for name in one))
    (folder / "cells.csv").write_text(as_csv(results, columns), encoding="utf-8")
    (folder / "summary.csv").write_text(as_csv([flat(row) for row in rows], COLUMNS), encoding="utf-8")
