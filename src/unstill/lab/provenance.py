"""The versions of everything that decides a result."""

from __future__ import annotations

import platform
from importlib.metadata import version


PACKAGES = ("unstill", "torch", "diffusers", "transformers", "numpy", "pillow", "av")


def versions() -> dict[str, str]:
    """Python's version and those of the packages that decide numbers."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}
