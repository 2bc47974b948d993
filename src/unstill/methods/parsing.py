"""Methods as text: `name`, `name:key=value,key=value` or `name:preset`."""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
import types
import typing
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, Union

from unstill.errors import UnstillError, shown
from unstill.latent_statistics import LatentStatistics
from unstill.methods.base import Method
from unstill.methods.registry import build_method, method_classes


def parse_method(text: str, defaults: dict[str, Any] | None = None) -> Method:
    """
    The method that `text` describes: `name`, `name:key=value,key=value` or `name:preset`.

    `defaults` gives values for parameters that `text` leaves out: a model's own statistics, its best start.

    Raises:
        UnstillError: an unknown name or key, a value of the wrong type, or what the method itself refuses.
    """
    name, _, rest = text.partition(":")
    name = name.strip().lower().replace("-", "_")
    known = method_classes()
    if name not in known:
        raise UnstillError(f"There is no method {shown(name)}{_did_you_mean(name, known)}")
    cls = known[name]
    values, presets = parse_values(cls, name, rest, cls.presets)
    if len(presets) > 1:
        raise UnstillError(f"--method {shown(text)} names {len(presets)} presets ({', '.join(presets)}); name one.")
    preset = cls.presets[presets[0]] if presets else {}
    return build_method(cls, {**preset, **values}, defaults)


def parse_values(cls: type, name: str, text: str, words: Iterable[str] = ()) -> tuple[dict[str, Any], list[str]]:
    """
    Fields of the dataclass `cls` from `key=value,key=value`, and those of the known `words` that stand between them.

    Raises:
        UnstillError: an unknown key or word, or a value that the field's annotation does not allow.
    """
    hints = typing.get_type_hints(cls)
    fields = {field.name: hints[field.name] for field in dataclasses.fields(cls)}
    values: dict[str, Any] = {}
    found: list[str] = []
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        key, equals, value = (side.strip() for side in part.partition("="))
        if not equals and key in words:
            found.append(key)
        elif not equals:
            presets = f" nor one of its presets ({', '.join(words)})" if words else ""
            raise UnstillError(f"{shown(part)} is not a setting of {name}, such as {next(iter(fields))}=...{presets}.")
        elif key not in fields:
            raise UnstillError(f"{name} has no parameter {shown(key)}{_did_you_mean(key, fields)}")
        else:
            values[key] = _parse(value, fields[key], f"{name}:{key}")
    return values, found


def _did_you_mean(word: str, known: Iterable[str]) -> str:
    known = list(known)
    close = difflib.get_close_matches(word[:80], known, n=1)
    listed = f"known: {', '.join(known)}." if known else "it has none."
    return f"; did you mean {close[0]!r}? {listed[0].upper()}{listed[1:]}" if close else f"; {listed}"


def _parse(value: str, kind: Any, where: str) -> Any:
    """`value` as the annotation `kind` asks; the first alternative of a union that fits wins."""
    alternatives = typing.get_args(kind) if typing.get_origin(kind) in (Union, types.UnionType) else (kind,)
    for alternative in alternatives:
        if alternative is type(None) and value.lower() in ("none", ""):
            return None
        if typing.get_origin(alternative) is Literal and value in map(str, typing.get_args(alternative)):
            return next(choice for choice in typing.get_args(alternative) if str(choice) == value)
        if alternative is bool and value.lower() in ("true", "yes", "1", "false", "no", "0"):
            return value.lower() in ("true", "yes", "1")
        if alternative is LatentStatistics:
            return LatentStatistics.load(Path(value))
        if alternative in (int, float):
            if (number := _number(value, alternative)) is not None:
                return number
            continue
        if typing.get_origin(alternative) in (tuple, Sequence):
            kinds = typing.get_args(alternative)
            parts = value.split(":")
            if typing.get_origin(alternative) is tuple and len(parts) != len(kinds):
                continue
            return tuple(_parse(part, kinds[0], where) for part in parts)
        if alternative is str:
            return value
    raise UnstillError(f"{where} takes {_words(alternatives)}, not {shown(value)}.")


def _number(value: str, kind: type) -> int | float | None:
    """A finite number in ASCII digits; `None` for anything else. `int` and `float` take digits of every script."""
    if kind is int:
        return int(value) if re.fullmatch("[+-]?[0-9]{1,18}", value) else None
    try:
        number = float(value) if value.isascii() and "_" not in value else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _words(alternatives: tuple[Any, ...]) -> str:
    words = []
    for alternative in alternatives:
        if typing.get_origin(alternative) is Literal:
            words.append("one of " + ", ".join(map(str, typing.get_args(alternative))))
        elif typing.get_origin(alternative) in (tuple, Sequence):
            words.append("numbers with ':' between them, as 0:0.6")
        elif alternative is not type(None):
            names = {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}
            words.append(names.get(alternative, getattr(alternative, "__name__", str(alternative))))
    return " or ".join(words)
