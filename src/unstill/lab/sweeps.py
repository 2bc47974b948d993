"""Named sets of settings for `unstill.compare`: the experiments of the papers that need no training."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from unstill.errors import UnstillError


@dataclass(frozen=True, kw_only=True, slots=True)
class Sweep:
    """
    A set of settings to compare.

    Attributes:
        about: the question that it answers, and the paper's table or figure.
        settings: as text, see `unstill.lab.method_grid.expand`; plain is added to them.
        motions: requested motion levels, in [0, 1].
        caption_only: the model gets a caption and no image; only the methods use the image. Noise rectification and
            I4VGen were published for such models. The embedded model is then sampled as a variance-preserving model
            (DDIM), like the models of those papers.
    """

    about: str
    settings: tuple[str, ...]
    motions: tuple[float | None, ...] = (0.6,)
    caption_only: bool = False


ABRUPT = "noise-rectification:weights=" + ":".join(["1"] * 8 + ["0"] * 8)
"""Weights that change abruptly, for the 16 frames of the embedded model."""

# Noise levels are those of the embedded model, given as sigma.
SWEEPS = {
    "start-sweep": Sweep(
        about="where sampling starts, with and without Analytic-Init (leakage paper, Tables 8 and 9)",
        settings=("early-start:sigma=100|50|20|10|5", "analytic-init:sigma=100|50|20|10|5"),
    ),
    "initial-noise": Sweep(
        about="FrameInit, FreeInit, progressive noise and Analytic-Init as starting noise (leakage paper, Table 2)",
        settings=("frame-init", "free-init", "progressive-noise", "progressive-noise:mixed", "analytic-init"),
    ),
    "rectification-weights": Sweep(
        about="how strongly every frame's noise is rectified (noise rectification, Fig. 5)",
        settings=(
            "image-start",
            "noise-rectification:curve=1:1|1:0.5|1:0|0.5:0.5|0:0",
            ABRUPT,
        ),
        caption_only=True,
    ),
    "rectification-period": Sweep(
        about="during which part of sampling the noise is rectified (noise rectification, Fig. 6)",
        settings=("image-start", "noise-rectification:period=0:0.2|0:0.4|0:0.6|0:0.8|0:1|0.3:0.7|0.6:1"),
        caption_only=True,
    ),
    "ni-vsds": Sweep(
        about="a still image set in motion by distillation, and without (I4VGen, Table 2)",
        settings=("image-start", "ni-vsds", "ni-vsds:released", "ni-vsds:tau=0.2|0.6"),
        caption_only=True,
    ),
    "remedies": Sweep(
        about="which remedy for which complaint: every method at several strengths, and pairs of them",
        settings=(
            "early-start:sigma=50|20|10",
            "analytic-init:sigma=20",
            "low-pass-guidance:factor=0.6|0.4|0.25,until=0.5",
            "reference-bias",
            "reference-bias:gamma=-2|2|6,steps=0.6",
            "recompress-image:crf=18|33|45",
            "conditioning-augmentation:level=0.02|0.05|0.1",
            "conditioning-augmentation:schedule=t2,strength=0.15|0.5|1.5",
            "image-guidance:scale=0.5|2|3",
            "predict-and-perturb:repeats=1|2|3",
            "noise-rectification",
            "frame-init:keep_variance=false|true",
            "progressive-noise",
            "early-start:sigma=20+noise-rectification",
            "early-start:sigma=20+low-pass-guidance:factor=0.4,until=0.5",
            "early-start:sigma=20+reference-bias:gamma=6,steps=0.6",
            "low-pass-guidance:factor=0.25,until=0.5+noise-rectification",
            "analytic-init:sigma=20+low-pass-guidance:factor=0.4,until=0.5",
        ),
        motions=(None,),
    ),
}


def sweep_named(name: str) -> Sweep:
    """
    Looks up a sweep.

    Raises:
        UnstillError: there is no sweep of that name.
    """
    if name not in SWEEPS:
        close = difflib.get_close_matches(name, SWEEPS, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else "."
        raise UnstillError(f"There is no sweep {name!r}{hint} There are {', '.join(SWEEPS)}.")
    return SWEEPS[name]
