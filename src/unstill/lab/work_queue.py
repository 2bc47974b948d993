"""
A queue of cells in a folder that several processes share: each cell is computed once, even if a process is killed.

A cell is done when its file is in `done/`, where files are written atomically. A process that computes a cell holds a
lock on `claims/CELL.lock`. The operating system releases the locks of a process that ends, so no lock becomes stale.
After acquiring the lock a process checks again whether the cell is done; therefore the lock's file can be removed once
it is.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from pydantic import BaseModel, ValidationError

from unstill.data.files import beside, replacing, sweep_all, write_errors
from unstill.documents import JSONObject, first_fault, parse_json
from unstill.errors import UnstillError


log = logging.getLogger(__name__)

POLL_SECONDS = 0.5
"""Seconds between checks of the cells that other processes are computing."""


class WorkQueue:
    """The cells of one manifest."""

    def __init__(
        self, folder: Path, cells: Sequence[str], schema: Callable[[str], type[BaseModel]] = lambda cell: JSONObject
    ) -> None:
        """
        Args:
            cells: unique names that can be file names; the same list, in this order, in all processes.
            folder: of the queue; created if missing.
            schema: maps the name of a cell to the pydantic model of its result.
        """
        self.folder = folder
        self.cells = list(cells)
        self._schema = schema
        self._checked = set[str]()  # cells whose files hold a result
        for name in ("done", "claims"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        sweep_all(folder)
        for cell in self.cells:
            if self._file(cell).exists():
                self._lock_file(cell).unlink(missing_ok=True)

    def result(self, cell: str) -> dict[str, Any] | None:
        """The result of a cell; `None` if it is not done, or, with a warning, if its file is damaged."""
        try:
            text = self._file(cell).read_bytes()
        except FileNotFoundError:
            return None
        try:
            self._schema(cell).model_validate_json(text, strict=True)
        except ValidationError as error:
            log.warning("%s is damaged (%s); it is computed again.", self._file(cell), first_fault(error))
            return None
        content: dict[str, Any] = json.loads(text)
        return content

    def _is_done(self, cell: str) -> bool:
        if cell not in self._checked and self.result(cell) is not None:
            self._checked.add(cell)
        return cell in self._checked

    def work(
        self,
        compute: Callable[[str], dict[str, Any]],
        *,
        first: int = 0,
        wait: bool = True,
        progress: Callable[[int, int], None] | None = None,
    ) -> int:
        """
        Computes the cells that are neither done nor being computed by another process.

        Args:
            compute: maps the name of a cell to its result, as JSON values.
            first: index of the first cell to compute; different in each process, so that they rarely compete.
            wait: until the cells of other processes are done, and compute those that they leave unfinished.
            progress: called with (cells done by all processes, all cells).

        Returns:
            The number of cells that this process computed.
        """
        remaining = self.cells[first:] + self.cells[:first]
        computed = 0
        while remaining:
            busy = []
            for cell in remaining:
                if self._is_done(cell):
                    continue
                with self._claim(cell) as claimed:
                    if not claimed:
                        busy.append(cell)
                        continue
                    if self._is_done(cell):  # by another process, since the first check
                        continue
                    content = compute(cell)
                    with replacing(self._file(cell)) as part:
                        part.write_text(json.dumps(content, indent=1), encoding="utf-8")
                    self._checked.add(cell)
                    computed += 1
                if progress is not None:
                    progress(sum(map(self._is_done, self.cells)), len(self.cells))
            if not wait:
                break
            if len(busy) == len(remaining):
                time.sleep(POLL_SECONDS)
            remaining = busy
        return computed

    def _file(self, cell: str) -> Path:
        return self.folder / "done" / f"{cell}.json"

    def _lock_file(self, cell: str) -> Path:
        return self.folder / "claims" / f"{cell}.lock"

    @contextmanager
    def _claim(self, cell: str) -> Iterator[bool]:
        lock = FileLock(self._lock_file(cell))
        try:
            lock.acquire(blocking=False)
        except Timeout:
            yield False
            return
        except (OSError, NotImplementedError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UnstillError(
                f"{self.folder} is on a file system without locks ({reason}); choose a folder on another."
            ) from error
        try:
            yield True
        finally:
            if cell in self._checked and os.name != "nt":
                self._lock_file(cell).unlink(missing_ok=True)
            lock.release()


def write_once(path: Path, content: dict[str, Any]) -> dict[str, Any]:
    """Writes a JSON file unless it exists, and returns its content: the same in all processes that call this."""
    with write_errors(path), beside(path.parent) as around:
        new = around / path.name
        new.write_text(json.dumps(content, indent=1), encoding="utf-8")
        with suppress(FileExistsError):
            os.link(new, path)  # unlike a rename, fails if `path` exists
    advice = "delete it, or choose another folder"
    stored: dict[str, Any] = parse_json(path.read_bytes(), JSONObject, str(path), advice).root
    return stored
