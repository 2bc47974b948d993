"""Checks, before a long computation, that its results can be written."""

from __future__ import annotations

import tempfile
from pathlib import Path

from unstill.data import files
from unstill.data.ownership import check_name
from unstill.errors import UnstillError


def check_writable(out: Path) -> None:
    """
    Creates the folder of `out`, tests that it is writable, and removes temporary files of killed processes.

    Raises:
        UnstillError: it cannot be written.
    """
    check_name(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out.parent).close()
    except OSError as error:
        raise files.cannot_write(out, error) from error
    files.sweep(out.parent)


def check_file(out: Path) -> None:
    """`check_writable` for a single file; raises `UnstillError` also if `out` is a folder."""
    check_name(out)
    if out.is_dir():
        raise UnstillError(f"--out {out} is a folder; name a file in it, for example {out / 'result'}{out.suffix}.")
    check_writable(out)


def check_video_name(out: Path) -> None:
    """Raises `UnstillError` if a video cannot be written to `out`: unknown suffix, or a path of another kind."""
    from unstill.data.encode import ENCODERS

    check_name(out)
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


def sibling(out: Path, word: str) -> Path:
    """`walk.mp4`, "plain" -> `walk_plain.mp4`."""
    return out.with_name(f"{out.stem}_{word}{out.suffix}")
