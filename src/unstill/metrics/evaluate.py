"""Measure a folder of videos, alone or against a folder of real ones.

One video is in memory at a time. What was measured on a file is kept under a hash of its content and of the settings:
a run that was stopped goes on where it was, a changed file is measured again, and several processes (`accelerate
launch`) share the files of a folder and then read each other's records.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unstill.data import as_frames, read_image, read_video, resize_and_crop, video_files
from unstill.errors import UnstillError
from unstill.metrics.c3d import FRAMES
from unstill.metrics.evaluator import Measure, Sample, Settings
from unstill.metrics.frechet import frechet_distance, inception_score
from unstill.metrics.record_cache import RecordCache
from unstill.metrics.report import MEANINGS, Report, Score


_VERSION = 2  # of what is measured; raise it when a number changes for the same file and settings
_IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
Progress = Callable[[str, int, int, str], None]


@dataclass(frozen=True, slots=True)
class _Folder:
    """The videos of one side; `images` and `prompts` go by a video's relative name without suffix."""

    root: Path
    files: list[Path]
    images: dict[str, Path]
    prompts: Mapping[str, str]

    @classmethod
    def find(cls, path: Path, images: dict[str, Path], prompts: Mapping[str, str]) -> _Folder:
        single = path.is_file()
        return cls(path.parent if single else path, [path] if single else video_files(path), images, prompts)

    def stem(self, file: Path) -> str:
        return _stem(file, self.root)


def _stem(file: Path, root: Path) -> str:
    return file.relative_to(root).with_suffix("").as_posix()


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _measured(folder: _Folder, file: Path, measure: Measure, records: RecordCache) -> dict[str, Tensor]:
    """All values of one file, from its records where they exist."""
    s, stem = measure.settings, folder.stem(file)
    image_file, prompt = folder.images.get(stem), folder.prompts.get(stem)
    try:
        content = _digest(file)
        picture = _digest(image_file) if image_file else ""
    except OSError as error:
        raise UnstillError(f"{file} cannot be read ({error.strerror}).") from error
    source = f"v{_VERSION} {s.frames} {s.fps} {picture} {prompt}"
    keys = {group: records.key(content, f"{source} {group}") for group in measure.groups}
    known = {group: records.load(key) for group, key in keys.items()}
    sample = None
    for group, function in measure.groups.items():
        if known[group] is None:
            if sample is None:
                clip = read_video(file, fps=s.fps, frames=s.frames)
                size = (clip.frames.shape[2], clip.frames.shape[3])
                image = _picture(image_file, size) if image_file else None
                sample = Sample(clip.frames, clip.fps, image, prompt)
            values = {
                name: torch.as_tensor(value, dtype=torch.float32 if name == "features" else torch.float64).reshape(-1)
                for name, value in function(sample).items()
            }
            records.save(keys[group], values)
            known[group] = values
    return {name: value for values in known.values() if values is not None for name, value in values.items()}


