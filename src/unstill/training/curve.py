"""The loss of every step, as a CSV file that an interrupted run continues without a seam."""

from __future__ import annotations

import csv
import os
from pathlib import Path

from unstill.data.files import replacing


class LossCurve:
    """A CSV file that grows by a row per step; numbers in full, so that two curves can be compared bit by bit."""

    def __init__(self, path: Path, active: bool) -> None:
        self._path, self._active = path, active

    def __enter__(self) -> LossCurve:
        if self._active:
            new = not self._path.exists()
            self._file = self._path.open("a", newline="")
            self._writer = csv.writer(self._file, lineterminator="\n")
            if new:
                self._writer.writerow(["step", "loss", "learning_rate", "gradient_norm"])
        return self

    def write(self, *row: float) -> None:
        if self._active:
            self._writer.writerow([repr(value) for value in row])
            self._file.flush()

    def keep(self) -> None:
        """Before a checkpoint, which may not be newer than the curve."""
        if self._active:
            os.fsync(self._file.fileno())

    def __exit__(self, *error: object) -> None:
        if self._active:
            self._file.close()


def truncate(path: Path, steps: int) -> None:
    """Leaves the first `steps` rows of a loss curve: those after the checkpoint are made again."""
    if path.exists():
        lines = path.read_text().splitlines(keepends=True)
        with replacing(path) as part:
            part.write_text("".join(lines[: steps + 1]))
