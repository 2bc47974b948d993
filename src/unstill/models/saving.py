"""Writes a pipeline as a diffusers folder, atomically."""

import os
from pathlib import Path
from typing import Any

from unstill.data.files import beside, move, write_errors
from unstill.data.ownership import check_name
from unstill.errors import UnstillError


def save_pipeline(pipe: Any, out: Path) -> Path:
    """
    `pipe.save_pretrained(out)`, written atomically.

    Raises:
        UnstillError: `out` cannot be written, or exists and is not empty.
    """
    with write_errors(out), beside(out.parent) as around:
        new = write_pipeline(pipe, around / out.name)
        check_new(out)  # again: another process may have written there since
        move(new, out)
    return out


def write_pipeline(pipe: Any, folder: Path) -> Path:
    """`pipe.save_pretrained(folder)`, with file permissions of the umask: safetensors writes for the owner alone."""
    pipe.save_pretrained(folder)
    mode = (folder / "model_index.json").stat().st_mode
    for weights in folder.rglob("*.safetensors"):
        weights.chmod(mode)
    return folder


def check_new(out: str | os.PathLike[str]) -> None:
    """Raises `UnstillError` unless `out` is a folder that does not exist, or is empty."""
    out = Path(out)
    check_name(out, "the folder")
    if os.path.lexists(out) and (not out.is_dir() or any(out.iterdir())):
        raise UnstillError(f"{out} exists already; give a new folder.")
