"""Which files this program wrote: a result is only ever replaced by another result if its record vouches for it.

A record is a JSON file of settings beside the results. It holds the SHA-256 of every file written with it, and of
itself (`seal`), so that neither a file nor a record that somebody has changed or put there counts as this program's.

Files without a record: caches, whose names are hashes of what they were made from, and prepared clips; a file that is
there is kept. The states of unfinished statistics and the stages of I4VGen, which are recognised by their headers and
otherwise refused. Functions of the library that write the one file or the folder of frames that they are given, such
as `write_video` and `LatentStatistics.save`, replace it, as `torch.save` does; a folder only if it holds nothing but
frames of this program.
"""

import hashlib
import json
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unstill.data.files import beside, cannot_write, move, sweep, write_errors
from unstill.errors import UnstillError


@dataclass
class Results:
    """Results in the making: write files into `folder`, and settings into `record`, which is written with them."""

    folder: Path
    record: dict[str, Any] = field(default_factory=dict)


@contextmanager
def together(record: Path, names: Iterable[str] = (), option: str = "--out") -> Iterator[Results]:
    """All files of one run, which appear together when the block ends without an error, and not at all otherwise.

    Args:
        record: the JSON file with the settings of the run.
        names: of the other files or folders that will be written beside it. They are checked before the block begins.

    Raises:
        UnstillError: something of that name was not written by this program; the place cannot be written.
    """
    targets = [record.with_name(name) for name in names]
    check_free(record, targets, option)
    with write_errors(record), beside(record.parent) as folder:
        results = Results(folder)
        try:
            yield results
        except UnstillError as error:
            raise UnstillError(str(error).replace(str(folder), str(record.parent))) from error
        made = sorted(path for path in folder.iterdir())
        check_free(record, [record.with_name(path.name) for path in made], option)
        write_record(folder / record.name, results.record, made, record)
        # First the record: it vouches for the files that come, and for those that were there.
        move(folder / record.name, record)
        for path in made:
            move(path, record.with_name(path.name))


def write_record(path: Path, content: dict[str, Any], files: Iterable[Path] = (), before: Path | None = None) -> None:
    """Writes a JSON record; adds `written`, `earlier` and `seal` to `content`.

    Args:
        files: what was written with it, in this folder or in the one it will move to.
        before: the earlier record that this one replaces.
    """
    content.pop("seal", None)
    content["written"] = {file.name: digest(file) for file in files}
    content["earlier"] = {}
    before = before or path
    for name, digests in _vouched(before).items():
        there = before.with_name(name)
        if _is_one_of(there, digests):
            content["earlier"][name] = digest(there)
    content["seal"] = _seal(content)
    with write_errors(path):
        path.write_bytes(as_json(content))


def as_json(content: Any) -> bytes:
    """JSON text in UTF-8; a name that is no UTF-8 is kept by escapes, which JSON readers undo."""
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")


def is_record(path: Path) -> bool:
    """Whether this program wrote this JSON file, and nobody has changed it since."""
    return read_record(path) is not None


def matching_files(record: Path) -> list[Path]:
    """The files and folders beside a record that it vouches for, as they were written with it."""
    paths = {record.with_name(name): digests for name, digests in _vouched(record).items()}
    return [path for path, digests in paths.items() if _is_one_of(path, digests)]


def check_free(record: Path, targets: Iterable[Path], option: str = "--out") -> None:
    """Raises `UnstillError` if a file that is going to be written exists and is none of this program's.

    Args:
        record: the record that will be written with the files.
        targets: these files and folders.
    """
    for path in (record, *targets):
        check_name(path, option)
    vouched = _vouched(record)
    for path in (record, *targets):
        if not path.exists() and not path.is_symlink():
            continue
        if path == record:
            fine = is_record(path)
        else:
            fine = not path.is_symlink() and _is_one_of(path, vouched.get(path.name, []))
        if not fine:
            raise UnstillError(
                f"{path} exists already, and unstill did not write it or it was changed since: it is never "
                f"overwritten; choose another {option}, or move it away."
            )


def check_folder(folder: Path, mark: str, names: Iterable[str] | None = None, option: str = "--out") -> None:
    """Raises `UnstillError` if things in a folder of results might be somebody else's: it lacks the record `mark`.

    Args:
        names: what will be written into the folder and may not be there yet; by default nothing may be.
    """
    check_name(folder / mark, option)
    if not os.path.lexists(folder) or is_record(folder / mark):
        return
    if not folder.is_dir():
        raise UnstillError(f"{folder} is not a folder, but one was to be written there; choose another {option}.")
    sweep(folder)
    taken = next((n for n in names or sorted(os.listdir(folder)) if os.path.lexists(folder / n)), None)
    if taken is not None:
        raise UnstillError(
            f"{folder / taken} exists already, and nothing in {folder} says that unstill wrote it: it is never "
            f"overwritten; choose another {option}, or move it away."
        )


def check_name(path: Path, option: str = "--out") -> None:
    """Raises `UnstillError` for a name under which nothing can be written: none, no UTF-8, too long."""
    if path.name in ("", "..") or "\0" in str(path):
        raise UnstillError(f"{option} {str(path)!r} names no file; give a name such as ./result{path.suffix}.")
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        raise UnstillError(f"{option} {ascii(str(path))} is a name that is not UTF-8; choose another one.") from None
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        raise cannot_write(path, error) from error


def digest(path: Path) -> str:
    """SHA-256 of a file; of a folder, of the names and contents of all that is in it. No link is followed."""
    mode = path.lstat().st_mode
    if stat.S_ISREG(mode):
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    if not stat.S_ISDIR(mode):
        return f"no file: {stat.S_IFMT(mode)}"  # a link, a pipe, a device: opening one could take for ever
    entries = [[entry.name, digest(entry)] for entry in sorted(path.iterdir())]
    return hashlib.sha256(json.dumps(entries).encode()).hexdigest()


def _is_one_of(path: Path, digests: list[str]) -> bool:
    """Whether a file or folder has one of these digests; not if it cannot be read."""
    try:
        return bool(digests) and digest(path) in digests
    except OSError:
        return False


def _vouched(record: Path) -> dict[str, list[str]]:
    """By name, the digests of files that are this program's according to a record."""
    content = read_record(record) or {}
    found: dict[str, list[str]] = {}
    for kind in ("written", "earlier"):
        for name, value in content.get(kind, {}).items():
            found.setdefault(name, []).append(value)
    return found


def read_record(path: Path) -> dict[str, Any] | None:
    """The content of a record with a valid seal, or `None`: this program did not write it, or it was changed."""
    if path.is_symlink() or not path.is_file():
        return None
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(content, dict) or content.get("seal") != _seal(content):
        return None
    return content


def _seal(content: dict[str, Any]) -> str:
    """SHA-256 of a record without its seal."""
    rest = {key: value for key, value in content.items() if key != "seal"}
    return hashlib.sha256(b"unstill " + json.dumps(rest, sort_keys=True).encode()).hexdigest()
