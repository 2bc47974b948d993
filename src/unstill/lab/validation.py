"""Validation during training: a few sampled videos, and the leakage curve."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from unstill.data.images import PICTURE_SUFFIXES, read_image, resize_and_crop
from unstill.data.ownership import Results, together
from unstill.data.sources import Sample, Source, open_source
from unstill.data.video import write_video
from unstill.errors import UnstillError
from unstill.hooks import sampling
from unstill.lab.leakage import measure_leakage
from unstill.lab.one_step import has_image, usual_levels
from unstill.lab.probe_clips import ProbeClip, flow_of, motion_argument, picture_of
from unstill.lab.probe_conditions import ImageCondition
from unstill.lab.validation_page import validation_page
from unstill.methods.prediction_and_residual import PredictionAndResidual
from unstill.models.call_arguments import arguments, generate, parameters
from unstill.training.recipe import Recipe
from unstill.training.setup import usual_clip


LEAKAGE_LEVELS = 5
"""Noise levels of the leakage curve, of those that `unstill diagnose` visits."""


class SampleValidation:
    """
    Samples videos and measures the leakage of a model in training.

    The trainer calls it with the pipeline, the steps done and a folder. It writes `STEP-I.mp4`, `STEP.html` (loss,
    figures and videos on one page) and `STEP-leak.json` (the leakage curves, and the record of the other files) into
    the folder, and returns figures for the log: the motion of the videos, and explained motion and leakage at the
    middle level. The clips are the first ones of the data set; the images are their first frames, or the pictures of a
    folder.
    """

    def __init__(self, recipe: Recipe) -> None:
        assert recipe.validation is not None
        self._recipe, self._settings = recipe, recipe.validation
        residual = recipe.condition.method == "prediction-and-residual"
        self._methods = (PredictionAndResidual(),) if residual else ()
        self._source: Source | None = None
        self._pictures: list[Path] = []
        if recipe.validation.images is not None:
            folder = Path(recipe.validation.images)
            self._pictures = sorted(f for f in folder.glob("*") if f.suffix.lower() in PICTURE_SUFFIXES)
            if not self._pictures:
                raise UnstillError(f"validate.images: there are no pictures in {folder}; give a folder of some.")

    def __call__(self, pipe: Any, step: int, folder: Path) -> dict[str, float]:
        pipe.set_progress_bar_config(disable=True)
        names, page = [f"{step:07d}-{i}.mp4" for i in range(self._settings.videos)], f"{step:07d}.html"
        with together(folder / f"{step:07d}-leak.json", [*names, page], "folder for the run") as results:
            videos = self._videos(pipe, results, names)
            flows = [flow_of(video.float() / 255) for video, _ in videos]
            figures = {"motion": sum(flows) / len(flows)} if flows else {}
            figures |= self._leak(pipe, results)
            made = validation_page(folder.parent, self._recipe.model, step, figures, videos)
            made.save(results.folder / page)
            return figures

    def _clip(self, pipe: Any, index: int) -> Sample:
        if self._source is None:
            from unstill.models.registry import find

            shape = usual_clip(pipe, find(self._recipe.model))
            self._source = open_source(self._recipe.data.settings(*shape, self._recipe.seed))
        return self._source.read(index % len(self._source))

    def _call(self, pipe: Any, picture: Any, clip: ProbeClip, motion: float | None) -> dict[str, Any]:
        frames, _, *size = clip.video.shape
        return arguments(
            type(pipe),
            image=picture,
            prompt=clip.caption or None if "prompt" in parameters(type(pipe)) else None,
            motion=motion,
            frames=frames,
            steps=self._settings.steps,
            size=(size[0], size[1]),
        )

    def _videos(self, pipe: Any, results: Results, names: list[str]) -> list[tuple[Tensor, float]]:
        """Samples and writes the videos: uint8 `(F, 3, H, W)`, and frames per second."""
        made = []
        for i, name in enumerate(names):
            sample = self._clip(pipe, i)
            if self._pictures:
                image: Any = read_image(self._pictures[i % len(self._pictures)])
                picture = resize_and_crop(image, (sample.video.shape[-2], sample.video.shape[-1]))
            else:
                picture = picture_of(_probe_clip(sample))
            with sampling(pipe, *self._methods) as sampler:
                video = generate(pipe, self._call(pipe, picture, _probe_clip(sample), None), seed=i, sampler=sampler)
            write_video(results.folder / name, video, sample.fps)
            made.append((video, sample.fps))
        return made

    def _leak(self, pipe: Any, results: Results) -> dict[str, float]:
        if not self._settings.clips:
            return {}
        clips = [_probe_clip(self._clip(pipe, i)) for i in range(self._settings.clips)]
        visited = usual_levels(pipe)
        levels = [visited[round(i * (len(visited) - 1) / (LEAKAGE_LEVELS - 1))] for i in range(LEAKAGE_LEVELS)]

        def call(clip: ProbeClip, picture: Any) -> dict[str, Any]:
            return self._call(pipe, picture, clip, motion_argument(pipe, clip))

        conditions: list[ImageCondition] = ["image", "removed"] if has_image(pipe) else ["image"]
        diagnosis = measure_leakage(pipe, clips, call, levels, conditions=conditions, methods=self._methods)
        results.record = diagnosis.as_dict()
        middle = LEAKAGE_LEVELS // 2
        figures = {"explained_motion": diagnosis.curves["image"]["explained"][middle].value}
        return figures | ({"leak": diagnosis.leak[middle].value} if diagnosis.leak else {})


def _probe_clip(sample: Sample) -> ProbeClip:
    return ProbeClip(sample.video, 0.0 if sample.motion is None else min(sample.motion, 1.0), caption=sample.caption)
