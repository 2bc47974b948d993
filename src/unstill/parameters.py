"""
The parameters of a dataclass, such as a method or a recipe, from its annotations.

`--method name:key=value`, `unstill train pico:key=value` and the app's form all read values with `Parameter.parse`;
pydantic converts them.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import re
import types
import typing
from collections.abc import Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, Union

from unstill.errors import UnstillError, shown


if TYPE_CHECKING:
    from pydantic import TypeAdapter

ValueKind = Literal["switch", "choice", "whole", "number", "numbers", "text"]
KIND_NAMES: dict[ValueKind, str] = {
    "switch": "true or false",
    "whole": "a whole number",
    "number": "a number",
    "numbers": "finite numbers with ':' between them, as 0:0.6",
    "text": "a word",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Parameter:
    """
    One field of a dataclass.

    Attributes:
        name: of the field.
        annotation: its type.
        default: its default value; `dataclasses.MISSING` if it is required.
        about: its description under `Args:` in the docstring of the class, in one line.
    """

    name: str
    annotation: Any
    default: Any
    about: str = ""

    @property
    def required(self) -> bool:
        """Whether a value must be given."""
        return self.default is dataclasses.MISSING

    @property
    def alternatives(self) -> tuple[Any, ...]:
        """The members of a union; the annotation itself if it is none."""
        union = typing.get_origin(self.annotation) in (Union, types.UnionType)
        return typing.get_args(self.annotation) if union else (self.annotation,)

    @property
    def choices(self) -> tuple[str, ...]:
        """The values of a `Literal`."""
        literals = [kind for kind in self.alternatives if typing.get_origin(kind) is Literal]
        return typing.get_args(literals[0]) if literals else ()

    @property
    def kind(self) -> ValueKind:
        """The kind of value it takes; `"numbers"` may also take a single number."""
        origins = [typing.get_origin(kind) for kind in self.alternatives]
        if Literal in origins:
            return "choice"
        if tuple in origins or Sequence in origins:
            return "numbers"
        kinds: tuple[tuple[type, ValueKind], ...] = ((bool, "switch"), (float, "number"), (int, "whole"))
        return next((name for kind, name in kinds if kind in self.alternatives), "text")

    @property
    def takes(self) -> str:
        """A description of the values it takes, for messages."""
        if self.kind == "numbers":
            single = f"{KIND_NAMES['number']} or " if float in self.alternatives else ""
            pairs = [kind for kind in self.alternatives if typing.get_origin(kind) is tuple]
            count = f"{len(typing.get_args(pairs[0]))} " if pairs else ""
            return f"{single}{count}{KIND_NAMES['numbers']}"
        return f"one of {', '.join(self.choices)}" if self.choices else KIND_NAMES[self.kind]

    def parse(self, value: Any, where: str) -> Any:
        """
        Converts a value that was typed or set in a form.

        Args:
            value: text (several numbers with ':' between them; "none" where `None` is allowed), or a number or bool.
            where: name of the parameter in messages.

        Raises:
            UnstillError: a value that the annotation does not allow.
        """
        from pydantic import ValidationError

        if isinstance(value, str) and type(None) in self.alternatives and value.lower() in ("none", ""):
            return None
        for candidate in self._candidates(value):
            try:
                parsed = _adapter(self.annotation).validate_python(candidate)
            except ValidationError:
                continue
            return tuple(parsed) if isinstance(parsed, list) else parsed
        raise UnstillError(f"{where} takes {self.takes}, not {shown(value)}.")

    def _candidates(self, value: Any) -> list[Any]:
        if not isinstance(value, str):
            return [value] if isinstance(value, bool | int | float) else []
        if self.kind in ("whole", "number", "numbers"):
            if not value.isascii() or "_" in value:  # pydantic also reads 1_000, and int() digits of every script
                return []
            return [value, value.split(":")] if self.kind == "numbers" else [value]
        return [value]


def parameters_of(cls: type) -> dict[str, Parameter]:
    """The fields of a dataclass by name."""
    hints, about = typing.get_type_hints(cls), descriptions(cls)
    return {
        field.name: Parameter(field.name, hints[field.name], _default(field), about.get(field.name, ""))
        for field in dataclasses.fields(cls)
    }


def parse_values(cls: type, name: str, text: str, words: Iterable[str] = ()) -> tuple[dict[str, Any], list[str]]:
    """
    Parses `key=value,key=value`, in which `words` (names of presets) may occur, too.

    Returns:
        Values of fields of the dataclass `cls`, and the words that occur.

    Raises:
        UnstillError: an unknown key or word, or a value that the field's annotation does not allow.
    """
    parameters = parameters_of(cls)
    values: dict[str, Any] = {}
    given_words: list[str] = []
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        key, equals, value = (side.strip() for side in part.partition("="))
        if not equals and key in words:
            given_words.append(key)
        elif not equals:
            presets = f" nor one of its presets ({', '.join(words)})" if words else ""
            raise UnstillError(
                f"{shown(part)} is not a setting of {name}, such as {next(iter(parameters))}=...{presets}."
            )
        elif key not in parameters:
            raise UnstillError(f"{name} has no parameter {shown(key)}{did_you_mean(key, parameters)}")
        else:
            values[key] = parameters[key].parse(value, f"{name}:{key}")
    return values, given_words


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown word: the most similar known one, and all known ones."""
    known = list(known)
    close = difflib.get_close_matches(word[:80], known, n=1)
    listed = f"known: {', '.join(known)}." if known else "it has none."
    return f"; did you mean {close[0]!r}? {listed[0].upper()}{listed[1:]}" if close else f"; {listed}"


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


@cache
def _adapter(annotation: Any) -> TypeAdapter[Any]:
    from pydantic import ConfigDict, TypeAdapter

    return TypeAdapter(annotation, config=ConfigDict(allow_inf_nan=False, arbitrary_types_allowed=True))


def descriptions(cls: type) -> dict[str, str]:
    """The descriptions of arguments under `Args:` in the docstring, in one line each."""
    _, _, listed = (inspect.getdoc(cls) or "").partition("Args:\n")
    entries = re.findall(r"^    (\w+): (.*(?:\n     +.*)*)", listed, re.MULTILINE)
    return {name: " ".join(text.split()).replace("`", "") for name, text in entries}
