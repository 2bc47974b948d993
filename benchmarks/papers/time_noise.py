"""
The noise that TimeNoise adds to the image in training: the distribution of its level and the centre of it over time
(Fig. 4 of the leakage paper), by the formulas of `unstill.methods.time_noise`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal

from benchmarks.papers.verdicts import Finding, Judged, Verdict, sign, together
from unstill.lab.bootstrap import Interval
from unstill.lab.comparison_plots import Plot
from unstill.lab.interval_text import signed
from unstill.lab.plots import Series, curves
from unstill.methods.time_noise import TimeNoise, center, sample_level


TIMES = (0.0, 0.5, 0.8, 0.9, 1.0)
EXPONENTS = (1.0, 2.0, 5.0, 10.0)


@dataclass(frozen=True, slots=True)
class Training:
    """A training with TimeNoise, and how the time t of a clip is drawn: uniformly (DynamiCrafter,
    VideoCrafter), or as sigma / 700 with ln sigma ~ N(-1.2, 1.2^2) (the released code for SVD)."""

    name: str
    noise: TimeNoise
    time: Literal["uniform", "sigma / 700"] = "uniform"

    def time_at(self, share: float) -> float:
        """The time that `share` of the training clips do not exceed."""
        if self.time == "uniform":
            return share
        return math.exp(NormalDist(-1.2, 1.2).inv_cdf(share)) / 700


TRAININGS = (
    Training("paper (DynamiCrafter, SVD)", TimeNoise()),
    Training("released, DynamiCrafter", TimeNoise(**TimeNoise.presets["released"])),
    Training("paper, VideoCrafter", TimeNoise(**TimeNoise.presets["paper-videocrafter"])),
    Training("released, VideoCrafter", TimeNoise(**TimeNoise.presets["released-videocrafter"])),
    Training("released, SVD", TimeNoise(**TimeNoise.presets["released-svd"]), "sigma / 700"),
)


def density(share: float, centre: float) -> float:
    """Of beta / beta_m = sigmoid(centre + n), n ~ N(0, 1), at `share` in (0, 1): the logit-normal of Eq. 6."""
    return NormalDist(centre).pdf(math.log(share / (1 - share))) / (share * (1 - share))


def density_plot(exponent: float = 5.0, times: Sequence[float] = TIMES) -> str:
    """Densities of the level at several times."""
    shares = [i / 100 for i in range(1, 100)]
    series = [
        _exact(f"t = {t:g}", shares, [density(x, float(center(t, exponent))) for x in shares], i)
        for i, t in enumerate(times)
    ]
    return curves(series, x_label="noise on the image, share of beta_m", y_label="density")


def centre_plot(exponents: Sequence[float] = EXPONENTS) -> str:
    """mu(t) = 2 t^a - 1 for several a."""
    times = [i / 60 for i in range(61)]
    series = [
        _exact(f"a = {a:g}", times, [float(center(t, a)) for t in times], i, a != 5) for i, a in enumerate(exponents)
    ]
    return curves(series, x_label="training time t", y_label="centre mu(t)", y_range=(-1.1, 1.1), lines=(0,))


def trainings_plot() -> str:
    """The median level, as a share of beta_m, against the rank of a clip's noise among those of training: what the
    authors' settings do in fact."""
    ranks = [i / 100 for i in range(1, 100)]
    series = [
        _exact(one.name, ranks, [_level(one, one.time_at(r), 0.0) / one.noise.maximum for r in ranks], i)
        for i, one in enumerate(TRAININGS)
        if i not in (1, 2)  # of the same shape as the first
    ]
    return curves(
        series, x_label="share of training clips with less noise", y_label="median noise / beta_m", y_range=(0, 1)
    )


def figures() -> list[Plot]:
    return [
        Plot(
            "density",
            "How strong the noise on the image is",
            "Density of the level in training, by the time t of the clip; a = 5. At t = 1, pure noise, most images "
            "are noised to more than half of beta_m.",
            density_plot(),
        ),
        Plot(
            "centre",
            "Its centre over time",
            "mu(t) = 2 t^a - 1. The larger a, the later the noise grows; the paper's a is 5.",
            centre_plot(),
        ),
        Plot(
            "trainings",
            "What that is in the authors' trainings",
            "Median level against the rank of a clip's noise. The released code for SVD draws ln sigma ~ N(-1.2, 1.2) "
            "and takes t = sigma / 700, which is nearly 0 for every clip: its level does not depend on the noise.",
            trainings_plot(),
        ),
    ]


