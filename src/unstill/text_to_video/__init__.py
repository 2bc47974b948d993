"""
From text to video through a chosen image: candidates, rewards, selection, and the two stages of I4VGen. Names are
imported on first use.

The package is not called `i4vgen`, because `unstill.i4vgen` is the function: Python puts a subpackage in the place of
such a name as soon as anything imports it.
"""

from __future__ import annotations

import importlib
from typing import Any


_HOME = {
    name: module
    for module, names in {
        "candidates": "Candidate Halving",
        "image_reward": "ImageReward",
        "result": "I4VGen",
        "rewards": "ClipReward Reward proxy reward_named",
        "pipeline": "default_reward i4vgen",
        "prompt_video": "CandidateOptions",
        "text_to_image": "TextToImage",
        "world_reward": "world",
    }.items()
    for name in names.split()
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
