"""
Processes of a test's own. They are forked from a server in which everything slow is imported and nothing has run: a
fork of pytest itself inherits the locks of threads that it does not have, and blocks on the first of them.
"""

import contextlib
import multiprocessing
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch


CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["unstill.training.trainer", "unstill.lab.comparison_cells", "unstill.lab.diagnosis_run", "tests.pipelines"]
)


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
    wait_for(lambda: not process.is_alive() or made() >= count)
    time.sleep(seconds)
    kill([process])


def wait_for(condition: Callable[[], bool]) -> None:
    """Until a condition holds, for two minutes at most."""
    until = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.002)


def kill(processes: Sequence[BaseProcess]) -> None:
    """As kill -9 does."""
    for one in processes:
        one.kill()
        one.join()


def free_port() -> int:
    """
    A port on which nothing listens, below those that the system hands out by itself (from 32768 on) and drawn at
    random: a server that starts seconds later still finds it free, whatever other tests do meanwhile.
    """
    while True:
        port = random.SystemRandom().randrange(20000, 32000)
        with contextlib.suppress(OSError), socket.socket() as free:
            free.bind(("", port))
            return port


def launch_two(logs: Path, *words: Any) -> None:
    """`accelerate launch -m unstill WORDS` in two processes, which it starts on a CPU only if told of several GPUs."""
    options = ("--multi_gpu", "--num_processes", "2", "--main_process_port", str(free_port()))
    command = [sys.executable, "-m", "accelerate.commands.launch", *options, "--log_dir", str(logs), "--tee", "3"]
    # As many threads as the tests have: another number of them rounds sums differently.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(
        [*command, "-m", "unstill", *map(str, words)], env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert sorted(entry.parent.name for entry in logs.rglob("stdout.log")) == ["0", "1"]
