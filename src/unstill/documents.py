"""Parsing of files and of user input: checked against a pydantic model or a pattern before anything uses it."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, JsonValue, RootModel, TypeAdapter, ValidationError

from unstill.errors import UnstillError, shown


T = TypeVar("T", bound=BaseModel)
D = TypeVar("D")
LARGEST_SIDE = 16_384
"""Longest side of a video, in pixels, that can be requested."""


class Stored(BaseModel):
    """Base of models of stored files: values of exactly the declared types, finite, no unknown keys."""

    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, allow_inf_nan=False, populate_by_name=True, protected_namespaces=()
    )


class JSONObject(RootModel[dict[str, JsonValue]]):
    """Any JSON object."""


def read_json(path: Path, kind: type[T], advice: str) -> T:
    """
    The content of a JSON file.

    Args:
        kind: the pydantic model of the content.
        advice: what to do about a damaged file; ends the message.

    Raises:
        UnstillError: a file that cannot be read, is no JSON, or does not match the model.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UnstillError(f"{path} cannot be read ({error.strerror}); {advice}.") from error
    return parse_json(content, kind, f"{path}", advice)


def parse_json(content: bytes | str, kind: type[T], where: str, advice: str) -> T:
    """As `read_json`, for text that was already read; `where` begins the message."""
    try:
        return kind.model_validate_json(content, strict=True)
    except ValidationError as error:
        raise UnstillError(f"{where} is damaged ({first_fault(error)}); {advice}.") from error


def build_dataclass(cls: type[D], values: Mapping[str, Any], where: str) -> D:
    """
    Builds an instance of a dataclass, whose annotations may hold bounds (`Annotated[int, Field(ge=1)]`).

    Raises:
        UnstillError: a value that does not match its annotation; the message begins with `where`.
    """
    try:
        return TypeAdapter(cls).validate_python(dict(values))
    except ValidationError as error:
        raise UnstillError(f"{where}: {first_fault(error)}.") from error


def parse_size(text: str) -> tuple[int, int]:
    """Parses `"512x320"`, width first, into (height, width); raises `UnstillError` for anything else."""
    sides = re.fullmatch("([1-9][0-9]{0,4})x([1-9][0-9]{0,4})", text.lower())
    if sides is None or max(map(int, sides.groups())) > LARGEST_SIDE:
        raise UnstillError(
            f"A size is WIDTHxHEIGHT in pixels, for example 512x320, each at most {LARGEST_SIDE}, not {shown(text)}."
        )
    return int(sides[2]), int(sides[1])


def first_fault(error: ValidationError) -> str:
    """The first fault, as text of bounded length."""
    return fault_of(error.errors(include_url=False)[0])


def fault_of(fault: Any) -> str:
    """One entry of `ValidationError.errors()`, as text of bounded length."""
    name = ".".join(shown(part).strip("'\"") for part in fault["loc"])
    message: str = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "missing":
        return f"{name} is missing"
    if fault["type"] == "extra_forbidden":
        return f"{name} is not known"
    if fault["type"] == "value_error":
        return f"{name}: {message}" if name else message
    if fault["type"] == "json_invalid":
        return message[0].lower() + message[1:]
    if fault["type"] in ("model_type", "dataclass_type", "dict_type"):
        message = "Should be a group of keys and their values"
    if fault["type"] in ("list_type", "tuple_type"):
        message = "Should be a list, such as [a, b]"
    return f"{name or 'it'} is {shown(fault['input'])}: {message[0].lower() + message[1:]}"
