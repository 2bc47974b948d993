"""
What `diffusers_tests.py` runs for one file of tests: pytest three times, and what became of each test.

`python benchmarks/diffusers_plugin.py FILE RESULTS`, in the folder that holds the tests.
"""

import ast
import functools
import gc
import hashlib
import inspect
import json
import multiprocessing
import random
import sys
import textwrap
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
import torch._dynamo  # the tests reset it

from unstill import EarlyStart, UnstillError, apply
from unstill.hooks import ADAPTERS
from unstill.hooks.apply import applied_to
from unstill.hooks.scheduler_hooks import is_hooked


MODES = ("plain", "no-op", "EarlyStart")
OTHER_SEEDS = (1, 2, 3, 4, 5)  # with which tests that newly fail are run again, without methods


class Injection:
    """
    Applies methods to every supported pipeline as it is made, and again where a test gives it another scheduler, as
    the message of `apply` advises; and notes what the pipelines return.
    """

    def __init__(self, mode: str, seed: int = 0) -> None:
        self.mode, self.seed = mode, seed
        self.outputs: list[dict[str, Any]] = []
        for name in ADAPTERS:
            if (cls := getattr(diffusers, name, None)) is not None:
                self._patch(cls)

    def _patch(self, cls: Any) -> None:
        init, call, set_attribute = cls.__init__, cls.__call__, cls.__setattr__

        @functools.wraps(init)
        def patched_init(pipe: Any, *args: Any, **kwargs: Any) -> None:
            if applied_to(pipe) is None:  # else Python initialises for a second time what `type(pipe)(...)` returned
                init(pipe, *args, **kwargs)
                self._apply(pipe)

        @functools.wraps(call)
        def patched_call(pipe: Any, *args: Any, **kwargs: Any) -> Any:
            if self.seed:
                for generator in np.atleast_1d(kwargs.get("generator") or []):
                    generator.manual_seed(generator.initial_seed() % 1000 + 1000 * self.seed)
            result = call(pipe, *args, **kwargs)
            applied = applied_to(pipe)
            self.outputs.append({**_digest(result), "acted": applied is not None and applied.run is not None})
            return result

        def patched_set(pipe: Any, name: str, value: Any) -> None:
            set_attribute(pipe, name, value)
            applied = applied_to(pipe)
            if name != "scheduler" or applied is None or is_hooked(value) or value in (None, applied._own_scheduler):
                return  # the last two: `apply` and `remove` set it
            applied.remove()
            self._apply(pipe)

        cls.__init__, cls.__call__, cls.__setattr__ = patched_init, patched_call, patched_set

    def _apply(self, pipe: Any) -> None:
        if pipe.scheduler is None:  # made to encode a prompt only
            return
        if self.mode == "no-op":
            apply(pipe)
        elif self.mode == "EarlyStart":
            try:
                apply(pipe, EarlyStart(start=0.9))
            except UnstillError:  # a scheduler that is not trained on a range of times
                apply(pipe, EarlyStart(sigma=20.0))


class Recorder:
    """The pytest plugin: the same seeds for every test, and what became of it."""

    def __init__(self, injection: Injection, source: Path) -> None:
        self.injection, self.source = injection, source
        self.tests: dict[str, dict[str, Any]] = {}

    def pytest_collection_finish(self) -> None:
        gc.freeze()  # the tests collect garbage twice each, which need not look at what was imported

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self) -> None:
        random.seed(0)
        np.random.seed(0)
        torch.manual_seed(0)
        self.injection.outputs = []

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: Any, call: Any) -> Iterator[None]:
        report = yield
        if report.when == "call" or not report.passed:
            entry = {"outcome": report.outcome, "outputs": self.injection.outputs}
            if report.failed:
                error = call.excinfo.value
                entry["error"] = f"{type(error).__name__}: {error}"[:600]
                entry["stored"] = isinstance(error, AssertionError) and compares_stored_values(
                    list(_frames(call.excinfo.tb, self.source))
                )
            self.tests[item.nodeid] = entry
        return report


def _frames(traceback: types.TracebackType | None, source: Path) -> Iterator[tuple[types.FrameType, int]]:
    while traceback is not None:
        if Path(traceback.tb_frame.f_code.co_filename).is_relative_to(source):
            yield traceback.tb_frame, traceback.tb_lineno
        traceback = traceback.tb_next


