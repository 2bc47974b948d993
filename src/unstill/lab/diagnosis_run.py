"""
A diagnosis in a folder: each clip, and each video sampled at a requested motion level, is a cell that is computed
once, also when the work is stopped and resumed or shared by processes.

The folder is named after everything that decides the numbers, so that another diagnosis never finds these.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
from PIL import Image
from pydantic import Field, model_validator

from unstill.documents import Stored
from unstill.errors import UnstillError
from unstill.forward_process import ForwardProcess
from unstill.lab.html_report import Film
from unstill.lab.leakage import SHARE, Diagnosis, films_of, gathered, probe_clip, summarise_leakage
from unstill.lab.motion_response import REQUESTED_LEVELS, Response, motion_of, summarise_response
from unstill.lab.one_step import unit_of
from unstill.lab.probe_clips import ProbeClip, ProbeClips
from unstill.lab.probe_conditions import ImageCondition, NoiseLevel
from unstill.lab.work_queue import WorkQueue
from unstill.methods.base import Method
from unstill.models.call_arguments import generate


log = logging.getLogger(__name__)


_Figure = Annotated[float, Field(ge=0, le=1e12)]
NOT_FINITE = "A measurement is not finite."


class _Clip(Stored):
    """The file of a probed clip: levels, records and films as `_probed` makes them, or why there are none."""

    error: str | None = None
    levels: list[tuple[_Figure, _Figure, _Figure]] = []
    records: dict[str, dict[str, list[_Figure]]] = {}
    films: dict[str, list[tuple[str, str]]] = {}

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.error is None and not (self.levels and "truth" in self.records):
            raise ValueError("levels or records are missing")
        counts = {len(found) for source, by in self.records.items() if source != "truth" for found in by.values()}
        if counts - {len(self.levels)}:
            raise ValueError("the records are not one figure for each level")
        for one in (text for films in self.films.values() for film in films for text in film):
            base64.b64decode(one, validate=True)
        return self


class _Answer(Stored):
    """The file of a video that answers a requested motion."""

    error: str | None = None
    measured: _Figure | None = None
    real: _Figure | None = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.error is None and (self.measured is None or self.real is None):
            raise ValueError("a figure is missing")
        return self


@dataclass(frozen=True, kw_only=True)
class DiagnosisRun:
    """
    Args:
        work: parent of the folder of this diagnosis.
        decides: what the numbers depend on besides the fields of this class, as JSON values.
        pipe, call, levels, conditions, methods, share, seed, fps: as of `measure_leakage`.
        answers: clips for which a video is sampled at each of `REQUESTED_LEVELS`; none leaves that out.
        ask: arguments of the pipeline's call for a clip and a requested level.
    """

    work: Path
    decides: dict[str, Any]
    pipe: Any
    subjects: ProbeClips
    call: Callable[[ProbeClip, Image.Image], dict[str, Any]]
    levels: Sequence[float]
    name: str
    conditions: Sequence[ImageCondition] = ("image", "weakened", "removed")
    methods: Sequence[Method] = ()
    share: float = SHARE
    seed: int = 0
    fps: float = 8.0
    answers: ProbeClips | None = None
    ask: Callable[[ProbeClip, float], dict[str, Any]] | None = None

    def run(
        self, rank: int = 0, processes: int = 1, progress: Callable[[int, int], None] | None = None
    ) -> tuple[Diagnosis, Response | None] | None:
        """Computes what is missing, beginning at this process's share. The process of rank 0 stays until all is done
        and sums it up; the others get `None`."""
        videos = [f"{i}-{j}" for i in range(len(self.answers or ())) for j in range(len(REQUESTED_LEVELS))]
        cells = [f"clip-{i}" for i in range(len(self.subjects))] + [f"answer-{one}" for one in videos]
        claims = WorkQueue(self.work / self._key, cells, lambda cell: _Clip if cell.startswith("clip-") else _Answer)
        claims.work(self._make, first=rank * len(cells) // processes, wait=rank == 0, progress=progress)
        return self._summary(claims) if rank == 0 else None

    @property
    def _key(self) -> str:
        content = [
            *(self.name, self.subjects.fingerprint, list(self.levels), list(self.conditions), self.seed),
            *(self.fps, self.answers.fingerprint if self.answers is not None else None, self.decides),
        ]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    def _make(self, cell: str) -> dict[str, Any]:
        kind, i, *rest = cell.split("-")
        index = int(i)
        clips = self.subjects if kind == "clip" else self.answers
        assert clips is not None
        try:
            subject = clips[index]
        except UnstillError as error:  # the other clips are still computed
            log.warning("Skipping clip %d: %s", index, error)
            return {"error": str(error)}
        if kind == "clip":
            return self._probed(subject, index)
        assert self.ask is not None
        made = generate(self.pipe, self.ask(subject, REQUESTED_LEVELS[int(rest[0])]), self.seed + index)
        readings = {"measured": motion_of(made.float() / 255), "real": motion_of(subject.video)}
        return readings if all(map(math.isfinite, readings.values())) else {"error": NOT_FINITE}

    def _probed(self, subject: ProbeClip, index: int) -> dict[str, Any]:
        levels, records, videos = probe_clip(
            self.pipe, subject, self.call, self.levels, self.conditions, self.methods, self.seed + index
        )
        if not all(np.isfinite(found).all() for by in records.values() for found in by.values()):
            return {"error": NOT_FINITE}
        return {
            "levels": [astuple(one) for one in levels],
            "records": {s: {q: found.tolist() for q, found in by.items()} for s, by in records.items()},
            "films": _text(films_of(videos, self.fps)) if index == 0 else {},
        }

    def _summary(self, claims: WorkQueue) -> tuple[Diagnosis, Response | None]:
        results = {cell: claims.result(cell) for cell in claims.cells}
        found = {cell: one for cell, one in results.items() if one is not None and "error" not in one}
        clips = [found[cell] for cell in found if cell.startswith("clip-")]
        rows = [{s: {q: np.array(v) for q, v in by.items()} for s, by in one["records"].items()} for one in clips]
        diagnosis = summarise_leakage(
            gathered(rows),
            [NoiseLevel(*one) for one in clips[0]["levels"]],
            unit_of(ForwardProcess.of(self.pipe.scheduler)),
            name=self.name,
            share=self.share,
            shown=_films(next((one["films"] for one in clips if one["films"]), {})),
        )
        readings, real = {}, {}
        for cell, one in found.items():
            if cell.startswith("answer-"):
                i, j = map(int, cell.split("-")[1:])
                readings[i, j], real[i] = one["measured"], one["real"]
        return diagnosis, summarise_response(readings, real) if readings else None


def _text(films: dict[str, list[Film]]) -> dict[str, list[list[str]]]:
    """Films as JSON can hold them."""
    return {s: [[base64.b64encode(x).decode() for x in astuple(one)] for one in by] for s, by in films.items()}


def _films(text: dict[str, list[list[str]]]) -> dict[str, list[Film]]:
    return {s: [Film(*(base64.b64decode(x) for x in one)) for one in by] for s, by in text.items()}
