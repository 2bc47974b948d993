"""The experiments of the papers that are sweeps of settings (`unstill.lab.sweeps`), and the claims they test."""

from __future__ import annotations

from benchmarks.papers.verdicts import Claim, alike, both, less, more, rises, within
from unstill.lab.method_grid import PLAIN
from unstill.lab.sweeps import ABRUPT


LEAKAGE, RECTIFICATION, I4VGEN = "leakage paper", "noise rectification", "I4VGen"
RELEASED_MODEL = "Released weights, a GPU, and 2,048 videos with I3D features (`unstill evaluate`)."


def _row(name: str, *values: object) -> list[str]:
    return [f"{name}={value}" for value in values]


EARLY = _row("early-start:sigma", 100, 50, 20, 10, 5)
ANALYTIC = _row("analytic-init:sigma", 100, 50, 20, 10, 5)
CURVE = "noise-rectification:curve"
PERIOD = "noise-rectification:period"

CLAIMS: dict[str, tuple[Claim, ...]] = {
    "start-sweep": (
        Claim(
            "The earlier sampling starts, the more the video moves.",
            f"{LEAKAGE}, Sec. 4.1, Tab. 8 and 9",
            both(rises([PLAIN, *EARLY]), rises([PLAIN, *ANALYTIC])),
        ),
        Claim(
            "Starting somewhat earlier costs no quality; starting far too early does.",
            f"{LEAKAGE}, Tab. 8 and 9: FVD is best at M = 0.96 T, sigma 70",
            both(within(ANALYTIC[2], PLAIN, "fidelity", 0.02), less(ANALYTIC[4], PLAIN, "fidelity")),
            firm="The paper says more, that FVD improves at first: 2,048 videos and I3D weights instead of a proxy.",
        ),
        Claim(
            "At the same early start, Analytic-Init is better than noise that knows no statistics.",
            f"{LEAKAGE}, Sec. 4.1, Tab. 1",
            both(more(ANALYTIC[4], EARLY[4], "fidelity"), more(ANALYTIC[4], EARLY[4])),
            "A model whose latents are further from mean 0 and variance 1: pico's have a mean of mean square 0.065 "
            "and a variance of 0.88, so that both methods start from nearly the same noise.",
        ),
        Claim(
            "Analytic-Init improves FVD: DynamiCrafter 363.8 to 316.3, SVD 388.3 to 382.0.",
            f"{LEAKAGE}, Tab. 1",
            None,
            RELEASED_MODEL,
        ),
    ),
    "initial-noise": (
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
    "rectification-weights": (
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
            "Many pictures looked at by people.",
        ),
    ),
    "rectification-period": (
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
    "ni-vsds": (
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
}
