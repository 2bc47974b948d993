"""The report of a diagnosis: a verdict, a table for the terminal, a web page."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from unstill.lab.bootstrap import Interval
from unstill.lab.diagnosis_image import add_attention, add_gap
from unstill.lab.diagnosis_plots import SOURCES, plots, response_plot
from unstill.lab.html_report import Film, Page
from unstill.lab.interval_text import between, number
from unstill.lab.leakage import Diagnosis, shown_levels


if TYPE_CHECKING:
    from rich.table import Table

    from unstill.lab.diagnosis_run import Findings


FEW = 0.05
"""Leakage below this share of the motion is not reported."""


def diagnosis_verdict(diagnosis: Diagnosis) -> tuple[str, str]:
    """Two sentences: whether the model leaks, and at which level to start sampling."""
    unit, exact = diagnosis.unit, "reference" in diagnosis.curves
    if not diagnosis.leak:
        verdict = "This model is conditioned on no image, so none can leak."
    else:
        worst = max(range(len(diagnosis.leak)), key=lambda i: diagnosis.leak[i].value)
        leak, at = diagnosis.leak[worst], f"{unit} {number(diagnosis.levels[worst].value)}"
        interval = f" ({leak.low:.0%} to {leak.high:.0%})" if leak.known else ""
        share = f"{leak.value:.0%}{interval} of the motion"
        sure = [i for i, interval in enumerate(diagnosis.certain) if interval.low > 0]
        if leak.high < FEW:
            verdict = "This model does not leak: it loses no motion to its image."
        elif exact and not leak.low >= FEW:  # also where a single clip leaves no interval
            verdict = f"No certain leakage: {share} that could be known at {at}; more clips would tell."
        elif exact:
            why = "as far as its image can be the reason"
            verdict = f"This model leaks, {why}: at {at} it loses {share} that could be known."
        elif sure:
            most = max(sure, key=lambda i: diagnosis.certain[i].value)
            verdict = (
                f"This model leaks: without its full image it explains {diagnosis.certain[most].value:.0%} more of "
                f"the motion at {unit} {number(diagnosis.levels[most].value)}."
            )
        else:
            verdict = f"Leakage is possible, not certain: at {at} at most {share} is lost to the image."
    if diagnosis.start is None:
        advice = (
            f"At no level with noise enough to start from does one prediction explain {diagnosis.share:.0%} of the "
            "motion, so no start is recommended."
        )
    elif diagnosis.start == diagnosis.levels[0].value:
        advice = f"From the first level on it explains {diagnosis.share:.0%} of the motion: start where it starts."
    else:
        advice = (
            f"From {unit} {number(diagnosis.start)} down one prediction explains at least {diagnosis.share:.0%} of "
            "the motion: start there."
        )
    return verdict, advice


def command(diagnosis: Diagnosis, statistics: bool) -> str | None:
    """The command that uses the recommended start; with statistics of the model's latents, by Analytic-Init."""
    if diagnosis.start is None or diagnosis.start == diagnosis.levels[0].value:
        return None
    method = "analytic-init" if statistics else "early-start"
    setting = f"{method}:{diagnosis.unit}={diagnosis.start:g}"
    return f"unstill animate photo.jpg --model {shlex.quote(diagnosis.model)} --method {setting} --compare"


def diagnosis_table(diagnosis: Diagnosis) -> Table:
    """The results by noise level as a table for a terminal, without intervals."""
    from rich.table import Table

    terminal = Table(
        box=None, pad_edge=False, header_style="bold", title="Motion explained in one step (1: all of it)"
    )
    for column in columns(diagnosis):
        terminal.add_column(column, justify="right")
    for i, row in enumerate(rows(diagnosis)):
        style = "bold" if diagnosis.levels[i].value == diagnosis.start else None
        terminal.add_row(*(cell.partition(" (")[0] for cell in row), style=style)
    return terminal


