"""The loss of every step, as a CSV file that an interrupted run continues without a seam."""

from __future__ import annotations

import csv
import math
import os
from pathlib import Path

from unstill.data.files import replacing
from unstill.errors import UnstillError


COLUMNS = ("step", "loss", "learning_rate", "gradient_norm")


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
                self._writer.writerow(COLUMNS)
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


def _is_row(line: str, number: int) -> bool:
    """Whether a line is that of step `number`, with finite figures."""
    step, *figures = line.strip().split(",")
    try:
        return step == str(number) and len(figures) == 3 and all(math.isfinite(float(one)) for one in figures)
    except ValueError:
        return False


def truncate(path: Path, steps: int) -> None:
    """
    Leaves the first `steps` rows of a loss curve: those after the checkpoint are made again.

    Raises:
        UnstillError: a file that is not a loss curve, or a damaged row among those that stay.
    """
    if path.exists():
        advice = "move it away, or give this run another folder"
        try:
            lines = path.read_bytes().decode("ascii").splitlines(keepends=True)
        except UnicodeDecodeError as error:
            raise UnstillError(f"{path} is no loss curve; {advice}.") from error
        if lines and lines[0].strip() != ",".join(COLUMNS):
            raise UnstillError(f"{path} is no loss curve; {advice}.")
        for number, line in enumerate(lines[1 : steps + 1], 1):
            if not _is_row(line, number):
                raise UnstillError(f"{path} is damaged in row {number}; {advice}.")
        with replacing(path) as part:
            part.write_text("".join(lines[: steps + 1]))
