"""
Atomic writing of files and folders, which never overwrites other programs' files and leaves no temporary files behind.

Everything is written into a folder `.unstill-ID` next to its destination, flushed to the disk and renamed. The process
holds a lock on `.unstill-ID.lock` next to that folder. The operating system releases the lock of a process that ends,
so that `sweep` can recognise and remove the temporary files of killed processes.
"""

import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout
from safetensors import SafetensorError

from unstill.errors import UnstillError


PICTURE_NAME = "frame_{:05d}.png"
PICTURE_KEY = "unstill:fps"
"""The PNG text chunk in which `write_video` records the frame rate; it also identifies frames of this program."""
_PICTURE = re.compile(r"frame_\d{5,}\.png")
_LOCK = re.compile(r"(\.unstill-[0-9a-f]{16})\.lock")
_REPLACED = ".replaced"
_FULL = (errno.ENOSPC, errno.EDQUOT)
_swept: set[Path] = set()


@contextmanager
def beside(parent: Path) -> Iterator[Path]:
    """
    A temporary folder in `parent`, which is created if missing, for the duration of the context.

    If the process is killed, `sweep` removes the folder; it runs at the first `beside` of a process in a folder.

    Raises:
        OSError: `parent` cannot be written; `write_errors` converts this into an `UnstillError`.
    """
    folder = parent / f".unstill-{secrets.token_hex(8)}"
    parent.mkdir(parents=True, exist_ok=True)
    if parent.resolve() not in _swept:
        sweep(parent)
        _swept.add(parent.resolve())
    lock = FileLock(f"{folder}.lock")
    try:
        Path(lock.lock_file).touch()  # filelock would wait forever where no files can be created, such as /proc
        lock.acquire()
        folder.mkdir(mode=0o700)  # `parent` may be shared with other users
        yield folder
    finally:
        try:
            _remove(folder, lock)
        except BaseException:  # a signal during the removal
            _remove(folder, lock)
            raise


def _remove(folder: Path, lock: FileLock) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    _unlink(lock)


def sweep_all(folder: Path) -> None:
    """`sweep` for a folder and all folders in it."""
    for parent, _, _ in os.walk(folder):
        sweep(Path(parent))


@contextmanager
def alone(folder: Path, busy: str, patience: float) -> Iterator[None]:
    """
    An exclusive lock on `folder` for the duration of the context.

    Args:
        folder: to lock.
        busy: the error message if another process holds the lock.
        patience: seconds to wait; the workers of a killed process end only seconds after it.

    Raises:
        UnstillError: another process holds the lock.
    """
    lock = FileLock(folder / ".unstill.lock")
    try:
        lock.acquire(timeout=patience, poll_interval=0.2)
    except Timeout:
        raise UnstillError(busy) from None
    try:
        yield
    finally:
        _unlink(lock)


def sweep(parent: Path) -> None:
    """
    Removes temporary folders in `parent` whose processes have ended, and nothing else. A folder that such a process
    had moved aside but not yet replaced is restored.
    """
    try:
        names = [match[1] for entry in os.scandir(parent) if (match := _LOCK.fullmatch(entry.name))]
    except OSError:
        return
    for name in names:
        lock = FileLock(parent / f"{name}.lock")
        with suppress(OSError, Timeout, RuntimeError):
            lock.acquire(blocking=False)
            for old in (parent / name).glob(f"*{_REPLACED}"):  # killed between the two renames of `move`
                if not os.path.lexists(path := parent / old.name.removesuffix(_REPLACED)):
                    os.replace(old, path)
            shutil.rmtree(parent / name, ignore_errors=True)
            _unlink(lock)


def _unlink(lock: FileLock) -> None:
    """Removes a lock's file, then releases the lock; in reverse on Windows, which cannot remove open files."""
    if os.name == "nt":
        lock.release()
    with suppress(OSError):
        os.unlink(lock.lock_file)
    lock.release()


@contextmanager
def replacing(path: Path, folder: bool = False) -> Iterator[Path]:
    """
    A temporary path to write to; it replaces `path` when the context ends without an error.

    Args:
        path: the final file or folder. Missing parents are created.
        folder: `path` is a folder of frames. One that contains anything else is never replaced.

    Raises:
        UnstillError: `path` cannot be written (full disk, permissions ...).
    """
    if folder and path.exists() and not path.is_dir():
        raise UnstillError(f"{path} is a file, but a folder of pictures was to be written there; choose another name.")
    if not folder and path.is_dir():
        raise UnstillError(f"{path} is a folder, but a file was to be written there; choose another name.")
    if folder and path.is_dir() and not all(_is_frame(entry) for entry in path.iterdir()):
        raise UnstillError(f"The folder {path} holds other files than frames; choose a new or empty folder.")
    with write_errors(path), beside(path.parent) as around:
        new = around / path.name
        mode = None
        if folder:
            new.mkdir()
        else:  # the umask decides about a new file; safetensors writes files for their owner alone
            new.touch()
            mode = new.stat().st_mode
        yield new
        if mode is not None:
            new.chmod(mode)
        move(new, path)


def move(new: Path, path: Path) -> None:
    """
    Flushes `new`, which is in a folder of `beside`, to the disk and renames it to `path`.

    An existing folder is first moved aside, and removed together with the folder of `beside`.
    """
    flush(new)
    if path.is_dir() and not path.is_symlink():
        old = new.with_name(f"{new.name}{_REPLACED}")
        os.replace(path, old)
        try:
            os.replace(new, path)
        except OSError:
            os.replace(old, path)
            raise
    else:
        os.replace(new, path)
    _flush_one(path.parent)


def flush(path: Path) -> None:
    """Flushes a file, or all files of a folder, to the disk."""
    for folder, _, names in os.walk(path):
        for name in names:
            _flush_one(Path(folder, name))
    _flush_one(path)


def _flush_one(path: Path) -> None:
    if os.name == "nt" and path.is_dir():
        return
    file = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(file)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system that flushes no folders
            raise
    finally:
        os.close(file)


def _is_frame(path: Path) -> bool:
    """Whether `write_video` has written this picture."""
    if not _PICTURE.fullmatch(path.name) or path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        return PICTURE_KEY.encode() in file.read(256)


@contextmanager
def write_errors(path: Path, left: str = "nothing half-written was left behind") -> Iterator[None]:
    """Converts errors of writing to `path` into an `UnstillError` whose message ends with `left`."""
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        if isinstance(error, OSError) or is_disk_full(error) or isinstance(error, SafetensorError):
            raise cannot_write(path, error, left) from error
        raise


def is_disk_full(error: BaseException) -> bool:
    """Whether an error means a lack of disk space; torch and safetensors have no class of their own for it."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _FULL
    return any(words in str(error) for words in ("No space left on device", "PytorchStreamWriter", "unexpected pos"))


def cannot_write(path: Path, error: BaseException, left: str = "nothing half-written was left behind") -> UnstillError:
    """The error for a path that cannot be written."""
    if is_disk_full(error):
        return UnstillError(
            f"{path} cannot be written (no space left on the disk): free some space, or write somewhere else; {left}."
        )
    blocking = next((p for p in (path, *path.parents) if os.path.exists(p) and not os.path.isdir(p)), None)
    reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
    if blocking is not None and blocking != path:
        reason = f"{blocking} is a file, not a folder"
    return UnstillError(f"{path} cannot be written ({reason}): choose another place; {left}.")
