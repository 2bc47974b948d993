"""Losses and figures of a run, in files that an interrupted run continues without a gap or a repetition."""

from __future__ import annotations

import csv
import json
import math
import os
from pathlib import Path
from typing import Any

from unstill.data.files import replacing
from unstill.errors import UnstillError


COLUMNS = ("step", "loss", "learning_rate", "gradient_norm")


class LossCurve:
    """A CSV file that grows by a row per step; numbers in full, so that two curves can be compared bit by bit."""

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


class Figures:
    """The figures of every validation, one JSON object with its step per line."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def steps(self) -> set[int]:
        return {entry["step"] for entry in self._entries()}

    def write(self, step: int, figures: dict[str, float]) -> None:
        """Adds a line, in place of an earlier one of this step."""
        self._rewrite([*(one for one in self._entries() if one["step"] != step), {"step": step, **figures}])

    def truncate(self, steps: int) -> None:
        """Leaves the lines up to `steps`: those after the checkpoint are made again."""
        entries = self._entries()
        kept = [entry for entry in entries if entry["step"] <= steps]
        if kept != entries:
            self._rewrite(kept)

    def _entries(self) -> list[dict[str, Any]]:
        if not self._path.exists():
            return []
        return [json.loads(line) for line in self._path.read_text().splitlines()]

    def _rewrite(self, entries: list[dict[str, Any]]) -> None:
        with replacing(self._path) as part:
            part.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
