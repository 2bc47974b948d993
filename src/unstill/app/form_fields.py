"""The parameters of methods as fields of a form, read off the dataclasses."""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
import typing
from typing import Any, Literal, Union

from unstill.errors import UnstillError
from unstill.hooks.compatibility import refusals
from unstill.latent_statistics import LatentStatistics
from unstill.methods.base import Method
from unstill.methods.registry import LEVELS, method_classes


LONGEST = 200
"""Characters of one typed parameter."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Field:
    """One parameter of one method; `numbers` are written with ':' between them. Empty stands for the default."""

    method: str
    name: str
    kind: Literal["switch", "choice", "whole", "number", "numbers"]
    default: Any
    choices: tuple[str, ...] = ()
    about: str = ""

    def shown(self) -> Any:
        """The default as the form shows it."""
        if self.kind == "numbers" and self.default is not None:
            return _written(self.default)
        return self.default

    def read(self, value: Any) -> Any:
        """The parameter from what a person set; `None` if it stays the default."""
        if value is None or value == "" or value == self.shown():
            return None
        if isinstance(value, str) and len(value) > LONGEST:
            raise UnstillError(f"{self.name} of {self.method} has up to {LONGEST} characters, not {len(value)}.")
        if self.kind == "switch":
            return bool(value)
        if self.kind == "choice":
            if value not in self.choices:
                raise UnstillError(f"{self.name} of {self.method} is one of {', '.join(self.choices)}, not {value!r}.")
            return value
        try:
            if self.kind == "numbers":
                numbers = tuple(float(part) for part in str(value).split(":"))
                return numbers if len(numbers) > 1 else numbers[0]
            number = float(value)
            if self.kind == "whole" and number != int(number):
                raise ValueError
            return int(number) if self.kind == "whole" else number
        except (TypeError, ValueError, OverflowError) as error:
            kind = {"whole": "a whole number", "number": "a number"}.get(self.kind, "numbers such as 0:0.6")
            raise UnstillError(f"{self.name} of {self.method} is {kind}, not {value!r}.") from error


def offered(pipeline: str) -> dict[str, type[Method]]:
    """The methods that work on a pipeline class, by name."""
    refused = refusals().get(pipeline, {})
    return {name: cls for name, cls in method_classes().items() if not refused.get(cls.__name__, "not there")}


def form() -> dict[str, list[Field]]:
    """The fields of every method that works on any pipeline."""
    anywhere = {name for table in refusals().values() for name, reason in table.items() if not reason}
    return {name: fields_of(name, cls) for name, cls in method_classes().items() if cls.__name__ in anywhere}


def fields_of(method: str, cls: type[Method]) -> list[Field]:
    """The fields of a method without its statistics: those come with the model, never from a path that is typed."""
    hints, about = typing.get_type_hints(cls), _about(cls)
    made = []
    for field in dataclasses.fields(typing.cast(Any, cls)):
        kinds = _alternatives(hints[field.name])
        if LatentStatistics in kinds:
            continue
        choices: tuple[str, ...] = ()
        literal = next((kind for kind in kinds if typing.get_origin(kind) is Literal), None)
        if literal is not None:
            kind, choices = "choice", typing.get_args(literal)
        elif bool in kinds:
            kind = "switch"
        elif any(typing.get_origin(one) is not None for one in kinds):  # tuples and sequences
            kind = "numbers"
        else:
            kind = "number" if float in kinds else "whole"
        words = "Empty: follows the Motion slider." if field.name in LEVELS else about.get(field.name, "")
        made.append(
            Field(
                method=method,
                name=field.name,
                kind=typing.cast(Any, kind),
                default=field.default,
                choices=choices,
                about=words,
            )
        )
    return made


def _alternatives(kind: Any) -> tuple[Any, ...]:
    return typing.get_args(kind) if typing.get_origin(kind) in (Union, types.UnionType) else (kind,)


def _written(value: Any) -> str:
    return ":".join(f"{number:g}" for number in value) if isinstance(value, (tuple, list)) else f"{value:g}"


def _about(cls: type) -> dict[str, str]:
    """What the docstring's `Args:` say, by name, in one line each."""
    _, _, listed = (inspect.getdoc(cls) or "").partition("Args:\n")
    found = re.findall(r"^    (\w+): (.*(?:\n     +.*)*)", listed, re.MULTILINE)
    return {name: " ".join(words.split()).replace("`", "") for name, words in found}
