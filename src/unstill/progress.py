"""Progress of long computations: the types of callbacks that it is reported to, durations in words, estimates."""

import math
import time
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


class TimeEstimate:
    """
    Passes the progress of equal pieces of work on, and after the first of them tells how long the others will take.

    Args:
        progress: called with (pieces done, total).
        tell: called with a sentence.
        piece, pieces: what to call them, "video" and "videos".
        limit: seconds; where the others take longer, `advice` is told too.
        advice: a sentence.
    """

    def __init__(
        self,
        progress: StepProgress | None,
        tell: Callable[[str], None],
        *,
        piece: str,
        pieces: str,
        limit: float = math.inf,
        advice: str = "",
    ) -> None:
        self._progress, self._tell, self._names = progress, tell, (piece, pieces)
        self._limit, self._advice = limit, advice
        self._told = False
        self.start()

    def start(self) -> None:
        """Sets the beginning of the first piece to now."""
        self._began = time.perf_counter()

    def __call__(self, done: int, total: int) -> None:
        if self._progress is not None:
            self._progress(done, total)
        if self._told or done >= total:
            return
        self._told = True
        seconds, left = time.perf_counter() - self._began, total - done
        piece, pieces = self._names
        self._tell(
            f"A {piece} takes {time_left(seconds)}: {time_left(left * seconds)} for the {left} {pieces} still to make."
        )
        if left * seconds > self._limit:
            self._tell(self._advice)
