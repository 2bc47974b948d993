"""
A diagnosis in a folder: each clip, each video sampled at a requested motion level, and each pair of videos with and
without an image is a cell that is computed once, also when the work is stopped and resumed or shared by processes.

The name of the folder is a hash of everything that the results depend on, so that another diagnosis uses another one.
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
from typing import Annotated, Any, NamedTuple, Self

import numpy as np
from PIL import Image
from pydantic import Field, model_validator
from torch import Tensor

from unstill.documents import Stored
from unstill.errors import UnstillError
from unstill.forward_process import ForwardProcess
from unstill.lab.html_report import Film, film
from unstill.lab.image_gap import ImageGap, summarise_image_gap
from unstill.lab.leakage import SHARE, Diagnosis, films_of, gathered, probe_clip, summarise_leakage
from unstill.lab.motion_response import REQUESTED_LEVELS, ResponseCurve, motion_of, summarise_response
from unstill.lab.one_step import unit_of
from unstill.lab.probe_clips import ProbeClip, ProbeClips
from unstill.lab.probe_conditions import ImageCondition, NoiseLevel
from unstill.lab.reference_attention import AttentionByLevel, summarise_attention
from unstill.lab.work_queue import WorkQueue
from unstill.methods.base import Method
from unstill.models.call_arguments import generate


log = logging.getLogger(__name__)


_Figure = Annotated[float, Field(ge=0, le=1e12)]
_Share = Annotated[float, Field(ge=0, le=1 + 1e-5)]
NOT_FINITE = "A measurement is not finite."


class _Clip(Stored):
    """The file of a probed clip: the result of `_probed`, or the error that prevented it."""

    error: str | None = None
    levels: list[tuple[_Figure, _Figure, _Figure]] = []
    records: dict[str, dict[str, list[_Figure]]] = {}
    films: dict[str, list[tuple[str, str]]] = {}
    attention: list[list[_Share]] | None = None
    uniform: _Share | None = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.error is None and not (self.levels and "truth" in self.records):
            raise ValueError("levels or records are missing")
        counts = {len(values) for source, by in self.records.items() if source != "truth" for values in by.values()}
        if counts - {len(self.levels)}:
            raise ValueError("the records are not one figure for each level")
        if self.attention is not None and (
            self.uniform is None
            or len(self.attention) != len(self.levels)
            or len({len(row) for row in self.attention}) != 1
        ):
            raise ValueError("the attention is not one row of equal length for each level")
        _check_films(self.films)
        return self


def _check_films(films: dict[str, list[tuple[str, str]]]) -> None:
    for text in (text for by in films.values() for pair in by for text in pair):
        base64.b64decode(text, validate=True)


class _Pair(Stored):
    """The file of a video of a text and one of the same text and the former's first frame."""

    error: str | None = None
    without: _Figure | None = None
    with_image: _Figure | None = None
    films: dict[str, list[tuple[str, str]]] = {}

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.error is None and (self.without is None or self.with_image is None):
            raise ValueError("a figure is missing")
        _check_films(self.films)
        return self


class _Answer(Stored):
    """The file of a video that was sampled for a requested motion level."""

    error: str | None = None
    measured: _Figure | None = None
    real: _Figure | None = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.error is None and (self.measured is None or self.real is None):
            raise ValueError("a figure is missing")
        return self


_CELLS: dict[str, type[Stored]] = {"clip": _Clip, "answer": _Answer, "gap": _Pair}


class Findings(NamedTuple):
    """
    The measurements of a diagnosis.

    Attributes:
        diagnosis: at every noise level.
        response: measured against requested motion.
        attention: to the first latent frame.
        gap: motion with and without an image.
        gap_films: the first pair of videos, by `"without"` and `"with"`.
    """

    diagnosis: Diagnosis
    response: ResponseCurve | None = None
    attention: AttentionByLevel | None = None
    gap: ImageGap | None = None
    gap_films: dict[str, list[Film]] = {}


