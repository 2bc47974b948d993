"""Ctrl-C, and a cluster's SIGTERM, stop a run after the current step, with a checkpoint."""

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
"""A signal this soon after the first is a duplicate: both the terminal and `accelerate launch` send one."""


class Stopping:
    """
    A context in which the first signal requests a stop after the current step, and a second one stops immediately.

    Only the main thread can handle signals; in other threads the context has no effect.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self._accelerator = accelerator
        self._requested_at: float | None = None  # time.monotonic()
        self._error: type[KeyboardInterrupt] = KeyboardInterrupt
        self._previous: dict[int, signal._HANDLER] = {}

    def __enter__(self) -> Stopping:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def agreed(self) -> bool:
        """Whether any process received a signal; called by all processes after the same step."""
        if self._accelerator.num_processes == 1:
            return self._requested_at is not None
        requests = torch.tensor([float(self._requested_at is not None)], device=self._accelerator.device)
        return bool(self._accelerator.reduce(requests, "sum") > 0)

    def error(self, message: str) -> KeyboardInterrupt:
        """The exception that ends the run: `Terminated` after SIGTERM, else `KeyboardInterrupt`."""
        return self._error(message)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._requested_at is None:
            self._requested_at = now
            self._error = Terminated if number == signal.SIGTERM else KeyboardInterrupt
            if self._accelerator.is_main_process:
                print("Stopping after this step; again to stop at once.", file=sys.stderr, flush=True)
        elif now - self._requested_at > SECONDS_APART:
            raise self.error("Stopped; the same command resumes from the last checkpoint.")
