"""The syntax of settings to compare: methods by name, several values of a parameter, combined methods."""

from __future__ import annotations

import itertools
import re

from unstill.errors import UnstillError


PLAIN = "plain"
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", re.IGNORECASE)


def expand(text: str) -> list[str]:
    """
    Expands a text into single settings.

    `early-start:sigma=50|20|10`, or `early-start:sigma=50,20,10` where the values are numbers, gives three settings;
    two such parameters give a grid. `a:x=1+b` combines two methods, in this order; `plain` is no method.

    >>> expand("early-start:sigma=50|20+noise-rectification")
    ['early-start:sigma=50+noise-rectification', 'early-start:sigma=20+noise-rectification']

    Raises:
        UnstillError: an empty part, or a value missing.
    """
    return ["+".join(parts) for parts in itertools.product(*(_expand_method(part, text) for part in _methods(text)))]


def split(setting: str) -> list[str]:
    """The methods of one expanded setting; none for `plain`."""
    return [] if setting == PLAIN else _methods(setting)


def _methods(text: str) -> list[str]:
    """Splits at plus signs, except those of exponents such as 1e+2."""
    return [part.strip() for part in re.split(r"(?<![\d.][eE])\+", text)]


def _expand_method(text: str, whole: str) -> list[str]:
    name, _, rest = text.partition(":")
    choices: list[list[str]] = []
    for part in filter(None, (piece.strip() for piece in rest.split(","))):
        if _NUMBER.fullmatch(part) and choices and "=" in choices[-1][0]:
            key = choices[-1][0].partition("=")[0]
            choices[-1].append(f"{key}={part}")
            continue
        key, equals, values = part.partition("=")
        choices.append([f"{key}{equals}{value.strip()}" for value in values.split("|")])
    if not name or any(option.endswith("=") for options in choices for option in options):
        raise UnstillError(f"{whole!r} is not a setting; write, for example, early-start:sigma=50|20, or plain.")
    return [name + (":" if chosen else "") + ",".join(chosen) for chosen in itertools.product(*choices)]
