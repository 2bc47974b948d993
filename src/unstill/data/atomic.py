"""Whole or not at all: write under a temporary name in the same folder, then rename."""

import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from unstill.errors import UnstillError


PICTURE_NAME = "frame_{:05d}.png"
_OURS = re.compile(r"frame_\d{5,}\.png")


@contextmanager
def replacing(path: Path, folder: bool = False) -> Iterator[Path]:
    """Yield a temporary path to write to; it takes the place of `path` when the block ends without an error.

    Args:
        path: the final file or folder. Missing parents are made.
        folder: `path` is a folder of written frames. One that holds anything else is never replaced.

    Raises:
        UnstillError: the place cannot be written, whatever the block raised OSError for (full disk, permissions ...),
            or safetensors and torch.save their own errors.
    """
    if folder and path.exists() and not path.is_dir():
        raise UnstillError(f"{path} is a file, but a folder of pictures was to be written there; choose another name.")
    if not folder and path.is_dir():
        raise UnstillError(f"{path} is a folder, but a file was to be written there; choose another name.")
    # The suffix stays last: encoders choose the kind of file by it.
    temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}.tmp{path.suffix}")
    try:
        if folder and path.is_dir() and not all(_OURS.fullmatch(entry.name) for entry in os.scandir(path)):
            raise UnstillError(f"The folder {path} holds other files than frames; choose a new or empty folder.")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except FileExistsError as error:
            raise UnstillError(f"{path} cannot be written: {path.parent} is a file; choose another folder.") from error
        if folder:
            temporary.mkdir()
        else:  # what a new file may be is the umask's to say; safetensors writes files for their owner alone
            temporary.touch(exist_ok=False)
            mode = temporary.stat().st_mode
        yield temporary
        if not folder:
            temporary.chmod(mode)
        if folder and path.is_dir():
            aside = temporary.with_suffix(".old")
            os.replace(path, aside)
            os.replace(temporary, path)
            shutil.rmtree(aside)
        else:
            os.replace(temporary, path)
    except (OSError, SafetensorError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "PytorchStreamWriter" not in str(error):
            raise  # torch.save has no error class of its own for a full disk
        reason = getattr(error, "strerror", None) or error
        raise UnstillError(f"{path} cannot be written ({reason}); nothing was left behind.") from error
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        elif temporary.exists():
            temporary.unlink()
