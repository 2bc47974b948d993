"""Plain names for what the page shows: methods, their values, and sentences of the library that name classes."""

import dataclasses
import re
from typing import Any, cast

from unstill.latent_statistics import LatentStatistics
from unstill.methods.base import Method
from unstill.methods.registry import method_classes, method_name


NAMES = {"ni_vsds": "NI-VSDS"}  # of the others the name of the file, in words


def method_title(name: str) -> str:
    """The name of a method on the page: `early_start` is "Early start"."""
    return NAMES.get(name, name.replace("_", " ").capitalize())


def value_title(name: str) -> str:
    """The name of a parameter: `first_network_only` is "first network only"."""
    return name.replace("_", " ")


def brief(method: Method) -> str:
    """A method with the values that differ from the defaults, without latent statistics: "Early start, sigma 20"."""
    changed = [
        f"{value_title(field.name)} {_short(value)}"
        for field in dataclasses.fields(cast(Any, method))
        if (value := getattr(method, field.name)) != field.default
        and not isinstance(value, LatentStatistics)
        and field.name != "resize"
    ]
    return ", ".join([method_title(method_name(type(method))), *changed])


def sentence(text: str) -> str:
    """A message of the library for the page: without names of classes and of options of the command."""
    for name, cls in method_classes().items():
        text = re.sub(rf"\b{cls.__name__}\b", method_title(name), text)
    changed = re.sub(r"\b\w+Pipeline\b", "the model", text)
    changed = re.sub(r"--([a-z]+(?:-[a-z]+)*)", lambda found: found[1].replace("-", " "), changed)
    return changed if changed[:1] == text[:1] else changed[:1].upper() + changed[1:]  # "pico" stays as it is


def _short(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple | list):
        return " to ".join(map(_short, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
