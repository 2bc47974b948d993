"""
Verdicts on the claims of a paper: reproduced, in part, undecided, not reproduced, or not testable here.

A claim is judged by a paired difference between settings, on the same images and noise, and its 95 % bootstrap
interval over images: reproduced where the whole interval agrees with it, not reproduced where the whole interval
disagrees, undecided otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from unstill.lab.bootstrap import Interval, weights
from unstill.lab.interval_text import number, signed


Verdict = Literal["reproduced", "in part", "undecided", "not reproduced", "not testable here"]
Judged = tuple[Verdict, str]
"""A verdict, and the figures that it rests on."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A claim, its source, the verdict with its figures, and what a firmer verdict would need."""

    claim: str
    source: str
    verdict: Verdict
    evidence: str
    needed: str = ""

    def as_dict(self) -> dict[str, str]:
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Claim:
    """
    A claim of a paper.

    Attributes:
        judge: from the measurements to a verdict; `None` for a claim that cannot be tested here.
        needed: what a firmer verdict would need, unless it is reproduced.
        firm: what the paper measured where this is a proxy; stated with every verdict.
    """

    claim: str
    source: str
    judge: Callable[[Measured], Judged] | None
    needed: str = ""
    firm: str = ""

    def judged(self, measured: Measured) -> Finding:
        verdict, evidence = self.judge(measured) if self.judge else ("not testable here", "")
        said = (self.needed if verdict != "reproduced" else "", self.firm)
        return Finding(self.claim, self.source, verdict, evidence, " ".join(filter(None, said)))


class Measured:
    """The finished cells of a comparison of one model, for questions about pairs and rows of settings."""

    def __init__(self, results: Sequence[Mapping[str, Any]]) -> None:
        self._by: dict[str, dict[tuple[Any, ...], Mapping[str, Any]]] = {}
        for cell in results:
            if "error" not in cell:
                place = cell["motion_asked"], cell["image"], cell["seed"]
                self._by.setdefault(cell["setting"], {})[place] = cell
        self._images = sorted({place[1] for cells in self._by.values() for place in cells})

    def gain(self, ours: str, theirs: str, metric: str) -> Interval:
        """How much more of a metric one setting has than another."""
        return self.combined({ours: 1.0, theirs: -1.0}, metric)

    def trend(self, settings: Sequence[str], metric: str) -> Interval:
        """The least-squares slope of a metric per setting along a row of them."""
        x = np.arange(len(settings)) - (len(settings) - 1) / 2
        return self.combined(dict(zip(settings, x / (x @ x), strict=True)), metric)

    def mean(self, setting: str, metric: str) -> Interval:
        return self.combined({setting: 1.0}, metric)

    def combined(self, factors: Mapping[str, float], metric: str) -> Interval:
        """The mean over images of a weighted sum of settings, cell by cell; cells that one setting lacks are left
        out."""
        cells = [self._by.get(name, {}) for name in factors]
        places = [place for place in cells[0] if all(place in other for other in cells)]
        sums = {
            place: sum(f * by[place][metric] for f, by in zip(factors.values(), cells, strict=True))
            for place in places
        }
        per = [[sums[place] for place in places if place[1] == image] for image in self._images]
        there = np.array([bool(values) for values in per], dtype=float)
        means = np.array([np.mean(values) if values else 0.0 for values in per])
        w = weights(len(self._images))
        with np.errstate(invalid="ignore"):
            return Interval.of((w @ means) / (w @ there), int(there.sum()))


def more(ours: str, theirs: str, metric: str = "motion", by: float = 0.0) -> Callable[[Measured], Judged]:
    """That `ours` has more of a metric than `theirs`, by more than `by`."""

    def judge(measured: Measured) -> Judged:
        difference = measured.gain(ours, theirs, metric)
        return sign(difference, by), _against(measured, difference, (ours, theirs), metric)

    return judge


def less(ours: str, theirs: str, metric: str = "motion") -> Callable[[Measured], Judged]:
    """That `ours` has less of a metric than `theirs`."""

    def judge(measured: Measured) -> Judged:
        difference = measured.gain(ours, theirs, metric)
        return sign(_minus(difference)), _against(measured, difference, (ours, theirs), metric)

    return judge


def rises(settings: Sequence[str], metric: str = "motion", falls: bool = False) -> Callable[[Measured], Judged]:
    """That a metric rises (or falls) along a row of settings."""

    def judge(measured: Measured) -> Judged:
        slope = measured.trend(settings, metric)
        ends = " to ".join(number(measured.mean(setting, metric).value) for setting in (settings[0], settings[-1]))
        return sign(_minus(slope) if falls else slope), f"{_words(metric)} {ends}, {signed(slope)} per setting"

    return judge


def within(ours: str, theirs: str, metric: str, share: float) -> Callable[[Measured], Judged]:
    """That `ours` loses no more than a share of what `theirs` has of a metric."""

    def judge(measured: Measured) -> Judged:
        whole = measured.mean(theirs, metric).value
        difference = measured.gain(ours, theirs, metric)
        said = f"{_against(measured, difference, (ours, theirs), metric)}; {share:.0%} is allowed"
        return sign(difference, -share * whole), said

    return judge


def alike(ours: str, theirs: str, metric: str, share: float) -> Callable[[Measured], Judged]:
    """That `ours` has no more and no less of a metric than `theirs`, up to a share of it."""

    def judge(measured: Measured) -> Judged:
        allowed = share * measured.mean(theirs, metric).value
        difference = measured.gain(ours, theirs, metric)
        said = f"{_against(measured, difference, (ours, theirs), metric)}; {share:.0%} either way is allowed"
        if not difference.known:
            return "undecided", said
        if difference.low > -allowed and difference.high < allowed:
            return "reproduced", said
        return ("not reproduced" if difference.low > allowed or difference.high < -allowed else "undecided"), said

    return judge


def both(*judges: Callable[[Measured], Judged]) -> Callable[[Measured], Judged]:
    """A claim of several parts: it holds where all do, in part where some do."""

    def judge(measured: Measured) -> Judged:
        return together([judge(measured) for judge in judges])

    return judge


def together(parts: Sequence[Judged]) -> Judged:
    """The verdict on a claim from those on its parts."""
    verdicts = {verdict for verdict, _ in parts}
    said = "; ".join(evidence for _, evidence in parts)
    if len(verdicts) == 1:
        return parts[0][0], said
    return ("in part" if "reproduced" in verdicts else "not reproduced"), said


def sign(difference: Interval, above: float = 0.0) -> Verdict:
    """Whether the whole interval lies above a number, below it, or on both sides."""
    if not np.isfinite(difference.low):
        return "undecided"
    return "reproduced" if difference.low > above else "not reproduced" if difference.high < above else "undecided"


def _minus(difference: Interval) -> Interval:
    return Interval(-difference.value, -difference.high, -difference.low)


def _against(measured: Measured, difference: Interval, settings: tuple[str, str], metric: str) -> str:
    """A difference in words, and what it is a difference from."""
    ours, theirs = settings
    whole = number(measured.mean(theirs, metric).value)
    return f"{_words(metric)} {signed(difference)}, {ours} against {theirs} ({whole})"


def _words(metric: str) -> str:
    proxy = " (proxy)" if metric in ("fidelity", "colour", "detail", "coherence") else ""
    return metric.replace("_", " ") + proxy
