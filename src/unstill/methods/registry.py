"""
The registry of methods: one file of `unstill.methods` each, found by listing the folder.

The file's name is the method's name on the command line, in records and in the docs. Lists, the app's form, the table
of what works where and the docs read everything else from the class attributes that `Method` describes.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
from collections.abc import Mapping
from functools import cache
from typing import Any, cast

import unstill.methods
from unstill.errors import UnstillError
from unstill.latent_statistics import LatentStatistics
from unstill.methods.base import Method
from unstill.methods.checks import LEVEL_PARAMETERS
from unstill.parameters import parameters_of


PLACES = {
    "start": ("on_schedule", "on_noise", "on_start"),
    "step": ("on_step", "on_guidance", "on_attention"),
    "condition": ("on_condition", "on_condition_clip", "on_image"),
}
"""What a method can change, and the hooks that do so."""


@cache
def method_classes() -> dict[str, type[Method]]:
    """The methods by the names of their files, e.g. `early_start`, in the order of their `rank`."""
    classes: dict[str, type[Method]] = {}
    for info in pkgutil.iter_modules(unstill.methods.__path__):
        module = importlib.import_module(f"unstill.methods.{info.name}")
        for value in vars(module).values():
            if isinstance(value, type) and issubclass(value, Method) and value.__module__ == module.__name__:
                if value is not Method:
                    classes[info.name] = value
    return dict(sorted(classes.items(), key=lambda item: (item[1].rank, item[0])))


def method_name(cls: type[Method]) -> str:
    """`EarlyStart` -> `early_start`."""
    return cls.__module__.rpartition(".")[2]


def places_of(cls: type[Method]) -> list[str]:
    """What a method changes: `"start"`, `"step"`, `"condition"`, in this order; read off its hooks unless declared."""
    overridden = lambda hook: getattr(cls, hook) is not getattr(Method, hook)  # noqa: E731
    return [place for place, hooks in PLACES.items() if place in cls.place or any(map(overridden, hooks))]


def changes_of(cls: type[Method]) -> str:
    """The same in words: `"start, step"`, `"start, in a loop"`, `"condition, in training"`."""
    stage = {"sampling": [], "loop": ["in a loop"], "training": ["in training"]}[cls.stage]
    return ", ".join([*places_of(cls), *stage])


def summary_of(cls: type[Method]) -> str:
    """What a method does for a user, in one line: its `summary`, or the first paragraph of its docstring."""
    return cls.summary or how_of(cls)


def how_of(cls: type[Method]) -> str:
    """How a method does it: the first paragraph of its docstring, in one line."""
    return " ".join((inspect.getdoc(cls) or "").split("\n\n")[0].split())


def build_method(cls: type[Method], given: Mapping[str, Any], defaults: Mapping[str, Any] | None = None) -> Method:
    """
    A method with the values `given`; `defaults` are for parameters that are not given: a model's own statistics, its
    best start.

    Raises:
        UnstillError: a parameter without any value, or what the method itself refuses.
    """
    values = dict(given)
    known = parameters_of(cls)
    for name, default in (defaults or {}).items():
        level_given = name in LEVEL_PARAMETERS and not LEVEL_PARAMETERS.isdisjoint(given)
        if name in known and name not in values and not level_given:
            values[name] = default
    required = [parameter.name for parameter in known.values() if parameter.required and parameter.name not in values]
    if required:
        name = method_name(cls)
        raise UnstillError(f"The method {name} needs {' and '.join(required)}: --method {name}:{required[0]}=...")
    return cls(**values)


def describe_method(method: Method) -> dict[str, Any]:
    """Name and parameters of a method, as JSON can hold them."""
    fields = dataclasses.fields(cast(Any, method))
    parameters = {field.name: plain(getattr(method, field.name)) for field in fields}
    return {"name": method_name(type(method)), "parameters": parameters}


def plain(value: Any) -> Any:
    """A parameter as JSON can hold it."""
    if isinstance(value, LatentStatistics):
        return {"count": value.count, "shape": list(value.mean.shape), "variance": float(value.variance)}
    if isinstance(value, (tuple, list)):
        return [plain(item) for item in value]
    return value if isinstance(value, (str, int, float, type(None))) else str(value)
