"""
Measures a folder of videos, alone or against a folder of real ones.

One video is in memory at a time. Results are cached by the content of the file: an interrupted run can be continued, a
changed file is measured again, and several processes (`accelerate launch`) share the files of a folder and then read
each other's records.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import RootModel
from torch import Tensor

from unstill.data import video_files
from unstill.data.images import PICTURE_SUFFIXES
from unstill.documents import read_json
from unstill.errors import UnstillError
from unstill.metrics.evaluator import Evaluator
from unstill.metrics.inputs import EvaluationSettings
from unstill.metrics.record_cache import RecordCache
from unstill.metrics.registry import reported_values
from unstill.metrics.report import EvaluationReport
from unstill.metrics.summary import summarize
from unstill.progress import FigureProgress


Prompts = RootModel[dict[str, str]]


@dataclass(frozen=True, slots=True)
class _Folder:
    """The generated or the real videos; `images` and `prompts` are keyed by a video's relative name without suffix."""

    root: Path
    files: list[Path]
    images: Mapping[str, Path]
    prompts: Mapping[str, str]

    @classmethod
    def find(cls, path: Path, images: Mapping[str, Path], prompts: Mapping[str, str]) -> _Folder:
        single = path.is_file()
        return cls(path.parent if single else path, [path] if single else video_files(path), images, prompts)

    def stem(self, file: Path) -> str:
        return _stem(file, self.root)

    def measure(self, file: Path, evaluator: Evaluator) -> dict[str, Tensor]:
        stem = self.stem(file)
        return evaluator.measure(file, self.images.get(stem), self.prompts.get(stem))


def evaluate(
    generated: str | Path,
    reference: str | Path | None = None,
    settings: EvaluationSettings | None = None,
    *,
    images: str | Path | None = None,
    prompts: str | Path | None = None,
    cache: str | Path | None = None,
    progress: FigureProgress | None = None,
) -> EvaluationReport:
    """
    Measures the videos of a folder (or one video), alone or against real ones.

    Args:
        generated: folder of videos, subfolders included, or one video.
        reference: the same of real videos. Videos of the same relative name belong together: the motion score of the
            generated one is compared with that of its reference.
        settings: how videos are read and which networks measure them; by default those that need no downloads.
        images: folder of the conditional images under the names of their videos. Without it, the first frame of the
            reference of the same name is the image, or else the first frame of the video itself.
        prompts: JSON file, {relative name without suffix: text}.
        cache: folder of the results of single videos; by default in the user's cache folder.
        progress: called with (stage, done, total, "") after every video; stage is "generated" or "reference".

    Returns:
        The scores, with `.as_dict()` for JSON and `.table()` for a terminal. A video that cannot be measured does not
        raise; `.skipped` has the reason.

    Raises:
        UnstillError: nothing to measure, weights that cannot be read, or no video that can be measured.

    Example:
        >>> report = unstill.evaluate("generated", "real")
        >>> report.scores["motion_score"].value
    """
    settings = settings or EvaluationSettings()
    evaluator = Evaluator(settings, RecordCache(cache or _user_cache()))
    advice = "it must be one JSON object, {name without suffix: text}"
    texts = read_json(Path(prompts), Prompts, advice).root if prompts else {}
    real = _Folder.find(Path(reference), {}, {}) if reference else None
    conditions = _images(Path(images)) if images else {real.stem(file): file for file in real.files} if real else {}
    folder = _Folder.find(Path(generated), conditions, texts)
    skipped: dict[str, str] = {}
    values = _measure_all("generated", folder, evaluator, progress, skipped)
    real_values = _measure_all("reference", real, evaluator, progress, skipped) if real else None
    scores, notes = summarize(values, real_values, evaluator.inputs)
    alone = [stem for stem in values if stem not in conditions]
    if alone:
        those = "One video has no image; its" if len(alone) == 1 else f"{len(alone)} videos have no image; their"
        notes.append(f"{those} fidelity is to the video's own first frame.")
    shown = reported_values()
    features = evaluator.inputs.get("i3d") or evaluator.inputs["proxy_features"]
    return EvaluationReport(
        generated=str(generated),
        reference=str(reference) if reference else None,
        videos=len(values),
        settings=asdict(settings) | {"features": features.name},
        scores=scores,
        by_video={
            stem: {name: float(value.mean()) for name, value in sorted(of_video.items()) if name in shown}
            for stem, of_video in values.items()
        },
        skipped=skipped,
        notes=tuple(notes),
    )


def _measure_all(
    stage: str, folder: _Folder, evaluator: Evaluator, progress: FigureProgress | None, skipped: dict[str, str]
) -> dict[str, dict[str, Tensor]]:
    """Values by relative name. Files that cannot be measured are entered in `skipped` with the reason."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        from accelerate import PartialState

        state = PartialState()
        for file in folder.files[state.process_index :: state.num_processes]:
            try:
                folder.measure(file, evaluator)
            except UnstillError:
                continue  # the pass over all files reports it
        state.wait_for_everyone()
    values: dict[str, dict[str, Tensor]] = {}
    for number, file in enumerate(folder.files, start=1):
        try:
            stem = folder.stem(file)
            values[f"{stem}{file.suffix}" if stem in values else stem] = folder.measure(file, evaluator)
        except UnstillError as error:
            skipped[str(file)] = str(error)
        if progress:
            progress(stage, number, len(folder.files), "")
    if not values:
        reason = skipped[str(folder.files[0])]
        if len(folder.files) == 1:
            raise UnstillError(reason)
        raise UnstillError(
            f"None of the {len(folder.files)} videos of {folder.root} could be measured; the first: {reason}"
        )
    return values


def _stem(file: Path, root: Path) -> str:
    return file.relative_to(root).with_suffix("").as_posix()


def _images(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise UnstillError(f"There is no folder of images {folder}.")
    return {_stem(file, folder): file for file in sorted(folder.rglob("*")) if file.suffix.lower() in PICTURE_SUFFIXES}


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "unstill" / "evaluate"
