"""A server's folder for uploads and results: removed when the server ends, or by the next one if it was killed."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from filelock import FileLock, Timeout

from unstill.errors import UnstillError


PREFIX, LOCK = "unstill-app-", "server.lock"


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A new folder in the system's folder for temporary files, with the lock that says that its server lives.

    Inside of the block `tempfile` writes there, too. SIGTERM ends the block as Ctrl-C does.

    Raises:
        UnstillError: the folder cannot be made.
    """
    usual = tempfile.tempdir
    root = Path(tempfile.gettempdir())
    remove_abandoned(root)
    try:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=root))
        lock = FileLock(folder / LOCK)
        lock.acquire(timeout=10)
    except (OSError, Timeout) as error:
        raise UnstillError(f"No folder can be made in {root} ({error}); set TMPDIR to another one.") from error
    try:
        tempfile.tempdir = str(folder)
        with _terminated_as_interrupted():
            yield folder
    finally:
        tempfile.tempdir = usual
        lock.release()
        shutil.rmtree(folder, ignore_errors=True)


def remove_abandoned(root: Path) -> None:
    """Remove the folders in `root` whose server does not live any more: nobody holds their lock."""
    for folder in root.glob(f"{PREFIX}*"):
        try:
            if folder.is_symlink() or not (folder / LOCK).is_file() or not _is_own(folder):
                continue
            with FileLock(folder / LOCK, timeout=0):
                pass
        except (OSError, Timeout):
            continue
        shutil.rmtree(folder, ignore_errors=True)


def _is_own(folder: Path) -> bool:
    return not hasattr(os, "getuid") or folder.stat().st_uid == os.getuid()


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    usual = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, usual)
