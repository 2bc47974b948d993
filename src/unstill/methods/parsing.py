"""Methods as text: `name`, `name:key=value,key=value` or `name:preset`."""

from __future__ import annotations

from typing import Any

from unstill.errors import UnstillError, shown
from unstill.methods.base import Method
from unstill.methods.registry import build_method, method_classes
from unstill.parameters import did_you_mean, parse_values


def parse_method(text: str, defaults: dict[str, Any] | None = None) -> Method:
    """
    The method that `text` describes: `name`, `name:key=value,key=value` or `name:preset`. The name is that of the file
    (`early_start`, `early-start`) or of the class (`EarlyStart`).

    `defaults` gives values for parameters that `text` leaves out: a model's own statistics, its best start.

    Raises:
        UnstillError: an unknown name or key, a value of the wrong type, or what the method itself refuses.
    """
    name, _, rest = text.partition(":")
    known = method_classes()
    by_class = {cls.__name__.lower(): name for name, cls in known.items()}
    name = name.strip().lower().replace("-", "_")
    name = by_class.get(name, name)
    if name not in known:
        raise UnstillError(f"There is no method {shown(name)}{did_you_mean(name, known)}")
    cls = known[name]
    values, presets = parse_values(cls, name, rest, cls.presets)
    if len(presets) > 1:
        raise UnstillError(f"--method {shown(text)} names {len(presets)} presets ({', '.join(presets)}); name one.")
    preset = cls.presets[presets[0]] if presets else {}
    return build_method(cls, {**preset, **values}, defaults)
