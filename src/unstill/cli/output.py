"""Where results go: the place is tried before the long work, all files of one run appear together or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shlex
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from unstill.data import files
from unstill.errors import UnstillError
from unstill.lab.provenance import versions


@contextmanager
def staging(out: Path) -> Iterator[Path]:
    """A folder next to `out`; what the block writes into it moves to the folder of `out` at its end, or not at all.

    Raises:
        UnstillError: the place cannot be written.
    """
    with files.told(out), files.beside(out.parent) as folder:
        try:
            yield folder
        except UnstillError as error:
            raise UnstillError(str(error).replace(str(folder), str(out.parent))) from error
        for made in sorted(folder.iterdir()):
            files.move(made, out.parent / made.name)


def check_writable(out: Path) -> None:
    """Makes the folder of `out` and tries to write there; raises `UnstillError` if that fails."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out.parent).close()
    except OSError as error:
        raise _no_place(out, error) from error


def check_file(out: Path) -> None:
    """As `check_writable`, for what will be one file; raises `UnstillError` if a folder has its name."""
    if out.is_dir():
        raise UnstillError(f"--out {out} is a folder; name a file in it, for example {out / 'result'}{out.suffix}.")
    check_writable(out)


def _no_place(out: Path, error: OSError) -> UnstillError:
    in_the_way = next((one for one in out.parents if os.path.exists(one) and not one.is_dir()), None)
    reason = f"{in_the_way} is a file, not a folder" if in_the_way else error.strerror
    return UnstillError(f"{out} cannot be written ({reason}); name another place.")


def hush(bars: bool = False) -> None:
    """Leaves standard error to this program: no warnings of diffusers and transformers, their bars only if asked."""
    import diffusers.utils.logging
    import transformers.utils.logging

    for library in (diffusers.utils.logging, transformers.utils.logging):
        library.set_verbosity_error()
        if not bars:
            library.disable_progress_bar()


def check_video_name(out: Path) -> None:
    """Raises `UnstillError` if `out` cannot become a video: unknown suffix, or a name taken by something else."""
    from unstill.data.encode import ENCODERS

    suffix = out.suffix.lower()
    if suffix and suffix not in ENCODERS:
        raise UnstillError(
            f"--out {out}: videos are written as {', '.join(ENCODERS)}, or as PNG pictures into a folder "
            f"(a name without suffix), not as {suffix}."
        )
    if out.exists() and not (out.is_dir() or out.is_file()):
        raise UnstillError(f"--out {out} is a device, which holds no video; name a file, for example animated.mp4.")
    if suffix and out.is_dir():
        raise UnstillError(f"--out {out} is a folder; name a file in it, for example {out / 'animated.mp4'}.")
    if not suffix and out.is_file():
        raise UnstillError(f"--out {out} is a file; name a folder for the PNG pictures, or add .mp4.")
    if not suffix and out.is_dir() and any(not entry.name.startswith("frame_") for entry in out.iterdir()):
        raise UnstillError(f"--out {out} is a folder of other things; name a new folder, or {out / 'animated.mp4'}.")


def sibling(out: Path, word: str) -> Path:
    """`walk.mp4`, "plain" -> `walk_plain.mp4`."""
    return out.with_name(f"{out.stem}_{word}{out.suffix}")


def write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def provenance() -> dict[str, Any]:
    """The command line, and the versions of everything that decides the result."""
    return {
        "command": shlex.join(["unstill", *sys.argv[1:]]),
        "versions": versions(),
        "platform": platform.platform(),
    }
