"""Results on the disk, each under a name nobody can guess; when they take too much, the oldest ones go."""

import secrets
import shutil
import threading
from pathlib import Path

from unstill.errors import UnstillError


class Shelf:
    """
    Args:
        root: an empty folder of this server's own.
        limit: bytes that all results together may take.
    """

    def __init__(self, root: Path, limit: int) -> None:
        self._root = root
        self._limit = limit
        self._lock = threading.Lock()
        self._sizes: dict[str, int] = {}  # in the order in which they came
        self._files: dict[tuple[str, str], Path] = {}

    def new(self) -> tuple[str, Path]:
        """A token and an empty folder to write a result into; it is there for others once it is `put`."""
        token = secrets.token_urlsafe(12)
        folder = self._root / token
        folder.mkdir()
        return token, folder

    def put(self, token: str) -> None:
        """Opens a written result to those who know its token; makes room by removing the oldest others."""
        files = sorted((self._root / token).iterdir())
        size = sum(file.stat().st_size for file in files)
        with self._lock:
            while self._sizes and sum(self._sizes.values()) + size > self._limit:
                self._remove(next(iter(self._sizes)))
            self._sizes[token] = size
            self._files.update({(token, file.name): file for file in files})

    def drop(self, token: str) -> None:
        """Removes what was written under a token and is not wanted any more."""
        shutil.rmtree(self._root / token, ignore_errors=True)

    def find(self, token: str, name: str) -> Path:
        """The file of a result. Both words are only looked up: no path is ever made of them."""
        with self._lock:
            if (token, name) not in self._files:
                raise UnstillError("This result is not here any more; make it again.")
            return self._files[token, name]

    def _remove(self, token: str) -> None:
        del self._sizes[token]
        for key in [key for key in self._files if key[0] == token]:
            del self._files[key]
        shutil.rmtree(self._root / token, ignore_errors=True)
