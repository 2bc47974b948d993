"""VBench (Huang et al., CVPR 2024): which dimensions are offered, its normalisation and its totals.

The numbers are those of VBench's own scripts. Offered are the dimensions that need no network or one that transformers
or this package can load; a total needs all sixteen, so results of the others may be passed in from VBench itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from unstill.errors import UnstillError


@dataclass(frozen=True, slots=True)
class Dimension:
    """`low`, `high`: what VBench maps to 0 and 1. `offered_by`: the function here; empty if not offered."""

    low: float
    high: float
    weight: float = 1.0
    offered_by: str = ""
    needs: str = ""


QUALITY = {
    "subject_consistency": Dimension(0.1462, 1.0, 1.0, "frame_consistency", "facebook/dino-vitb16"),
    "background_consistency": Dimension(0.2615, 1.0, 1.0, "frame_consistency", "openai/clip-vit-base-patch32"),
    "temporal_flickering": Dimension(0.6293, 1.0, 1.0, "temporal_flickering", "nothing"),
    "motion_smoothness": Dimension(0.706, 0.9975, needs="the frame interpolation network AMT-S"),
    "dynamic_degree": Dimension(0.0, 1.0, 0.5, "is_dynamic", "RAFT, raft-things.pth"),
    "aesthetic_quality": Dimension(
        0.0, 1.0, 1.0, "aesthetic_quality", "openai/clip-vit-large-patch14, sa_0_4_vit_l_14_linear.pth"
    ),
    "imaging_quality": Dimension(0.0, 1.0, needs="the image quality network MUSIQ"),
}
SEMANTIC = {
    "object_class": Dimension(0.0, 1.0, needs="the detector GRiT"),
    "multiple_objects": Dimension(0.0, 1.0, needs="the detector GRiT"),
    "human_action": Dimension(0.0, 1.0, needs="the action classifier UMT-L/16"),
    "color": Dimension(0.0, 1.0, needs="the detector GRiT"),
    "spatial_relationship": Dimension(0.0, 1.0, needs="the detector GRiT"),
    "scene": Dimension(0.0, 0.8222, needs="the captioner Tag2Text"),
    "appearance_style": Dimension(0.0009, 0.2855, 1.0, "text_alignment", "openai/clip-vit-base-patch32"),
    "temporal_style": Dimension(0.0, 0.364, needs="the video-text network ViCLIP"),
    "overall_consistency": Dimension(0.0, 0.364, needs="the video-text network ViCLIP"),
}
DIMENSIONS = QUALITY | SEMANTIC


def normalised(scores: Mapping[str, float]) -> dict[str, float]:
    """Scores on VBench's common scale, (score - low) / (high - low), not clipped, as in its leaderboard."""
    unknown = sorted(set(scores) - set(DIMENSIONS))
    if unknown:
        raise UnstillError(f"Not dimensions of VBench: {', '.join(unknown)}.")
    limits = {name: (DIMENSIONS[name].low, DIMENSIONS[name].high) for name in scores}
    return {name: (scores[name] - low) / (high - low) for name, (low, high) in limits.items()}
