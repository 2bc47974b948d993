"""
Cells of work in a folder that any number of processes share: each is computed once, whoever dies.

A cell is done when its file lies in `done/`, written under another name and renamed. Who computes a cell holds a lock
on one byte of the file `claims`, at the place of the cell in the manifest. The operating system takes a lock from a
process that dies, also by kill -9, so that no claim can go stale and nothing has to be guessed from clocks or process
ids. Under the lock the cell is looked up once more: it is done, or nobody else is computing it. Locks of this kind
(POSIX record locks; on Windows those of msvcrt) also hold between machines on network file systems that support them,
NFS among them.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from unstill.documents import JSONObject, first_fault, parse_json
from unstill.errors import UnstillError


log = logging.getLogger(__name__)


if sys.platform == "win32":
    import msvcrt

    def _lock(file: int, place: int) -> None:
        """The byte at `place`, which need not exist; raises OSError at once where another process has it."""
        os.lseek(file, place, os.SEEK_SET)
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)

    def _unlock(file: int, place: int) -> None:
        os.lseek(file, place, os.SEEK_SET)
        msvcrt.locking(file, msvcrt.LK_UNLCK, 1)
else:
    import fcntl

    def _lock(file: int, place: int) -> None:
        """The byte at `place`, which need not exist; raises OSError at once where another process has it."""
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)

    def _unlock(file: int, place: int) -> None:
        fcntl.lockf(file, fcntl.LOCK_UN, 1, place)


PATIENCE = 0.5
"""Seconds between looks at cells that other processes are computing."""


class WorkQueue:
    """The cells of one manifest. One object per folder and process: closing any would release the locks of all."""

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
        (folder / "done").mkdir(parents=True, exist_ok=True)
        self._locks = os.open(folder / "claims", os.O_RDWR | os.O_CREAT, 0o644)

    def close(self) -> None:
        os.close(self._locks)

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
                    os.replace(_written(self._file(cell), compute(cell)), self._file(cell))
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

    @contextmanager
    def _claim(self, cell: str) -> Iterator[bool]:
        place = self.cells.index(cell)
        try:
            _lock(self._locks, place)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
                raise UnstillError(
                    f"{self.folder} is on a file system without locks ({error.strerror}); choose a folder on another."
                ) from error
            yield False
            return
        try:
            yield True
        finally:
            _unlock(self._locks, place)


def settle(path: Path, content: dict[str, Any]) -> dict[str, Any]:
    """Writes a JSON file unless it is there: of several processes one wins, all get what it wrote."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mine = _written(path, content)
    try:
        os.link(mine, path)  # unlike a rename it fails where there is something
    except FileExistsError:
        pass
    finally:
        mine.unlink()
    advice = "delete it, or choose another folder"
    return parse_json(path.read_bytes(), JSONObject, str(path), advice).model_dump()


def _written(path: Path, content: dict[str, Any]) -> Path:
    """The content under a name of this process's own beside `path`."""
    mine = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.tmp")
    mine.write_text(json.dumps(content, indent=1), encoding="utf-8")
    return mine
