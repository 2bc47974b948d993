"""All nodes, in the order of their menu; without those whose method the installed unstill does not have."""

from importlib.util import find_spec

from .attention import ReferenceBias
from .condition import ConditionAmplitude, ConditionNoise
from .frequency_noise import FrameInitNoise, FreeInitNoise
from .guidance import LowPassGuidance, NoiseRectification
from .motion import MotionScore
from .noise import AnalyticInitNoise, ProgressiveNoise
from .probe import LeakProbe
from .start import EarlyStart


NODES = tuple(
    node
    for node in (
        EarlyStart,
        AnalyticInitNoise,
        FrameInitNoise,
        FreeInitNoise,
        ProgressiveNoise,
        ConditionNoise,
        ConditionAmplitude,
        LowPassGuidance,
        ReferenceBias,
        NoiseRectification,
        LeakProbe,
        MotionScore,
    )
    if find_spec(getattr(node, "needs", "unstill"))
)
