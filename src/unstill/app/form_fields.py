"""The parameters of methods as fields of a form."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Container
from typing import Any

from unstill.app.words import method_title, sentence, value_title
from unstill.errors import UnstillError
from unstill.hooks.compatibility import refusals
from unstill.methods.base import Method
from unstill.methods.checks import LEVEL_PARAMETERS
from unstill.methods.registry import method_classes
from unstill.parameters import Parameter, ValueKind, parameters_of


LONGEST = 200
"""Characters of one typed parameter."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Field:
    """One parameter of one method. Several numbers are separated by ':'; an empty field is the default."""

    method: str
    parameter: Parameter

    @property
    def name(self) -> str:
        return self.parameter.name

    @property
    def kind(self) -> ValueKind:
        return self.parameter.kind

    @property
    def choices(self) -> tuple[str, ...]:
        return self.parameter.choices

    @property
    def default(self) -> Any:
        return self.parameter.default

    @property
    def about(self) -> str:
        """The description in the form, plain words first."""
        if self.name in LEVEL_PARAMETERS:
            unit = "a sigma" if self.name == "sigma" else "a share of the training time, up to 1"
            return f"Noise at which sampling begins, {unit}: the less, the more it moves. Empty: follows Motion."
        about = re.sub(r"[,;]? \(?see \w+\)?(?=[.,;]|$)", "", self.parameter.about)  # functions of the library
        return sentence(about[:1].upper() + about[1:])

    def shown(self) -> Any:
        """The default as the form shows it."""
        if isinstance(self.default, tuple | list):
            return ":".join(f"{number:g}" for number in self.default)
        return f"{self.default:g}" if self.kind == "numbers" and self.default is not None else self.default

    def read(self, value: Any) -> Any:
        """
        Converts a value of the form.

        Returns:
            The value of the parameter; `None` for the default.

        Raises:
            UnstillError: a value that the parameter does not take.
        """
        if value is None or value == "" or value == self.shown():
            return None
        where = f"{value_title(self.name)} of {method_title(self.method)}"
        if isinstance(value, str) and len(value) > LONGEST:
            raise UnstillError(f"{where} has up to {LONGEST} characters, not {len(value)}.")
        return self.parameter.parse(value, where)


def offered(pipeline: str, defaults: Container[str] = ()) -> dict[str, type[Method]]:
    """
    The methods that work on a pipeline class, by name.

    Args:
        pipeline: name of the class.
        defaults: parameters that the model has values for. Methods with a required parameter that is neither among
            them nor shown in forms are left out.
    """
    refused = refusals().get(pipeline, {})
    working = {name: cls for name, cls in method_classes().items() if not refused.get(cls.__name__, "not there")}
    return {
        name: cls
        for name, cls in working.items()
        if all(key in defaults or not parameters_of(cls)[key].required for key in cls.not_in_forms)
    }


def form() -> dict[str, list[Field]]:
    """The fields of every method that works on at least one pipeline."""
    anywhere = {name for table in refusals().values() for name, reason in table.items() if not reason}
    return {name: fields_of(name, cls) for name, cls in method_classes().items() if cls.__name__ in anywhere}


def fields_of(method: str, cls: type[Method]) -> list[Field]:
    """The fields of a method that are shown in forms."""
    shown = (parameter for name, parameter in parameters_of(cls).items() if name not in cls.not_in_forms)
    return [Field(method=method, parameter=parameter) for parameter in shown]