def trainings_table() -> tuple[list[str], list[list[str]]]:
    """Medians of beta, in units of the image latents, at the least, the median and the highest noise of training; and
    the share of clips at the least noise whose beta is below 1."""
    columns = ["training", "beta_m", "least noise", "median noise", "most noise", "of the least noisy, below 1"]
    rows = []
    for one in TRAININGS:
        times = [one.time_at(r) for r in (0.001, 0.5, 0.999)]
        weak = NormalDist(float(center(times[0], one.noise.exponent, one.noise.scale)))
        share = weak.cdf(-math.log(one.noise.maximum - 1))  # sigmoid(x) < 1 / beta_m
        rows.append(
            [one.name, f"{one.noise.maximum:g}", *(f"{_level(one, t, 0.0):.1f}" for t in times), f"{share:.2%}"]
        )
    return columns, rows


def training_findings(measured: dict[str, Any]) -> list[Finding]:
    """The paper's claims, judged by the JSON file that `benchmarks/time_noise_on_pico.py` writes."""
    gained = measured["differences"]["clean image (naive)"]["TimeNoise"]
    held = measured["differences"]["TimeNoise"]

    def level(arm: dict[str, Any], sigma: float) -> Interval:
        return Interval(**arm["explained"][measured["sigmas"].index(sigma)])

    def part(words: str, found: Interval, verdict: Verdict | None = None) -> Judged:
        return verdict or sign(found), f"{words} {signed(found)}"

    def less(words: str, arm: str) -> Judged:
        """Judged by the arm being worse than TimeNoise."""
        found = Interval(**held[arm]["travel"])
        return sign(Interval(-found.value, -found.high, -found.low)), f"{words} {signed(found)}"

    longer = "A training of 20,000 iterations, as in the paper, of released weights."
    compared = [less(f"{arm}: travel", arm) for arm in ("constant noise", "conditioning augmentation") if arm in held]
    made: list[tuple[str, str, list[Judged]]] = [
        (
            "Fine-tuned with TimeNoise, one-step predictions at high noise move more than after plain fine-tuning.",
            "Fig. 5",
            [part(f"explained motion at sigma {s:g}", level(gained, s)) for s in (64.0, 16.0)],
        ),
        (
            "Its videos move more.",
            "Tab. 1, Fig. 1",
            [part(what, Interval(**gained[what])) for what in ("travel", "flow")],
        ),
    ]
    if compared:
        made.append(
            (
                "A level that depends on time and on chance trains better than one that lacks either.",
                "Fig. 9",
                compared,
            )
        )
    judged = [(claim, place, *together(parts)) for claim, place, parts in made]
    findings = [
        Finding(claim, f"leakage paper, {place}", verdict, said, "" if verdict == "reproduced" else longer)
        for claim, place, verdict, said in judged
    ]
    return findings + [
        Finding(claim, f"leakage paper, {place}", "not testable here", "no arm of these trainings", longer)
        for claim, place in (
            ("The larger beta_m, the more motion, and the less of the image.", "Fig. 5, Fig. 9"),
            ("The smaller a, the more motion, and the less of the image.", "Fig. 5"),
        )
    ]


def trained_on(measured: dict[str, Any]) -> str:
    """The size of the trainings that the findings rest on."""
    s = measured["settings"]
    return (
        f"pico, fine-tuned on clips that hardly move for {s['steps']} steps per arm, one seed, {s['scenes']} pictures "
        f"and {s['probes']} held-out clips"
    )


def _level(training: Training, t: float, normal: float) -> float:
    noise = training.noise
    return float(sample_level(t, noise.maximum, noise.exponent, normal, noise.scale))


def _exact(name: str, x: Sequence[float], y: Sequence[float], colour: int, dashed: bool = False) -> Series:
    return Series(name, x, [Interval(v, v, v) for v in y], colour, dashed, dots=False)
