"""Reads YAML into plain values, without aliases, with errors in one sentence."""

from __future__ import annotations

from typing import Any

import yaml

from unstill.errors import UnstillError, first_line


class _Plain(yaml.SafeLoader):
    """YAML without aliases, a few lines of which can expand to gigabytes."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.composer.ComposerError(
                None, None, "it has an alias (*name), which recipes do not have", self.peek_event().start_mark
            )
        return super().compose_node(parent, index)


def read_yaml(text: str, where: str) -> Any:
    """
    Parses YAML into plain values.

    Args:
        text: the YAML.
        where: the beginning of error messages.

    Raises:
        UnstillError: text that is not YAML, or has aliases.
    """
    try:
        return yaml.load(text, _Plain)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" (line {mark.line + 1})" if mark is not None else ""
        problem = getattr(error, "problem", None) or first_line(error)
        raise UnstillError(f"{where} is not YAML{line}: {problem}.") from error
    except RecursionError as error:
        raise UnstillError(f"{where} is not YAML: it has too many brackets inside each other.") from error
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        # PyYAML has no error class for a tag that does not fit its value, or a date that does not exist.
        raise UnstillError(f"{where} is not YAML: a value does not fit its type.") from error
