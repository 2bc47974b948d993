"""All nodes, in the order of their menu."""

from .attention import ReferenceBias
from .condition import ConditionAmplitude, ConditionNoise
from .frequency_noise import FrameInitNoise, FreeInitNoise
from .guidance import LowPassGuidance, NoiseRectification
from .motion import MotionScore
from .noise import AnalyticInitNoise, ProgressiveNoise
from .probe import LeakProbe
from .start import EarlyStart


NODES = (
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