def compares_stored_values(frames: list[tuple[types.FrameType, int]]) -> bool:
    """
    Whether a failed assertion compared an output with numbers that are written in the test.

    From the names in the statement that failed, followed back through the assignments of its function, and through the
    arguments of the call where they are parameters, a list of at least four literal numbers is reached, one of them
    with a fraction.

    Args:
        frames: with the line reached, from the outermost to the one that failed; only those of the tests.
    """
    wanted: set[str] | None = None  # parameters of the frame below that are looked for; in the last frame: all names
    for frame, line in reversed(frames):
        try:
            lines, first = inspect.getsourcelines(frame.f_code)
        except OSError:
            return False
        function = ast.parse(textwrap.dedent("".join(lines))).body[0]
        assert isinstance(function, ast.FunctionDef)
        statement = _statement(function, line - first + 1)
        if wanted is None:
            looked_at: list[ast.AST] = [statement]
        else:
            looked_at = [
                keyword.value
                for call in ast.walk(statement)
                if isinstance(call, ast.Call)
                for keyword in call.keywords
                if keyword.arg in wanted
            ]
            looked_at += [
                argument for call in ast.walk(statement) if isinstance(call, ast.Call) for argument in call.args
            ]
        names = _closure(function, looked_at)
        if names is None:
            return True
        parameters = {argument.arg for argument in [*function.args.args, *function.args.kwonlyargs]} - {"self"}
        wanted = names & parameters
        if not wanted:
            return False
    return False


def _statement(function: ast.FunctionDef, line: int) -> ast.AST:
    """The smallest statement of the function on a line that is counted from its first one."""
    found: ast.AST = function
    for node in ast.walk(function):
        if isinstance(node, ast.stmt) and node.lineno <= line <= (node.end_lineno or node.lineno):
            found = node  # `walk` goes from the outside to the inside
    return found


def _closure(function: ast.FunctionDef, nodes: list[ast.AST]) -> set[str] | None:
    """All names that `nodes` depend on in the function; `None` if they depend on a list of literal numbers."""
    assigned: dict[str, list[ast.AST]] = {}
    for node in ast.walk(function):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                for name in ast.walk(target):
                    if isinstance(name, ast.Name):
                        assigned.setdefault(name.id, []).append(node.value)
    names: set[str] = set()
    nodes = list(nodes)
    while nodes:
        for node in ast.walk(nodes.pop()):
            if isinstance(node, ast.List | ast.Tuple) and _stored(node):
                return None
            if isinstance(node, ast.Name) and node.id not in names:
                names.add(node.id)
                nodes += assigned.get(node.id, [])
    return names


def _stored(node: ast.List | ast.Tuple) -> bool:
    try:
        numbers = ast.literal_eval(node)
    except ValueError:
        return False
    flat = np.asarray(numbers, dtype=object).ravel().tolist()
    return len(flat) >= 4 and all(isinstance(x, int | float) for x in flat) and any(x != int(x) for x in flat)


def _digest(result: Any) -> dict[str, Any]:
    """The bits, and the mean, of all arrays and pictures in what a pipeline returned."""
    parts: list[np.ndarray] = []

    def collect(value: Any) -> None:
        if isinstance(value, torch.Tensor):
            parts.append(value.detach().float().cpu().numpy())
        elif isinstance(value, np.ndarray):
            parts.append(value)
        elif hasattr(value, "values") and callable(value.values):
            collect(list(value.values()))
        elif isinstance(value, list | tuple):
            for part in value:
                collect(part)
        elif hasattr(value, "tobytes"):
            parts.append(np.asarray(value))

    collect(result)
    bits = hashlib.sha256(b"".join(np.ascontiguousarray(part).tobytes() for part in parts)).hexdigest()[:16]
    return {"bits": bits, "mean": float(np.mean([part.mean() for part in parts])) if parts else None}


def run(tests: list[str], results: Path, mode: str, seed: int = 0) -> dict[str, dict[str, Any]]:
    """
    What became of each test, by its name in pytest.

    Args:
        tests: a file, or names of tests.
        results: a path for the way from the process in which they run.
        mode: one of `MODES`.
        seed: if not 0, generators have another seed than the test gave them.
    """

    def target() -> None:
        recorder = Recorder(Injection(mode, seed), Path.cwd().resolve())
        pytest.main([*tests, "-q", "-p", "no:cacheprovider", "--tb=no", "--assert=plain"], plugins=[recorder])
        results.write_text(json.dumps(recorder.tests))

    # By fork: the imports are made once, and no run sees what another has left.
    child = multiprocessing.get_context("fork").Process(target=target)
    child.start()
    child.join()
    outcomes: dict[str, dict[str, Any]] = json.loads(results.read_text())
    results.unlink()
    return outcomes


def main(file: str, results: Path) -> None:
    outcomes = {mode: run([file], results, mode) for mode in MODES}
    failing = [
        test
        for test, entry in outcomes["EarlyStart"].items()
        if entry["outcome"] == "failed" and not entry["stored"] and outcomes["plain"][test]["outcome"] == "passed"
    ]
    for seed in OTHER_SEEDS if failing else ():
        outcomes[f"seed {seed}"] = run(failing, results, "plain", seed)
    results.write_text(json.dumps(outcomes))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
