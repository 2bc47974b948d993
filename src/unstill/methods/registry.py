"""Every method under the name of its file: found, made from named values, written down."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache
from typing import Any, cast

import unstill.methods
from unstill.errors import UnstillError
from unstill.latent_statistics import LatentStatistics
from unstill.methods.base import Method


LEVELS = frozenset({"start", "sigma"})  # two ways to say the same noise level: one given excludes the other's default


@cache
def method_classes() -> dict[str, type[Method]]:
    """Every method of `unstill.methods` under the name of its file, e.g. `early_start`."""
    found = {}
    for info in pkgutil.iter_modules(unstill.methods.__path__):
        module = importlib.import_module(f"unstill.methods.{info.name}")
        for thing in vars(module).values():
            if isinstance(thing, type) and issubclass(thing, Method) and thing.__module__ == module.__name__:
                if thing is not Method:
                    found[info.name] = thing
    return found


def method_name(cls: type[Method]) -> str:
    """`EarlyStart` -> `early_start`."""
    return cls.__module__.rpartition(".")[2]


def build_method(cls: type[Method], given: Mapping[str, Any], defaults: Mapping[str, Any] | None = None) -> Method:
    """
    A method with the values `given`; `defaults` are for parameters that are not given: a model's own statistics, its
    best start.

    Raises:
        UnstillError: a parameter without any value, or what the method itself refuses.
    """
    values = dict(given)
    fields = dataclasses.fields(cast(Any, cls))
    for field in fields:
        if field.name in (defaults or {}) and field.name not in values:
            if field.name not in LEVELS or LEVELS.isdisjoint(given):
                values[field.name] = (defaults or {})[field.name]
    required = [
        field.name
        for field in fields
        if field.default is field.default_factory is dataclasses.MISSING and field.name not in values
    ]
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
