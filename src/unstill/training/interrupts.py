"""Ctrl-C, and the SIGTERM of a cluster, end a run after the step that is under way, with a checkpoint of it."""

from __future__ import annotations

import signal
import sys
import threading
import time
from types import FrameType

import torch
from accelerate import Accelerator

from unstill.errors import Terminated


SECONDS_APART = 1.0
"""Signals that come sooner after the first are the same one: a terminal sends it, and so does `accelerate launch`."""


class Stopping:
    """
    A context in which the first signal only asks to stop, and a second one stops at once.

    Elsewhere than in the main thread, which alone may handle signals, nothing is changed.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self._accelerator = accelerator
        self._asked: float | None = None  # when
        self._error: type[KeyboardInterrupt] = KeyboardInterrupt
        self._before: dict[int, signal._HANDLER] = {}

    def __enter__(self) -> Stopping:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def agreed(self) -> bool:
        """Whether any process was asked to; called by all of them after the same step."""
        if self._accelerator.num_processes == 1:
            return self._asked is not None
        asked = torch.tensor([float(self._asked is not None)], device=self._accelerator.device)
        return bool(self._accelerator.reduce(asked, "sum") > 0)

    def error(self, words: str) -> KeyboardInterrupt:
        """What ends the run: `Terminated` after SIGTERM."""
        return self._error(words)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._asked is None:
            self._asked = now
            self._error = Terminated if number == signal.SIGTERM else KeyboardInterrupt
            if self._accelerator.is_main_process:
                print("Stopping after this step; again to stop at once.", file=sys.stderr, flush=True)
        elif now - self._asked > SECONDS_APART:
            raise self.error("Stopped; the same command goes on from the last checkpoint.")
