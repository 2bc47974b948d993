"""Stores results on disk under unguessable tokens; the oldest are removed when a size limit is reached."""

import secrets
import shutil
import threading
from pathlib import Path

from unstill.errors import UnstillError


class ResultStore:
    """
    Results in a folder, by token.

    Args:
        root: an empty folder used by this server alone.
        limit: maximum size of all results together, in bytes.
    """

    def __init__(self, root: Path, limit: int) -> None:
        self._root = root
        self._limit = limit
        self._lock = threading.Lock()
        self._sizes: dict[str, int] = {}  # by token, oldest first
        self._files: dict[tuple[str, str], Path] = {}

    def new(self) -> tuple[str, Path]:
        """A token and an empty folder for a new result, which is available once it is `put`."""
        token = secrets.token_urlsafe(12)
        folder = self._root / token
        folder.mkdir()
        return token, folder

    def put(self, token: str) -> None:
        """Makes a written result available by its token; removes the oldest other results if space is needed."""
        files = sorted((self._root / token).iterdir())
        size = sum(file.stat().st_size for file in files)
        with self._lock:
            while self._sizes and sum(self._sizes.values()) + size > self._limit:
                self._remove(next(iter(self._sizes)))
            self._sizes[token] = size
            self._files.update({(token, file.name): file for file in files})

    def drop(self, token: str) -> None:
        """Removes the folder of a result that was not `put`."""
        shutil.rmtree(self._root / token, ignore_errors=True)

    def find(self, token: str, name: str) -> Path:
        """
        The path of a file of a result. Token and name are only looked up, never used to build a path.

        Raises:
            UnstillError: there is no such result.
        """
        with self._lock:
            if (token, name) not in self._files:
                raise UnstillError("This result is not here any more; make it again.")
            return self._files[token, name]

    def _remove(self, token: str) -> None:
        del self._sizes[token]
        for key in [key for key in self._files if key[0] == token]:
            del self._files[key]
        shutil.rmtree(self._root / token, ignore_errors=True)
