"""The report of a comparison: a verdict, tables and plots, and the videos."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unstill.data.video import read_video
from unstill.errors import UnstillError
from unstill.lab.aggregate import COLUMNS, Row, as_csv, flat
from unstill.lab.comparison_cells import Comparison
from unstill.lab.comparison_plots import colour_of, plots_of
from unstill.lab.html_report import Film, Page, film
from unstill.lab.interval_text import between, number
from unstill.lab.plots import Series, curves


if TYPE_CHECKING:
    from rich.table import Table


LARGEST_VIDEOS = 30_000_000
"""Maximum bytes of video in a report, before base64; the other videos are only in the folder."""
SHOWN = (  # metric, heading
    ("motion", "motion, % of side"),
    ("fidelity", "fidelity (proxy)"),
    ("coherence", "coherence (proxy)"),
    ("first_frame_error", "first frame off by"),
    ("motion_onset", "stands still for, s"),
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
    """
    The result of a comparison as sentences.

    Args:
        rows: of all models, motion levels and settings, see `summarise_cells`.

    Returns:
        One sentence per model and motion level: which setting certainly moves most and its cost in fidelity, or, if
        none certainly moves more than plain, which one keeps the image best.
    """
    sentences = []
    several = len({(row.model, row.motion) for row in rows}) > 1
    for model, motion in dict.fromkeys((row.model, row.motion) for row in rows):
        group = [row for row in rows if (row.model, row.motion) == (model, motion) and row.means]
        if not group:
            continue
        where = f"{model}{'' if motion is None else f' at motion {motion:g}'}: " if several else ""
        plain = next(row for row in rows if (row.model, row.motion) == (model, motion))
        if not plain.means:
            sentences.append(f"{where}No video of {plain.setting} could be made, so there is nothing to compare with.")
            continue
        if not plain.means["motion"].known:
            sentences.append(f"{where}One image and one seed show no difference for certain; use more of them.")
            continue
        more = [row for row in group if row.gains and row.gains["motion"].low > 0]
        if not more:
            closer = [row for row in group if row.gains and row.gains["fidelity"].low > 0 <= row.gains["motion"].high]
            closest = max(closer, key=lambda row: row.means["fidelity"].value, default=None)
            also = (
                "" if closest is None else f" With no certain loss of motion, {closest.setting} is the most faithful."
            )
            sentences.append(f"{where}No setting certainly moves more than {plain.setting}.{also}")
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
        sentences.append(f"{where}{best.setting} moves most, {gain:+.0%} against {plain.setting}, {cost}.{also}")
    return sentences or ["No video could be made; the reasons are listed below."]


def comparison_table(rows: Sequence[Row]) -> Table:
    """The rows as a table for a terminal."""
    from rich.table import Table

    terminal = Table(box=None, pad_edge=False, header_style="bold")
    several = len({row.model for row in rows}) > 1
    for column in (*(["model"] if several else []), "setting", *(heading for _, heading in SHOWN), "front"):
        name = column in ("model", "setting")  # not cut off, because settings often differ only in their last part
        terminal.add_column(column, justify="left" if name else "right", overflow="fold" if name else "ellipsis")
    for row in rows:
        figures = [number(row.means[name].value) if row.means else "" for name, _ in SHOWN]
        mark = "\u2713" if row.front else "" if row.means else "failed"
        terminal.add_row(*([row.model] if several else []), _names(rows)(row), *figures, mark)
    return terminal


def comparison_page(comparison: Comparison, rows: Sequence[Row], facts: dict[str, Any]) -> Page:
    """The web page: verdict, plots, tables and videos; `facts` are listed at its end."""
    models = list(dict.fromkeys(row.model for row in rows))
    results = [cell for cell in comparison.results() if "error" not in cell]
    seeds = len({cell["seed"] for cell in results})
    count = ", ".join(
        f"{n} {word}{'' if n == 1 else 's'}"
        for n, word in ((len(results), "video"), (len(comparison.images), "image"), (seeds, "seed"))
    )
    report = Page(f"{', '.join(models)}: {len(rows)} settings compared", count)
    report.verdict(*comparison_verdict(rows))
    for model in models:
        for motion in dict.fromkeys(row.motion for row in rows if row.model == model):
            group = [row for row in rows if row.model == model and row.motion == motion]
            title = f"{model}{'' if motion is None else f', requested motion {motion:g}'}"
            _numbers(report, title, [row for row in group if row.means])
            for row in group:
                for reason in row.failed:
                    report.note(f"{row.setting}: {reason}")
    if len({row.motion for row in rows}) > 1:
        _sweep(report, rows)
    _films(report, comparison, rows, results)
    report.heading("How to read this")
    report.prose(_READING)
    report.facts("Settings and versions", facts)
    return report


_READING = (
    "*Intervals* are 95 % bootstrap intervals over images (over seeds if there is one image), widened for small "
    "numbers of them like those of Student's t. One image and one seed give none. Differences are paired: same image "
    "and noise.",
    "*Certain* means that the interval of one difference excludes zero. Among many settings some stand out by chance: "
    "repeat the best of them on other images.",
    "*Motion* is mean optical flow (DIS) in per cent of the picture's shorter side per frame. Flicker and noise count "
    "as motion, so look at the videos too.",
    "*Fidelity* is the mean of two proxies without a network: how well frames keep the colours and the detail of the "
    "image. It shows trends between settings of one model; it is no result to publish.",
    "*Stands still* is the time from the first frame until motion lasts above a quarter of the video's own mean; of a "
    "video that never moves visibly, its whole length.",
    "*The toys* are known exactly in pictures of the synthetic world. Travel is the path length of their centres, in "
    "frames where they are found; the requested travel is that of the picture's true clip, scaled to the motion "
    "level. Outline is the overlap (IoU) with their outline in the picture, shifted and rotated to fit: about 0.95 "
    "for clips of the world, less for toys that break up. Background is the change that no camera motion explains.",
    "*The front* (Pareto front) holds the settings for which no other has both more motion and more fidelity; its "
    "certainty is the share of resamples of the images in which a setting is on it. Only images and seeds for which "
    "all settings made a video are compared.",
)


def _names(rows: Sequence[Row]) -> Callable[[Row], str]:
    """A function that names rows: with the motion level if there are several."""
    several = len({row.motion for row in rows}) > 1
    return lambda row: row.name if several else row.setting


def _numbers(report: Page, title: str, rows: Sequence[Row]) -> None:
    """Adds the plots and tables of one model at one motion level."""
    if not rows:
        return
    report.heading(title, "Hover over a mark to read its values.")
    report.plots([(plot.title, plot.about, plot.svg) for plot in plots_of(rows)])
    report.table(
        ["setting", *(heading for _, heading in SHOWN), "on the front"],
        [[row.setting, *(between(row.means[name]) for name, _ in SHOWN), _share(row.certainty)] for row in rows],
        [row.front for row in rows],
    )
    measured = toy_columns(rows)
    if measured:
        report.heading("The toys", "Unlike motion, these do not rise with flicker or break-up.")
        report.table(
            ["setting", *(heading for _, heading in measured)],
            [[row.setting, *(between(row.means[name]) for name, _ in measured)] for row in rows],
            [row.front for row in rows],
        )


def toy_columns(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """(metric, heading) of the toy measures that all rows have; empty for pictures not of the synthetic world."""
    return [(name, heading) for name, heading in SHOWN_OF_TOYS if rows and all(name in row.means for row in rows)]


def _share(certainty: float | None) -> str:
    return "" if certainty is None else f"{certainty:.0%}"


def _sweep(report: Page, rows: Sequence[Row]) -> None:
    """Adds plots of measured against requested motion, one curve per setting."""
    report.heading("Requested and measured motion", "Motion of the videos against the requested motion level.")
    plots = []
    for model in dict.fromkeys(row.model for row in rows):
        by_setting: dict[str, list[Row]] = {}
        for row in rows:
            if row.model == model and row.motion is not None and row.means:
                by_setting.setdefault(row.setting, []).append(row)
        series = [
            Series(
                name,
                [r.motion or 0.0 for r in group],
                [r.means["motion"] for r in group],
                colour_of(rows, group[0]),
            )
            for name, group in by_setting.items()
        ]
        svg = curves(series, x_label="requested motion", y_label="motion, % of side per frame")
        plots.append((model, "One curve per setting.", svg))
    report.plots(plots)


def _films(report: Page, comparison: Comparison, rows: Sequence[Row], results: Sequence[dict[str, Any]]) -> None:
    """Adds the videos, up to `LARGEST_VIDEOS` bytes: one row per setting, one column per image and seed."""
    columns = list(dict.fromkeys((cell["image"], cell["seed"]) for cell in results))
    keys = {
        (cell["model"], cell["setting"], cell["motion_asked"], cell["image"], cell["seed"]): cell["cell"]
        for cell in results
    }
    used, left_out = 0, 0
    cells: list[tuple[str, Film | None]] = []
    several, named = len({row.model for row in rows}) > 1, _names(rows)
    for row in rows:
        cells.append((f"{row.model}: {named(row)}" if several else named(row), None))
        for image, seed in columns:
            key = keys.get((row.model, row.setting, row.motion, image, seed))
            video = None if key is None else small_film(comparison, key)
            if video is None or used + len(video.mp4) > LARGEST_VIDEOS:
                left_out += key is not None
                cells.append(("", None))
                continue
            used += len(video.mp4) + len(video.poster)
            cells.append((f"{image}, seed {seed}", video))
    report.heading("Videos", "One row per setting; all videos of a column have the same image and noise.")
    report.films(1 + len(columns), cells)
    if left_out:
        report.note(f"{left_out} videos are not shown here; all are in {comparison.folder / 'videos'}.")


def small_film(comparison: Comparison, key: str) -> Film | None:
    """The video of a cell for a page; `None` if it is not there any more."""
    try:
        clip = read_video(comparison.video(key))
    except UnstillError:  # a video may be deleted after it was measured
        return None
    return film(clip.pixels, clip.fps)


WRITTEN = ("report.html", "cells.csv", "summary.csv")


def write_comparison(comparison: Comparison, rows: Sequence[Row], facts: dict[str, Any], folder: Path) -> None:
    """Writes `report.html`, `cells.csv` and `summary.csv` into `folder`."""
    comparison_page(comparison, rows, facts).save(folder / "report.html")
    results = comparison.results()
    columns = list(dict.fromkeys(name for cell in results for name in cell))
    (folder / "cells.csv").write_text(as_csv(results, columns), encoding="utf-8")
    (folder / "summary.csv").write_text(as_csv([flat(row) for row in rows], COLUMNS), encoding="utf-8")
