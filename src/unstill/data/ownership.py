"""
Identifies the files that this program wrote: only a result whose record lists it is ever replaced.

A record is a JSON file of settings next to the results. It contains the SHA-256 of every file written with it, and of
itself (`seal`), so that a file or record that was changed or added by somebody else is not taken for this program's.

Files without a record: caches, whose names are hashes of their inputs, and prepared clips (existing files are kept);
the states of unfinished statistics and the stages of I4VGen, which are identified by their headers and otherwise
refused. Functions that write one given file or folder of frames, such as `write_video` and `LatentStatistics.save`,
replace it, as `torch.save` does; a folder only if it contains nothing but frames of this program.
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
    """Results that are being written: put files into `folder` and settings into `record`."""

    folder: Path
    record: dict[str, Any] = field(default_factory=dict)


@contextmanager
def together(record: Path, names: Iterable[str] = (), option: str = "--out") -> Iterator[Results]:
    """
    Writes all files of a run: they appear together when the block ends without an error, and otherwise not at all.

    Args:
        record: the JSON file with the settings of the run.
        names: of the other files or folders that will be written next to it. They are checked before the block starts.
        option: the command-line option that error messages name.

    Raises:
        UnstillError: a file of that name was not written by this program, or the folder cannot be written.
    """
    targets = [record.with_name(name) for name in names]
    check_free(record, targets, option)
    with write_errors(record), beside(record.parent) as folder:
        results = Results(folder)
        try:
            yield results
        except UnstillError as error:
            raise UnstillError(str(error).replace(str(folder), str(record.parent))) from error
        new_files = sorted(folder.iterdir())
        check_free(record, [record.with_name(path.name) for path in new_files], option)
        write_record(folder / record.name, results.record, new_files, record)
        # The record first: it lists the new files and the ones they replace.
        move(folder / record.name, record)
        for path in new_files:
            move(path, record.with_name(path.name))


def write_record(path: Path, content: dict[str, Any], files: Iterable[Path] = (), before: Path | None = None) -> None:
    """
    Writes a JSON record.

    Args:
        path: of the record.
        content: the settings; `written`, `earlier` and `seal` are added.
        files: the files written with it, in this folder or in the one it will be moved to.
        before: the earlier record that this one replaces.
    """
    content.pop("seal", None)
    content["written"] = {file.name: digest(file) for file in files}
    content["earlier"] = {}
    before = before or path
    for name, digests in _listed_digests(before).items():
        existing = before.with_name(name)
        if _has_digest(existing, digests):
            content["earlier"][name] = digest(existing)
    content["seal"] = _seal(content)
    with write_errors(path):
        path.write_bytes(as_json(content))


def as_json(content: Any) -> bytes:
    """JSON text in UTF-8; file names that are not UTF-8 are escaped, which JSON readers undo."""
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")


def is_record(path: Path) -> bool:
    """Whether this program wrote this JSON file and it was not changed since."""
    return read_record(path) is not None


def matching_files(record: Path) -> list[Path]:
    """The files and folders next to a record that are unchanged since they were written with it."""
    paths = {record.with_name(name): digests for name, digests in _listed_digests(record).items()}
    return [path for path, digests in paths.items() if _has_digest(path, digests)]


def check_free(record: Path, targets: Iterable[Path], option: str = "--out") -> None:
    """
    Raises `UnstillError` if a file that is going to be written exists and is not this program's.

    Args:
        record: the record that will be written with the files.
        targets: these files and folders.
    """
    for path in (record, *targets):
        check_name(path, option)
    listed = _listed_digests(record)
    for path in (record, *targets):
        if not path.exists() and not path.is_symlink():
            continue
        if path == record:
            own = is_record(path)
        else:
            own = not path.is_symlink() and _has_digest(path, listed.get(path.name, []))
        if not own:
            raise UnstillError(
                f"{path} exists already, and unstill did not write it or it was changed since: it is never "
                f"overwritten; choose another {option}, or move it away."
            )


def check_folder(folder: Path, mark: str, names: Iterable[str] | None = None, option: str = "--out") -> None:
    """
    Raises `UnstillError` if a folder of results may contain other programs' files: it lacks the record `mark`.

    Args:
        folder: of the results.
        mark: the name of the record.
        names: the files that will be written and must not exist yet; by default the folder must be empty.
        option: the command-line option that error messages name.
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
    """Raises `UnstillError` for a name that cannot be written: empty, not UTF-8, too long."""
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
    """The SHA-256 of a file, or of all names and contents in a folder. Links are not followed."""
    mode = path.lstat().st_mode
    if stat.S_ISREG(mode):
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    if not stat.S_ISDIR(mode):
        return f"no file: {stat.S_IFMT(mode)}"  # a link, a pipe, a device: opening one could block forever
    entries = [[entry.name, digest(entry)] for entry in sorted(path.iterdir())]
    return hashlib.sha256(json.dumps(entries).encode()).hexdigest()


def _has_digest(path: Path, digests: list[str]) -> bool:
    """Whether a file or folder has one of these digests; not if it cannot be read."""
    try:
        return bool(digests) and digest(path) in digests
    except OSError:
        return False


def _listed_digests(record: Path) -> dict[str, list[str]]:
    """The digests of this program's files according to a record, by name."""
    content = read_record(record) or {}
    digests: dict[str, list[str]] = {}
    for kind in ("written", "earlier"):
        for name, value in content.get(kind, {}).items():
            digests.setdefault(name, []).append(value)
    return digests


def read_record(path: Path) -> dict[str, Any] | None:
    """The content of a record with a valid seal; `None` if this program did not write it, or it was changed."""
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
