"""All families: one for each file of this package except `NO_FAMILY`."""

import difflib
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

import unstill.families
from unstill.errors import UnstillError
from unstill.families.base import Adapter, Family
from unstill.families.model_card import Model
from unstill.families.training import TrainingRole


NO_FAMILY = {"base", "model_card", "reference_keys", "registry", "training", "vae_adapters"}

FAMILIES: dict[str, Family] = {
    name: import_module(f"unstill.families.{name}").FAMILY
    for name in sorted(info.name for info in iter_modules(unstill.families.__path__))
    if name not in NO_FAMILY
}
"""By the name of the file."""

_ALL = FAMILIES.values()
# Of all families, by pipeline class.
ADAPTERS = {name: adapter for family in _ALL for name, adapter in family.adapters.items()}
UNSUPPORTED = {name: reason for family in _ALL for name, reason in family.unsupported.items()}
IMAGE_MODES = {name: mode for family in _ALL for name, mode in family.image_modes.items()}
IMAGE_INPUTS = {name: text for family in _ALL for name, text in family.image_inputs.items()}
TRAINING = {name: role for family in _ALL for name, role in family.training.items()}

MODELS: tuple[Model, ...] = tuple(
    sorted((model for family in _ALL for model in family.models), key=lambda model: model.weights is not None)
)
"""The embedded model first, then the others in the order of the files."""


def family_of(pipeline: str) -> Family:
    """The family of a supported pipeline class, by its name; an empty one for another class."""
    return next((family for family in _ALL if pipeline in family.adapters), Family())


def adapter_for(pipe: Any) -> Adapter:
    """
    The adapter of a pipeline's class, or of its nearest base class that has one.

    Raises:
        UnstillError: no such class.
    """
    for cls in type(pipe).__mro__:
        if cls.__name__ in ADAPTERS:
            return ADAPTERS[cls.__name__]
        if cls.__name__ in UNSUPPORTED:
            raise UnstillError(f"{type(pipe).__name__} {UNSUPPORTED[cls.__name__]}")
    name = type(pipe).__name__
    nearest = difflib.get_close_matches(name, ADAPTERS, n=1, cutoff=0.0)[0]
    raise UnstillError(
        f"{name} is not a supported pipeline; the supported one of the nearest name is {nearest}, and all of them are "
        f"{', '.join(ADAPTERS)}."
    )


def training_for(pipe: Any) -> TrainingRole:
    """
    How a pipeline's class is trained.

    Raises:
        UnstillError: it cannot be trained here.
    """
    name = type(pipe).__name__
    if name not in TRAINING:
        raise UnstillError(f"{name} cannot be trained here; there is training for {', '.join(TRAINING)}.")
    return TRAINING[name].of(pipe)
