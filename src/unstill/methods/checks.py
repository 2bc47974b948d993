"""The checks of all methods: ownership, needs, hooks that the pipeline supports, and start levels."""

from __future__ import annotations

import math
from collections.abc import Sequence

from unstill.errors import UnstillError
from unstill.methods.base import Method, Target


LEVEL_PARAMETERS = frozenset({"start", "sigma"})
"""Two parameters for the same noise level, of which exactly one must be given, see `check_level`."""


def check_method(method: Method, others: Sequence[Method], target: Target) -> None:
    """
    Raises `UnstillError` if `method` cannot work on `target` or together with the `others`: given twice, owning the
    same as another, needing what the pipeline does not have, or what its own `check` refuses.
    """
    for other in others:
        if type(other) is type(method):
            raise UnstillError(f"{method.name} was given twice; give it once.")
        if shared := method.owns & other.owns:
            decided = "the noise level at which sampling starts" if "levels" in shared else "the first latents"
            raise UnstillError(f"{method.name} and {other.name} both decide {decided}; use one of them.")
    if "image" in method.needs and not target.image_latents:
        where = "to the pipeline's call" if target.encodes_image else "with apply(pipe, ..., image=image)"
        raise UnstillError(f"{method.name} works from an image, and {target.pipeline} has none; give it {where}.")
    if ("condition" in method.needs or method.implements("on_condition")) and not target.condition:
        raise UnstillError(
            f"{method.name} changes the image latents that the denoiser sees, and {target.pipeline} shows it none "
            "that can be changed; use a method that changes the start or the steps."
        )
    if method.implements("on_condition_clip") and not target.condition_clip:
        raise UnstillError(
            f"{method.name} changes the clip of image latents that models such as Wan's see, and {target.pipeline} "
            "shows none; use LowPassGuidance or EarlyStart."
        )
    if (method.implements("on_attention") or method.implements("on_attention_mass")) and not target.attention:
        raise UnstillError(
            f"{method.name} is about the attention to the first frame, and where that is in {target.pipeline} is not "
            "known; use EarlyStart or LowPassGuidance."
        )
    method.check(others, target)


def check_level(start: float | None, sigma: float | None) -> None:
    """Raises `UnstillError` unless exactly one of `start` (a fraction of the training time) and `sigma` is given."""
    if (start is None) == (sigma is None):
        raise UnstillError("Give exactly one noise level: start=0.96 (fraction of the training time) or sigma=100.0.")
    if start is not None and not 0.0 < start <= 1.0:
        raise UnstillError(f"start is a fraction of the training time in (0, 1], but is {start}.")
    if sigma is not None and not 0.0 < sigma < math.inf:
        raise UnstillError(f"sigma is a finite noise level above 0, but is {sigma}.")
