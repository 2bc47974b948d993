"""A progress bar per stage on a terminal; elsewhere a line at most every ten seconds."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn


SECONDS_BETWEEN_LINES = 10.0


class ProgressBars:
    """
    Prints progress to standard error; nothing if `quiet`.

    Called with the stage, the steps done, their total, and a text with current figures, such as the loss.
    """

    def __init__(self, quiet: bool = False) -> None:
        self._quiet = quiet
        self._last = 0.0
        self._tasks: dict[str, TaskID] = {}
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}"),
            console=Console(stderr=True),
            disable=quiet or not sys.stderr.isatty(),
        )

    def __enter__(self) -> ProgressBars:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bars.stop()

    def __call__(self, stage: str, done: int, total: int, figures: str = "") -> None:
        if not self._bars.disable:
            if stage not in self._tasks:
                self._tasks[stage] = self._bars.add_task(stage, total=total, figures=figures)
            self._bars.update(self._tasks[stage], completed=min(done, total))
            if figures:
                self._bars.update(self._tasks[stage], figures=figures)
        elif not self._quiet:
            now = time.monotonic()
            if done >= total or now - self._last >= SECONDS_BETWEEN_LINES:
                self._last = now
                print(f"{stage} {min(done, total)}/{total} {figures}".rstrip(), file=sys.stderr, flush=True)
