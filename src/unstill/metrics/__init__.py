"""How much a video moves, how true it stays to its image, how good it is. Names are imported on first use."""

from __future__ import annotations

import importlib
from typing import Any


_HOME = {
    "motion_score": "motion",
    "pair_motion": "motion",
    "optical_flow": "flow",
    "first_frame_error": "fidelity",
    "proxy_coherence": "fidelity",
    "proxy_colour_fidelity": "fidelity",
    "proxy_edge_fidelity": "fidelity",
    "proxy_structure_fidelity": "fidelity",
    "ssim": "fidelity",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