def _images(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise UnstillError(f"There is no folder of images {folder}.")
    return {_stem(file, folder): file for file in sorted(folder.rglob("*")) if file.suffix.lower() in _IMAGES}


def _picture(file: Path, size: tuple[int, int]) -> Tensor:
    """A picture, or the first frame of a video, as uint8 (3, *size)."""
    if file.suffix.lower() in _IMAGES:
        return as_frames([read_image(file, size)])[0]
    return resize_and_crop(read_video(file, frames=1).frames, size)[0]


def _all(
    stage: str,
    folder: _Folder,
    measure: Measure,
    records: RecordCache,
    progress: Progress | None,
    skipped: dict[str, str],
) -> dict[str, dict[str, Tensor]]:
    """Values by stem. Files that cannot be measured are named in `skipped` with the reason."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        from accelerate import PartialState

        state = PartialState()
        for file in folder.files[state.process_index :: state.num_processes]:
            try:
                _measured(folder, file, measure, records)
            except UnstillError:
                continue  # the pass over all files reports it
        state.wait_for_everyone()
    found = {}
    for number, file in enumerate(folder.files, start=1):
        try:
            stem = folder.stem(file)
            found[f"{stem}{file.suffix}" if stem in found else stem] = _measured(folder, file, measure, records)
        except UnstillError as error:
            skipped[str(file)] = str(error)
        if progress:
            progress(stage, number, len(folder.files), "")
    if not found:
        reason = skipped[str(folder.files[0])]
        if len(folder.files) == 1:
            raise UnstillError(reason)
        raise UnstillError(
            f"None of the {len(folder.files)} videos of {folder.root} could be measured; the first: {reason}"
        )
    return found


def evaluate(
    generated: str | Path,
    reference: str | Path | None = None,
    settings: Settings | None = None,
    *,
    images: str | Path | None = None,
    prompts: str | Path | None = None,
    cache: str | Path | None = None,
    progress: Progress | None = None,
) -> Report:
    """Measure the videos of a folder (or one video), alone or against real ones.

    Args:
        generated, reference: folders of videos, subfolders included. Videos of the same relative name belong together:
            the motion score of the generated one is compared with that of its reference.
        images: folder of the conditional images under the names of their videos; without it, the first frame of the
            reference of the same name, or else of the video itself, takes its place.
        prompts: JSON file, {relative name without suffix: text}.
        cache: where records are kept; by default in the user's cache folder.
        progress: called with (stage, done, total, "") after every video.

    Raises:
        UnstillError: nothing to measure, wrong weights, or no video that can be read. Single bad files do not raise;
            they are listed in the report.
    """
    settings = settings or Settings()
    measure = Measure(settings)
    texts = _prompts(prompts)
    records = RecordCache(cache or _user_cache())
    real = _Folder.find(Path(reference), {}, {}) if reference else None
    conditions = _images(Path(images)) if images else {real.stem(file): file for file in real.files} if real else {}
    made = _Folder.find(Path(generated), conditions, texts)
    skipped: dict[str, str] = {}
    ours = _all("generated", made, measure, records, progress, skipped)
    theirs = _all("reference", real, measure, records, progress, skipped) if real else None
    scores, notes = _summary(ours, theirs, settings)
    alone = [stem for stem in ours if stem not in conditions]
    if alone:
        those = "One video has no image; its" if len(alone) == 1 else f"{len(alone)} videos have no image; their"
        notes.append(f"{those} fidelity is to the video's own first frame.")
    return Report(
        generated=str(generated),
        reference=str(reference) if reference else None,
        videos=len(ours),
        settings=asdict(settings) | {"features": measure.features.name},
        scores=scores,
        by_video={
            stem: {name: float(value.mean()) for name, value in sorted(values.items()) if name in MEANINGS}
            for stem, values in ours.items()
        },
        skipped=skipped,
        notes=tuple(notes),
    )


def _summary(
    ours: dict[str, dict[str, Tensor]], theirs: dict[str, dict[str, Tensor]] | None, settings: Settings
) -> tuple[dict[str, Score], list[str]]:
    scores, notes = {}, []
    for name in MEANINGS:
        values = _column(ours, name)
        if values:
            real = _column(theirs or {}, name)
            scores[name] = Score(
                value=math.fsum(values) / len(values),
                error=_error(values),
                count=len(values),
                reference=math.fsum(real) / len(real) if real else None,
            )
    lengths = sorted({int(v["frames"]) for side in (ours, theirs or {}) for v in side.values()})
    if len(lengths) > 1:
        notes.append(f"Videos have {lengths[0]} to {lengths[-1]} frames; sums and distances want equal lengths.")
    if "probabilities" in next(iter(ours.values())):
        scores["inception_score"] = _inception(ours, theirs, settings.splits, notes)
    if theirs is None:
        return scores, notes
    pairs = sorted(ours.keys() & theirs.keys())
    if pairs:
        gaps = [abs(float(ours[k]["motion_score"] - theirs[k]["motion_score"])) for k in pairs]
        scores["motion_score_error"] = Score(value=math.fsum(gaps) / len(gaps), error=_error(gaps), count=len(gaps))
    if min(len(ours), len(theirs)) < 2:
        notes.append("A distance needs at least 2 videos on each side.")
        return scores, notes
    x, y = (torch.stack([side[k]["features"] for k in sorted(side)]) for side in (ours, theirs))
    name = "fvd" if settings.i3d else "proxy_frechet_distance"
    scores[name] = Score(value=frechet_distance(x, y, settings.unbiased), error=None, count=len(x))
    if min(len(x), len(y)) < 2048:
        notes.append(f"Frechet distances grow as sets shrink; compare only with {len(x)} against {len(y)} videos.")
    return scores, notes


def _column(side: dict[str, dict[str, Tensor]], name: str) -> list[float]:
    return [x for stem in sorted(side) if name in side[stem] for x in side[stem][name].tolist()]


def _error(values: list[float]) -> float | None:
    if len(values) < 2:
        return None
    return float(torch.tensor(values, dtype=torch.float64).std()) / len(values) ** 0.5


def _inception(
    ours: dict[str, dict[str, Tensor]], theirs: dict[str, dict[str, Tensor]] | None, splits: int, notes: list[str]
) -> Score:
    def score(side: dict[str, dict[str, Tensor]]) -> tuple[float, float]:
        rows = torch.stack([side[k]["probabilities"] for k in sorted(side)])
        # Names often begin with their class: in that order each split would hold few classes and score too low.
        return inception_score(rows, min(splits, len(rows)), shuffle_seed=42)

    mean, deviation = score(ours)
    notes.append(f"Inception score over {min(splits, len(ours))} splits, shuffled; {FRAMES} frames per video.")
    return Score(value=mean, error=deviation, count=len(ours), reference=score(theirs)[0] if theirs else None)


def _prompts(file: str | Path | None) -> dict[str, str]:
    if file is None:
        return {}
    try:
        content: Any = json.loads(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UnstillError(f"{file} cannot be read as JSON of the form {{name: text}} ({error}).") from error
    if not isinstance(content, dict) or not all(isinstance(text, str) for text in content.values()):
        raise UnstillError(f"{file} must hold one JSON object of the form {{name without suffix: text}}.")
    return content


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "unstill" / "evaluate"
