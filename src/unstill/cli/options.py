"""Parsers of option values such as `--levels 200,50,10` and `--size 512x320`."""

from __future__ import annotations

import math

from unstill.documents import parse_size as parse_size
from unstill.errors import UnstillError, shown
from unstill.methods.parsing import parse_method as parse_method
from unstill.methods.registry import describe_method as describe_method
from unstill.methods.registry import method_classes as method_classes
from unstill.methods.registry import plain as plain
from unstill.parameters import parse_values as parse_values


def parse_numbers(text: str, where: str) -> tuple[float, ...]:
    """The falling numbers above 0 in a text such as `"200,50,10"`; `where` names the option in errors."""
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    possible = numbers and all(0 < number < math.inf for number in numbers)
    if not possible or any(b >= a for a, b in zip(numbers, numbers[1:], strict=False)):
        raise UnstillError(
            f"{where} takes falling numbers above 0 with commas, for example 200,50,10, not {shown(text)}."
        )
    return numbers


def wanted_size(text: str | None, model: str) -> tuple[int, int] | None:
    """
    The (height, width) of `--size`; `None` without it.

    Raises:
        UnstillError: `text` is no size, or the model does not support it.
    """
    if text is None:
        return None
    from unstill.models.registry import check_video_size

    size = parse_size(text)
    check_video_size(model, size)
    return size
