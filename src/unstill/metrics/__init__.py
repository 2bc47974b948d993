"""Metrics: how much a video moves, how close it stays to its image, how good it is. Imported on first use."""

from __future__ import annotations

import importlib
from typing import Any


_HOME = {
    name: module
    for module, names in {
        "affinity": "affinity_coefficients motion_affinity motion_level",
        "c3d": "C3D",
        "camera": "MotionParts fit_affine motion_parts",
        "consistency": "frame_consistency image_consistency image_fidelity temporal_coherence temporal_flickering "
        "text_alignment",
        "encoders": "FrameEncoder aesthetic_quality",
        "features": "ProxyFeatures VideoFeatures",
        "fidelity": "first_frame_error proxy_coherence proxy_colour_fidelity proxy_edge_fidelity "
        "proxy_structure_fidelity ssim",
        "flow": "flow_engine optical_flow",
        "frechet": "frechet_distance frechet_from_moments inception_score",
        "i3d": "I3D",
        "inputs": "EvaluationSettings",
        "motion": "MotionResponse is_dynamic motion_response motion_score pair_motion top_motion",
        "onset": "motion_onset onset_time",
        "registry": "SetScore Value metric metric_group set_metric",
        "report": "EvaluationReport MetricScore",
        "torchmetrics_wrappers": "FrechetVideoDistance VideoInceptionScore VideoMean",
        "raft": "RAFT RaftFlow",
        "record_cache": "cached_features",
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
