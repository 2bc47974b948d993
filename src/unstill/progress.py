"""The types of callbacks that long computations report their progress to."""

from collections.abc import Callable


StepProgress = Callable[[int, int], None]
"""Called with (steps done, total)."""
StageProgress = Callable[[str, int, int], None]
"""Called with (stage, steps done, total)."""
FigureProgress = Callable[[str, int, int, str], None]
"""Called with (stage, steps done, total, text with current figures such as the loss)."""
