"""Progress of long computations: the types of callbacks that it is reported to, and durations in words."""

import math
from collections.abc import Callable


StepProgress = Callable[[int, int], None]
"""Called with (steps done, total)."""
StageProgress = Callable[[str, int, int], None]
"""Called with (stage, steps done, total)."""
FigureProgress = Callable[[str, int, int, str], None]
"""Called with (stage, steps done, total, text with current figures such as the loss)."""


def time_left(seconds: float) -> str:
    """A duration in the largest two units, rounded up: `3 h 20 min`, `45 s`."""
    whole = math.ceil(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes = math.ceil(whole / 60)
    hours, days = minutes // 60, minutes // 1440
    if minutes < 60:
        return f"{minutes} min"
    return f"{hours} h {minutes % 60} min" if days == 0 else f"{days} d {hours % 24} h"
