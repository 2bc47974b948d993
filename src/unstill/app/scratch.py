"""A server's folder for uploads and results: removed when the server ends, or by the next one if it was killed."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from unstill.data.files import beside
from unstill.errors import UnstillError


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A new folder in the system's folder for temporary files, readable by this user alone; `tempfile` writes there,
    too, until the block ends.

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
