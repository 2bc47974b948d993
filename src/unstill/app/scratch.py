"""Temporary folder of a server: removed when the server ends, or by the next server if the process was killed."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from unstill.data.files import beside
from unstill.errors import UnstillError


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """
    A new folder in the system's temporary folder, readable by this user alone; `tempfile` also uses it until the block
    ends.

    Raises:
        UnstillError: the folder cannot be made.
    """
    usual, root = tempfile.tempdir, Path(tempfile.gettempdir())
    folder = beside(root)
    try:
        path = folder.__enter__()
    except OSError as error:
        raise UnstillError(
            f"No folder can be made in {root} ({error.strerror}); set TMPDIR to another one."
        ) from error
    try:
        tempfile.tempdir = str(path)
        yield path
    finally:
        tempfile.tempdir = usual
        folder.__exit__(None, None, None)
