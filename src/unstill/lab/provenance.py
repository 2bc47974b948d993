"""The versions of the software that a result depends on."""

from __future__ import annotations

import platform
from importlib.metadata import version


PACKAGES = ("unstill", "torch", "diffusers", "transformers", "numpy", "pillow", "av")


def versions() -> dict[str, str]:
    """The versions of Python and of `PACKAGES`, by name."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}
