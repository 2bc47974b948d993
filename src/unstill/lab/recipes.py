"""The papers' experiments that need no training, as settings for `unstill compare`; levels are those of the embedded
model, which counts noise in sigma."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from unstill.errors import UnstillError


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """What it shows and where in the papers; the settings, beside plain; the motion levels asked for."""

    about: str
    settings: tuple[str, ...]
    motions: tuple[float | None, ...] = (0.6,)


RECIPES = {
    "start-sweep": Recipe(
        about="where sampling starts, with and without Analytic-Init (leakage paper, Tables 8 and 9)",
        settings=("early-start:sigma=100|50|20|10|5", "analytic-init:sigma=200|100|50|20|10|5"),
    ),
    "initial-noise": Recipe(
        about="FrameInit, FreeInit, progressive noise and Analytic-Init as starting noise (leakage paper, Table 2)",
        settings=("frame-init", "free-init", "progressive-noise", "progressive-noise:kind=mixed", "analytic-init"),
    ),
    "rectification-weights": Recipe(
        about="how strongly every frame's noise is rectified (noise rectification, Fig. 5)",
        settings=("noise-rectification:curve=1:1|1:0.5|1:0|0.5:0.5",),
    ),
    "rectification-period": Recipe(
        about="in which part of sampling the noise is rectified (noise rectification, Fig. 6)",
        settings=("noise-rectification:period=0:0.2|0:0.4|0:0.6|0:0.8|0:1",),
    ),
    "ni-vsds": Recipe(
        about="a static image brought to life step by step (I4VGen, Table 2)",
        settings=("ni-vsds", "ni-vsds:tau=0.2|0.6"),
    ),
}


def recipe_named(name: str) -> Recipe:
    """Raises `UnstillError` for a name that no recipe has."""
    if name not in RECIPES:
        close = difflib.get_close_matches(name, RECIPES, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else "."
        raise UnstillError(f"There is no recipe {name!r}{hint} There are {', '.join(RECIPES)}.")
    return RECIPES[name]