@dataclass(frozen=True, kw_only=True)
class DiagnosisRun:
    """
    Args:
        work: parent of the folder of this diagnosis.
        decides: everything that the results depend on besides the fields of this class, as JSON values.
        pipe, call, levels, conditions, methods, share, seed, fps: as of `measure_leakage`.
        answers: clips for which a video is sampled at each of `REQUESTED_LEVELS`; `None`: no videos.
        ask: arguments of the pipeline's call for a clip and a requested level.
        pairs: number of pairs of videos with and without an image.
        pair: makes one of them from its index: a video of a text, and one of the same text and the former's first
            frame, `(F, 3, H, W)` in [0, 1].
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
    pairs: int = 0
    pair: Callable[[int], tuple[Tensor, Tensor]] | None = None

    def run(
        self, rank: int = 0, processes: int = 1, progress: Callable[[int, int], None] | None = None
    ) -> Findings | None:
        """
        Computes the missing cells, beginning at this process's share.

        Returns:
            The measurements, in the process of rank 0, which waits for the others; `None` in the others.
        """
        videos = [f"{i}-{j}" for i in range(len(self.answers or ())) for j in range(len(REQUESTED_LEVELS))]
        cells = [f"clip-{i}" for i in range(len(self.subjects))] + [f"answer-{video}" for video in videos]
        cells += [f"gap-{i}" for i in range(self.pairs)]
        queue = WorkQueue(self.work / self._key, cells, lambda cell: _CELLS[cell.partition("-")[0]])
        queue.work(self._make, first=rank * len(cells) // processes, wait=rank == 0, progress=progress)
        return self._summary(queue) if rank == 0 else None

    @property
    def _key(self) -> str:
        content = [
            *(self.name, self.subjects.fingerprint, list(self.levels), list(self.conditions), self.seed),
            *(self.fps, self.answers.fingerprint if self.answers is not None else None, self.decides),
            "attention",  # is measured since a cell has it
        ]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    def _make(self, cell: str) -> dict[str, Any]:
        kind, i, *rest = cell.split("-")
        index = int(i)
        if kind == "gap":
            return self._paired(index)
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
        video = generate(self.pipe, self.ask(subject, REQUESTED_LEVELS[int(rest[0])]), self.seed + index)
        readings = {"measured": motion_of(video.float() / 255), "real": motion_of(subject.video)}
        return readings if all(map(math.isfinite, readings.values())) else {"error": NOT_FINITE}

    def _probed(self, subject: ProbeClip, index: int) -> dict[str, Any]:
        probed = probe_clip(
            self.pipe, subject, self.call, self.levels, self.conditions, self.methods, self.seed + index
        )
        if not all(np.isfinite(values).all() for by in probed.records.values() for values in by.values()):
            return {"error": NOT_FINITE}
        return {
            "levels": [astuple(level) for level in probed.levels],
            "records": {s: {q: values.tolist() for q, values in by.items()} for s, by in probed.records.items()},
            "films": _text(films_of(probed.videos, self.fps)) if index == 0 else {},
            "attention": probed.attention and probed.attention.mass.tolist(),
            "uniform": probed.attention and probed.attention.uniform,
        }

    def _paired(self, index: int) -> dict[str, Any]:
        assert self.pair is not None
        from_text, from_image = self.pair(index)
        readings = {"without": motion_of(from_text), "with_image": motion_of(from_image)}
        if not all(map(math.isfinite, readings.values())):
            return {"error": NOT_FINITE}
        shown = {"without": [film(from_text, self.fps)], "with": [film(from_image, self.fps)]} if index == 0 else {}
        return {**readings, "films": _text(shown)}

    def _summary(self, queue: WorkQueue) -> Findings:
        results = {cell: queue.result(cell) for cell in queue.cells}
        done = {cell: result for cell, result in results.items() if result is not None and "error" not in result}
        clips = [result for cell, result in done.items() if cell.startswith("clip-")]
        rows = [{s: {q: np.array(v) for q, v in by.items()} for s, by in clip["records"].items()} for clip in clips]
        diagnosis = summarise_leakage(
            gathered(rows),
            [NoiseLevel(*level) for level in clips[0]["levels"]],
            unit_of(ForwardProcess.of(self.pipe.scheduler)),
            name=self.name,
            share=self.share,
            shown=_films(next((clip["films"] for clip in clips if clip["films"]), {})),
        )
        readings, real = {}, {}
        for cell, result in done.items():
            if cell.startswith("answer-"):
                i, j = map(int, cell.split("-")[1:])
                readings[i, j], real[i] = result["measured"], result["real"]
        attention = [clip["attention"] for clip in clips if clip["attention"] is not None]
        pairs = [result for cell, result in done.items() if cell.startswith("gap-")]
        return Findings(
            diagnosis,
            summarise_response(readings, real) if readings else None,
            summarise_attention(attention, clips[0]["uniform"]) if attention else None,
            summarise_image_gap([(pair["without"], pair["with_image"]) for pair in pairs]) if pairs else None,
            _films(next((pair["films"] for pair in pairs if pair["films"]), {})),
        )


def _text(films: dict[str, list[Film]]) -> dict[str, list[list[str]]]:
    """Films as JSON values, base64."""
    return {s: [[base64.b64encode(x).decode() for x in astuple(film)] for film in by] for s, by in films.items()}


def _films(text: dict[str, list[list[str]]]) -> dict[str, list[Film]]:
    return {s: [Film(*(base64.b64decode(x) for x in film)) for film in by] for s, by in text.items()}
