"""Converts the Motion slider into the model's motion level and the noise level at which sampling starts.

Both can also be set separately: as `--motion`, and as `start` or `sigma` of a method. docs/app.md has the table.
"""

from typing import Any

from unstill.methods.checks import LEVEL_PARAMETERS
from unstill.models import registry
from unstill.models.call_arguments import parameters


LEVEL_NAMES = ("motion", "motion_bucket_id")  # of pipelines that have a motion level
USUAL = 0.4
"""The initial value of the slider."""


def motion_level(model: str, motion: float) -> float | None:
    """
    The motion level of the pipeline's call: the slider's value; `None` for a pipeline without one, and for one that
    chooses it itself by default (pico), whose plain video would otherwise move as much as the improved one.
    """
    known = parameters(_class(model))
    return motion if any(name in known and known[name].default is not None for name in LEVEL_NAMES) else None


def start_level(model: str, motion: float) -> dict[str, float]:
    """
    The noise level at which sampling starts, `{"sigma": ...}` or `{"start": ...}`: a lower level gives more motion.

    The middle of the slider gives the model's default. The skipped part of the noise halves towards 0 and doubles
    towards 1: sigma is 2, 1 or 1/2 times the default; start is 0.98, 0.96 or 0.92. The published settings are within
    this range.
    """
    name, usual = next((key, value) for key, value in registry.defaults_of(model).items() if key in LEVEL_PARAMETERS)
    factor = 2 ** (2 * motion - 1)
    if name == "sigma":
        return {name: float(f"{usual / factor:.3g}")}
    return {name: round(1 - (1 - usual) * factor, 3)}


def defaults(model: str, motion: float) -> dict[str, Any]:
    """Values for parameters of methods that were not set by hand: the slider's noise level, the model's statistics."""
    usual = {key: value for key, value in registry.defaults_of(model).items() if key not in LEVEL_PARAMETERS}
    return {**usual, **start_level(model, motion)}


def _class(model: str) -> type:
    cls = registry.pipeline_class(model)
    assert cls is not None  # checked by `VideoService`
    return cls