def diagnosis_page(findings: Findings, command: str | None, facts: dict[str, Any]) -> Page:
    """
    The web page.

    Args:
        findings: the measurements.
        command: animates a picture with the recommended start.
        facts: settings and versions.
    """
    diagnosis, response = findings.diagnosis, findings.response
    page = Page(
        f"Does {diagnosis.model} leak?",
        f"{diagnosis.clips} clip{'' if diagnosis.clips == 1 else 's'}, noised and predicted in one step.",
    )
    page.verdict(*diagnosis_verdict(diagnosis), command=command or "")
    page.heading("By noise level", "From much noise (where sampling begins) to little. Bands are 95 % intervals.")
    present = [source for source in SOURCES if source in diagnosis.curves]
    page.plots(plots(diagnosis, present))
    page.table(columns(diagnosis), rows(diagnosis), [level.value == diagnosis.start for level in diagnosis.levels])
    if diagnosis.shown:
        _films(page, diagnosis, present)
    if findings.attention is not None:
        add_attention(page, findings.attention, diagnosis)
    if findings.gap is not None:
        add_gap(page, findings.gap, findings.gap_films)
    if response is not None:
        page.heading(
            "Does it move as much as requested?",
            "Optical flow of sampled videos, in units of the embedded model's motion level.",
        )
        page.plots([response_plot(response)])
    page.heading("How to read this")
    page.prose(_READING)
    page.facts("Settings and versions", facts)
    return page


_READING = (
    "*Explained motion* is R\u00b2 against the clip standing still: 1 is the true motion, 0 a still copy of the "
    "image, below 0 worse than that. Noise and wrong motion do not count.",
    "*Even the best possible model* explains less at high noise, because it averages over what may happen. Only "
    "what a model loses beyond that is leakage. On real clips the best is not known: there leakage is an upper bound, "
    "and certain only where the model explains more without its image.",
    "*A model that is not good enough yet* loses motion as well. What it loses counts as leakage as far as the image "
    "changes the prediction; what is lost for other reasons cannot be distinguished from that.",
    "*Flow* is what the leakage paper plots. It also rises with flicker and noise, so trust it only where "
    "explained motion agrees.",
    "*Sensitivity to the image*: how much the prediction changes when the image is removed, as a share of the image.",
    "*Attention to the first frame*: the share of attention that tokens of later frames give to those of the first "
    "latent frame (DyMoS). More than its even share is no leak by itself: the image is where colours and shapes come "
    "from.",
    "*With its own first frame*: the image is one that the model has made, so that nothing but the way in which it is "
    "given differs between the two videos (ALG).",
)


def columns(diagnosis: Diagnosis) -> list[str]:
    """The headings of the table by noise level."""
    names = [SOURCES[s][0] for s in SOURCES if s in diagnosis.curves]
    return [
        diagnosis.unit,
        *names,
        "flow",
        "first frame off by",
        *(["leakage", "sensitivity"] if diagnosis.leak else []),
    ]


def rows(diagnosis: Diagnosis) -> list[list[str]]:
    """The table by noise level: explained motion of every source, flow, first frame, leakage, with intervals."""
    table = []
    for i, level in enumerate(diagnosis.levels):
        explained = [diagnosis.curves[s]["explained"][i] for s in SOURCES if s in diagnosis.curves]
        model = diagnosis.curves["image"]
        row = [f"{level.value:g}", *map(_cell, explained), _cell(model["flow"][i])]
        row.append(between(model["first_frame"][i]))
        if diagnosis.leak:
            row += [_cell(diagnosis.leak[i]), _cell(diagnosis.pull[i])]
        table.append(row)
    return table


def _cell(interval: Interval) -> str:
    ends = f" ({interval.low:.2f} to {interval.high:.2f})" if interval.known else ""
    return f"{interval.value:.2f}{ends}".replace("-", "\u2212")


def _films(page: Page, diagnosis: Diagnosis, present: Sequence[str]) -> None:
    page.heading(
        "One-step predictions", "One clip. Each video is a single prediction from the clip with that much noise."
    )
    chosen = shown_levels(len(diagnosis.levels))
    cells: list[tuple[str, Film | None]] = []
    for source in present:
        names = [f"{diagnosis.unit} {number(diagnosis.levels[i].value)}" for i in chosen]
        cells += [(SOURCES[source][0], None), *zip(names, diagnosis.shown[source], strict=True)]
    cells += [("the clip", None), ("without noise", diagnosis.shown["truth"][0])]
    page.films(1 + len(chosen), cells)
