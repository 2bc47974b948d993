"""What the Motion slider means: one number becomes the model's own motion level and the noise level to start from.

Both are settings that a person could give by hand: `--motion` and `start` or `sigma` of the method that suits the
model. docs/app.md has the table.
"""

from typing import Any

from unstill.methods.base import LEVELS
from unstill.models import registry
from unstill.models.call_arguments import parameters


USUAL = 0.4
"""Where the slider stands at first."""


def motion_level(model: str, motion: float) -> float | None:
    """The level that goes into the pipeline's call: the slider itself, where the pipeline has such a level."""
    known = parameters(_class(model))
    return motion if "motion" in known or "motion_bucket_id" in known else None


def start_level(model: str, motion: float) -> dict[str, float]:
    """
    The noise level at which sampling starts, `{"sigma": ...}` or `{"start": ...}`: the lower, the more it moves.

    In the middle it is the model's usual one. To the left the part of the noise that is left out halves, to the right
    it doubles: sigma 2, 1 or 1/2 times the usual one; a start of 0.98, 0.96 or 0.92. The published settings lie there.
    """
    name, usual = next((key, value) for key, value in registry.defaults_of(model).items() if key in LEVELS)
    factor = 2 ** (2 * motion - 1)
    if name == "sigma":
        return {name: float(f"{usual / factor:.3g}")}
    return {name: round(1 - (1 - usual) * factor, 3)}


def defaults(model: str, motion: float) -> dict[str, Any]:
    """What fills the parameters of the methods that nobody set: the slider's level and the model's statistics."""
    usual = {key: value for key, value in registry.defaults_of(model).items() if key not in LEVELS}
    return {**usual, **start_level(model, motion)}


def _class(model: str) -> type:
    cls = registry.pipeline_class(model)
    assert cls is not None  # `Studio` takes no model whose class is not known
    return cls
