"""Log files of losses and validation scores, which a resumed run continues without gaps or duplicate rows."""

from __future__ import annotations

import csv
import json
import math
import os
from pathlib import Path
from typing import Any

from unstill.data.files import replacing
from unstill.errors import UnstillError, first_line


COLUMNS = ("step", "loss", "learning_rate", "gradient_norm")


class LossCurve:
    """
    A CSV file with one row per step; numbers have full precision, so that two curves can be compared bit by bit.
    """

    def __init__(self, path: Path, active: bool) -> None:
        self._path, self._active = path, active

    def __enter__(self) -> LossCurve:
        if self._active:
            new = not self._path.exists() or self._path.stat().st_size == 0
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
        """Flushes to the disk; called before a checkpoint, which must not be newer than the curve."""
        if self._active:
            os.fsync(self._file.fileno())

    def __exit__(self, *error: object) -> None:
        if self._active:
            self._file.close()


def _is_row(line: str, number: int) -> bool:
    """Whether a line is that of step `number`, with finite numbers."""
    step, *values = line.strip().split(",")
    try:
        return step == str(number) and len(values) == 3 and all(math.isfinite(float(value)) for value in values)
    except ValueError:
        return False


def truncate(path: Path, steps: int) -> None:
    """
    Keeps the first `steps` rows of a loss curve; the steps after the checkpoint are repeated.

    Raises:
        UnstillError: a file that is not a loss curve, or holds anything but rows of steps.
    """
    if os.path.lexists(path):
        advice = "move it away, or give this run another folder"
        if path.is_symlink() or not path.is_file():
            raise UnstillError(f"{path} is no loss curve; {advice}.")
        try:
            lines = path.read_bytes().decode("ascii").splitlines(keepends=True)
        except UnicodeDecodeError as error:
            raise UnstillError(f"{path} is no loss curve; {advice}.") from error
        if lines and lines[0].strip() != ",".join(COLUMNS):
            raise UnstillError(f"{path} is no loss curve; {advice}.")
        for number, line in enumerate(lines[1:], 1):
            cut = number == len(lines) - 1 and number > steps and not line.endswith("\n")  # by a kill
            if not cut and not _is_row(line, number):
                raise UnstillError(f"{path} is damaged in row {number}; {advice}.")
        with replacing(path) as part:
            part.write_text("".join(lines[: steps + 1]))


class Figures:
    """The scores of every validation: a JSON Lines file with one object per step."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def steps(self) -> set[int]:
        return {entry["step"] for entry in self._entries()}

    def write(self, step: int, figures: dict[str, float]) -> None:
        """Adds a line; replaces an earlier one of the same step."""
        self._rewrite([*(entry for entry in self._entries() if entry["step"] != step), {"step": step, **figures}])

    def truncate(self, steps: int) -> None:
        """Keeps the lines up to `steps`; the validations after the checkpoint are repeated."""
        entries = self._entries()
        kept = [entry for entry in entries if entry["step"] <= steps]
        if kept != entries:
            self._rewrite(kept)

    def _entries(self) -> list[dict[str, Any]]:
        if not self._path.exists():
            return []
        try:
            entries = [json.loads(line) for line in self._path.read_text(encoding="utf-8").splitlines()]
            if all(isinstance(entry, dict) and type(entry.get("step")) is int for entry in entries):
                return entries
            reason = "a line has no step"
        except (OSError, ValueError, RecursionError) as error:
            reason = first_line(error)
        raise UnstillError(f"{self._path} is damaged ({reason}); move it away, and it is begun anew.")

    def _rewrite(self, entries: list[dict[str, Any]]) -> None:
        with replacing(self._path) as part:
            part.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
