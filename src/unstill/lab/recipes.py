"""
The papers' experiments that need no training, as settings for `unstill compare`, and what the papers say of them.
Levels are those of the embedded model, which counts noise in sigma.

`leak` is run by `unstill diagnose`, `time-noise` by a benchmark, for it trains models; `unstill compare --recipe`
knows both.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Literal

from unstill.errors import UnstillError
from unstill.lab.findings import Claim, alike, both, less, more, rises, within
from unstill.lab.settings import PLAIN


LEAKAGE, RECTIFICATION, I4VGEN = "leakage paper", "noise rectification", "I4VGen"
RELEASED_MODEL = "Released weights, a GPU, and 2,048 videos with I3D features (`unstill evaluate`)."


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """
    What it shows; the settings, beside plain; the motion levels asked for; the claims it judges.

    given: `"caption"`: the model is a text-to-video model that never sees the picture, which only the methods know;
    this is what noise rectification and I4VGen are made for. It then is sampled as a variance-preserving model, as
    theirs are.
    """

    about: str
    settings: tuple[str, ...]
    claims: tuple[Claim, ...]
    motions: tuple[float | None, ...] = (0.6,)
    given: Literal["image", "caption"] = "image"
    count: int = 8


def _row(name: str, *values: object) -> list[str]:
    return [f"{name}={value}" for value in values]


EARLY = _row("early-start:sigma", 100, 50, 20, 10, 5)
ANALYTIC = _row("analytic-init:sigma", 100, 50, 20, 10, 5)
CURVE = "noise-rectification:curve"
PERIOD = "noise-rectification:period"
ABRUPT = "noise-rectification:weights=1:1:1:1:0:0:0:0"

RECIPES = {
    "start-sweep": Recipe(
        about="where sampling starts, with and without Analytic-Init (leakage paper, Tables 8 and 9)",
        settings=("early-start:sigma=100|50|20|10|5", "analytic-init:sigma=100|50|20|10|5"),
        claims=(
            Claim(
                "The earlier sampling starts, the more the video moves.",
                f"{LEAKAGE}, Sec. 4.1, Tab. 8 and 9",
                both(rises([PLAIN, *EARLY]), rises([PLAIN, *ANALYTIC])),
            ),
            Claim(
                "Starting somewhat earlier costs no quality; starting far too early does.",
                f"{LEAKAGE}, Tab. 8 and 9: FVD is best at M = 0.96 T, sigma 70",
                both(within(ANALYTIC[2], PLAIN, "fidelity", 0.02), less(ANALYTIC[4], PLAIN, "fidelity")),
                firm="The paper says more, that FVD improves at first: 2,048 videos and I3D weights instead of a "
                "proxy.",
            ),
            Claim(
                "At the same early start, Analytic-Init is better than noise that knows no statistics.",
                f"{LEAKAGE}, Sec. 4.1, Tab. 1",
                both(more(ANALYTIC[4], EARLY[4], "fidelity"), more(ANALYTIC[4], EARLY[4])),
                "A model whose latents have a mean far from 0 or a variance far from 1. Those of pico are near 0 and "
                "1, so that both methods start from nearly the same noise.",
            ),
            Claim(
                "Analytic-Init improves FVD: DynamiCrafter 363.8 to 316.3, SVD 388.3 to 382.0.",
                f"{LEAKAGE}, Tab. 1",
                None,
                RELEASED_MODEL,
            ),
        ),
    ),
    "initial-noise": Recipe(
        about="FrameInit, FreeInit, progressive noise and Analytic-Init as starting noise (leakage paper, Table 2)",
        settings=("frame-init", "free-init", "progressive-noise", "progressive-noise:mixed", "analytic-init"),
        claims=(
            Claim(
                "Analytic-Init moves more than plain noise (31.7 to 50.1).",
                f"{LEAKAGE}, Tab. 2",
                more("analytic-init", PLAIN),
            ),
            Claim(
                "FrameInit changes motion little (31.7 to 32.2).",
                f"{LEAKAGE}, Tab. 2",
                alike("frame-init", PLAIN, "motion", 0.05),
            ),
            Claim("FreeInit moves more than plain noise (46.2).", f"{LEAKAGE}, Tab. 2", more("free-init", PLAIN)),
            Claim(
                "Progressive noise moves more than plain noise (49.8).",
                f"{LEAKAGE}, Tab. 2",
                more("progressive-noise", PLAIN),
                "The paper names no alpha, and the model is DynamiCrafter, fine-tuned plainly.",
            ),
            Claim(
                "Of the four, Analytic-Init moves most.",
                f"{LEAKAGE}, Tab. 2",
                both(*(more("analytic-init", other) for other in ("frame-init", "free-init", "progressive-noise"))),
            ),
            Claim("Of the four, Analytic-Init has the best FVD.", f"{LEAKAGE}, Tab. 2", None, RELEASED_MODEL),
        ),
    ),
    "rectification-weights": Recipe(
        about="how strongly every frame's noise is rectified (noise rectification, Fig. 5)",
        settings=("image-start", f"{CURVE}=1:1|1:0.5|1:0|0.5:0.5|0:0", ABRUPT),
        given="caption",
        claims=(
            Claim(
                "Rectified, a video keeps its image better than one that is only started from it.",
                f"{RECTIFICATION}, Tab. 1: image fidelity 0.74 to 0.79",
                both(
                    more(f"{CURVE}=1:0.5", "image-start", "fidelity"),
                    less(f"{CURVE}=1:0.5", "image-start", "first_frame_error"),
                ),
                firm="CLIP features instead of a proxy.",
            ),
            Claim(
                "The smaller the weights of later frames, the closer they stay to the image, and the less they move.",
                f"{RECTIFICATION}, Eq. 8, Fig. 5",
                both(
                    rises(_row(CURVE, "1:1", "1:0.5", "1:0"), "fidelity"),
                    rises(_row(CURVE, "1:1", "1:0.5", "1:0"), "motion", falls=True),
                ),
            ),
            Claim(
                "Weights that change abruptly make abrupt videos.",
                f"{RECTIFICATION}, Fig. 5",
                less(ABRUPT, f"{CURVE}=1:0.5", "coherence"),
                "More than 8 frames, and eyes.",
            ),
        ),
    ),
    "rectification-period": Recipe(
        about="in which part of sampling the noise is rectified (noise rectification, Fig. 6)",
        settings=("image-start", f"{PERIOD}=0:0.2|0:0.4|0:0.6|0:0.8|0:1|0.3:0.7|0.6:1"),
        given="caption",
        claims=(
            Claim(
                "The longer the noise is rectified, the closer the video stays to its image.",
                f"{RECTIFICATION}, Fig. 6",
                rises(["image-start", *_row(PERIOD, "0:0.2", "0:0.4", "0:0.6", "0:0.8", "0:1")], "fidelity"),
            ),
            Claim(
                "Rectifying late, from 30 % or 60 % of sampling on, keeps the image worse than rectifying early.",
                f"{RECTIFICATION}, Fig. 6",
                both(
                    less(f"{PERIOD}=0.3:0.7", f"{PERIOD}=0:0.6", "fidelity"),
                    less(f"{PERIOD}=0.6:1", f"{PERIOD}=0:0.6", "fidelity"),
                ),
            ),
            Claim(
                "Ending at 60 % leaves more motion than rectifying to the end.",
                f"{RECTIFICATION}, Sec. 4.4",
                more(f"{PERIOD}=0:0.6", f"{PERIOD}=0:1"),
            ),
        ),
    ),
    "ni-vsds": Recipe(
        about="a still image set in motion by distillation, and without (I4VGen, Table 2)",
        settings=("image-start", "ni-vsds", "ni-vsds:released", "ni-vsds:tau=0.2|0.6"),
        given="caption",
        claims=(
            Claim(
                "Without NI-VSDS the video inherits the stillness of its image (dynamic degree 57.7 to 28.2).",
                f"{I4VGEN}, Tab. 2",
                both(more("ni-vsds", "image-start"), less("image-start", PLAIN)),
                "A model whose videos are still when they start from a still image. Motion is optical flow here, "
                "which also rises with flicker.",
            ),
            Claim(
                "Videos made from an anchor image are more consistent than those made from text alone (87.1 to 95.2).",
                f"{I4VGEN}, Tab. 1",
                more("ni-vsds", PLAIN, "coherence"),
                firm="DINO features instead of a proxy.",
            ),
            Claim(
                "They move less than those made from text alone (74.9 to 57.7).",
                f"{I4VGEN}, Tab. 1",
                less("ni-vsds", PLAIN),
            ),
            Claim(
                "Choosing the anchor among candidates by a reward improves agreement with the text.",
                f"{I4VGEN}, Tab. 2",
                None,
                "ImageReward's weights and VBench's detectors. With the reward that pico has of its own it does: "
                "`python benchmarks/i4vgen_ablation.py`.",
            ),
        ),
    ),
}

ELSEWHERE = {
    "leak": "the motion that one-step predictions lose at every noise level (leakage paper, Fig. 1 and 2)",
    "time-noise": "the noise on the image in training: its distribution (leakage paper, Fig. 4)",
}

TRAINED = (
    "What TimeNoise does to a model takes training: `python benchmarks/time_noise_on_pico.py` fine-tunes pico with "
    "several beta_m and a, and compares."
)


def recipe_named(name: str) -> Recipe:
    """Raises `UnstillError` for a name that no recipe has."""
    if name not in RECIPES:
        known = [*ELSEWHERE, *RECIPES]
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else "."
        raise UnstillError(f"There is no recipe {name!r}{hint} There are {', '.join(known)}.")
    return RECIPES[name]
