"""Shared by all commands: output of other libraries, messages after Ctrl-C, provenance of results."""

from __future__ import annotations

import platform
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from unstill.lab.provenance import versions


def silence_libraries(bars: bool = False) -> None:
    """Turns off warnings of diffusers and transformers, and their progress bars unless `bars`."""
    import diffusers.utils.logging
    import transformers.utils.logging

    for library in (diffusers.utils.logging, transformers.utils.logging):
        library.set_verbosity_error()
        if not bars:
            library.disable_progress_bar()


@contextmanager
def resumable() -> Iterator[None]:
    """A context in which Ctrl-C and SIGTERM end the command with a sentence that says how to resume."""
    try:
        yield
    except KeyboardInterrupt as stop:
        raise type(stop)(str(stop) or "Stopped; the same command continues from here.") from None


def provenance() -> dict[str, Any]:
    """The command line, and the versions of all libraries that affect the result."""
    return {
        "command": shlex.join(["unstill", *sys.argv[1:]]),
        "versions": versions(),
        "platform": platform.platform(),
    }
