"""What every verb needs: other libraries are kept quiet, and results say where they come from."""

from __future__ import annotations

import platform
import shlex
import sys
from typing import Any

from unstill.lab.provenance import versions


def hush(bars: bool = False) -> None:
    """Leaves standard error to this program: no warnings of diffusers and transformers, their bars only if asked."""
    import diffusers.utils.logging
    import transformers.utils.logging

    for library in (diffusers.utils.logging, transformers.utils.logging):
        library.set_verbosity_error()
        if not bars:
            library.disable_progress_bar()


def provenance() -> dict[str, Any]:
    """The command line, and the versions of everything that decides the result."""
    return {
        "command": shlex.join(["unstill", *sys.argv[1:]]),
        "versions": versions(),
        "platform": platform.platform(),
    }
