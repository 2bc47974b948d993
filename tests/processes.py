"""
Processes of a test's own. They come from a server that has loaded torch and nothing has run in: a fork of pytest itself
inherits the locks of threads that it does not have, and stands still for ever on the first of them.
"""

import multiprocessing
import time
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from typing import Any

import torch


CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["unstill.training.trainer", "unstill.lab.compare", "unstill.lab.diagnosis_run"])


def start(work: Callable[..., None], *arguments: Any) -> BaseProcess:
    """`work(*arguments)` in another process, which ends with this one at the latest."""
    process = CONTEXT.Process(target=_work, args=(work, arguments), daemon=True)
    process.start()
    return process


def _work(work: Callable[..., None], arguments: Sequence[Any]) -> None:
    torch.set_num_threads(1)
    work(*arguments)


def finish(processes: Sequence[BaseProcess], seconds: float = 120, code: int = 0) -> None:
    """Waits for all; each has to end well, and none outlives the wait."""
    try:
        for one in processes:
            one.join(seconds)
        assert [one.exitcode for one in processes] == [code] * len(processes)
    finally:
        kill(processes)


def kill_after(process: BaseProcess, made: Callable[[], int], count: int, seconds: float) -> None:
    """As kill -9 does, `seconds` after `count` things were made, or when the process is done before."""
    until = time.monotonic() + 120
    while process.is_alive() and made() < count:
        assert time.monotonic() < until
        time.sleep(0.002)
    time.sleep(seconds)
    kill([process])


def kill(processes: Sequence[BaseProcess]) -> None:
    """As kill -9 does."""
    for one in processes:
        one.kill()
        one.join()
