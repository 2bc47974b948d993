"""The progress of any diffusers pipeline, step by step, reported to a function in place of a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def report_steps(pipe: Any, report: Callable[[int, int], None]) -> Iterator[None]:
    """
    Reports the denoising steps of every call of `pipe` inside the block; nothing is written to a terminal.

    The pipeline's own `progress_bar` is replaced: every pipeline has one, and not every one has a step callback. An
    exception that `report` raises ends the call.

    Args:
        pipe: a diffusers pipeline.
        report: called with (steps done, steps in all), first with (0, steps in all).
    """

    class Bar:
        """What pipelines use of tqdm: iteration, `update`, and the context manager."""

        def __init__(self, iterable: Any = None, total: int | None = None) -> None:
            self._iterable, self._done = iterable, 0
            self._total = total or len(iterable)
            report(0, self._total)

        def __enter__(self) -> Bar:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def __iter__(self) -> Iterator[Any]:
            for item in self._iterable:
                yield item
                self.update()

        def update(self, steps: int = 1) -> None:
            self._done += steps
            report(self._done, self._total)

    attributes = vars(pipe)
    before = attributes.get("progress_bar")
    attributes["progress_bar"] = Bar
    try:
        yield
    finally:
        if before is None:
            del attributes["progress_bar"]
        else:
            attributes["progress_bar"] = before
