"""
Cells of work in a folder that any number of processes share: each is computed once, whoever dies.

A cell is done when its file lies in `done/`, written under another name and renamed. Who computes a cell holds a
lock on `claims/CELL.lock`. The operating system takes a lock from a process that dies, also by kill -9, so that no
claim can go stale and nothing has to be guessed from clocks or process ids. Under the lock the cell is looked up once
more: it is done, or nobody else is computing it. For that reason the file of the lock may go once the cell is done.
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

from unstill.data.files import beside, replacing, sweep_all, told
from unstill.documents import JSONObject, first_fault, parse_json
from unstill.errors import UnstillError


log = logging.getLogger(__name__)

PATIENCE = 0.5
"""Seconds between looks at cells that other processes are computing."""


class WorkQueue:
    """The cells of one manifest."""

    def __init__(
        self, folder: Path, cells: Sequence[str], kind: Callable[[str], type[BaseModel]] = lambda cell: JSONObject
    ) -> None:
        """
        Args:
            cells: unique names that can be file names; the same list, in this order, in all processes.
            kind: from the name of a cell to the model that its result must fit.
        """
        self.folder = folder
        self.cells = list(cells)
        self._kind = kind
        self._checked = set[str]()  # cells whose files hold a result
        for name in ("done", "claims"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        sweep_all(folder)
        for cell in self.cells:
            if self._file(cell).exists():
                self._lock_file(cell).unlink(missing_ok=True)

    def result(self, cell: str) -> dict[str, Any] | None:
        """What `work` has kept of a cell; `None` if it is not done, or its file is damaged, which a warning tells."""
        try:
            text = self._file(cell).read_bytes()
        except FileNotFoundError:
            return None
        try:
            self._kind(cell).model_validate_json(text, strict=True)
        except ValidationError as error:
            log.warning("%s is damaged (%s); it is made anew.", self._file(cell), first_fault(error))
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
        Computes what is neither done nor being computed, until all is done.

        Args:
            compute: from the name of a cell to what is kept of it, as JSON can hold it.
            first: place of the cell to begin with, so that processes rarely meet.
            wait: stay until the cells of other processes are done as well, and take over those that these leave.
            progress: is told how many cells are done, by whomever, and in all.

        Returns:
            How many cells this process has computed.
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
                    if self._is_done(cell):  # done by another between the look and the lock
                        continue
                    content = compute(cell)
                    with replacing(self._file(cell)) as part:
                        part.write_text(json.dumps(content, indent=1), encoding="utf-8")
                    self._checked.add(cell)
                    computed += 1
                if progress is not None:
                    progress(sum(self._is_done(one) for one in self.cells), len(self.cells))
            if not wait:
                break
            if len(busy) == len(remaining):
                time.sleep(PATIENCE)
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


def settle(path: Path, content: dict[str, Any]) -> dict[str, Any]:
    """Writes a JSON file unless it is there: of several processes one wins, all get what it wrote."""
    with told(path), beside(path.parent) as around:
        mine = around / path.name
        mine.write_text(json.dumps(content, indent=1), encoding="utf-8")
        with suppress(FileExistsError):
            os.link(mine, path)  # unlike a rename it fails where there is something
    advice = "delete it, or choose another folder"
    return parse_json(path.read_bytes(), JSONObject, str(path), advice).model_dump()
