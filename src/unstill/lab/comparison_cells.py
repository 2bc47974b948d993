"""
The cells of a comparison: models x settings x motion levels x images x seeds, one measured video each.

The name of a cell is a hash of everything that its result depends on, so that an interrupted comparison can be
resumed and shared by processes. All settings use the same images and the same noise.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from pydantic import BaseModel, model_validator

from unstill.data.images import resize_and_crop
from unstill.data.ownership import check_folder
from unstill.data.video import write_video
from unstill.errors import UnstillError
from unstill.hooks import sampling
from unstill.lab.one_step import RemovedImage
from unstill.lab.video_measures import METRICS, StoredCell, Toys, measure_video
from unstill.lab.work_queue import WorkQueue, write_once
from unstill.methods.base import Method
from unstill.models.call_arguments import arguments, generate, parameters


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """
    A named combination of methods.

    Attributes:
        name: of the setting.
        methods: none for `plain`.
        described: name and parameters of each method as JSON values.
        steps: number of sampling steps, if not the model's.
    """

    name: str
    methods: tuple[Method, ...]
    described: tuple[dict[str, Any], ...] = ()
    steps: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """One video of a comparison; `motion_asked` is the requested motion level."""

    model: str
    setting: str
    motion_asked: float | None
    image: str
    seed: int

    def key(self, inputs: dict[str, Any]) -> str:
        """A hash of the cell and of everything else that its result depends on."""
        content = json.dumps([asdict(self), inputs], sort_keys=True, default=str)
        return hashlib.sha256(content.encode()).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True, slots=True)
class ComparedModel:
    """
    A model of a comparison.

    Attributes:
        name: of the model.
        load: returns the pipeline.
        weights: identifies the weights, see `model_fingerprint`.
        size: (height, width) of the videos in pixels.
        settings: to compare.
        frames, steps: number of video frames and of sampling steps; `None` for the pipeline's default.
        guidance: weight of prompt and image; `None` for the pipeline's default.
        fps: of the written videos.
    """

    name: str
    load: Callable[[], Any]
    weights: str = ""
    size: tuple[int, int]
    settings: tuple[Setting, ...]
    frames: int | None = None
    steps: int | None = None
    guidance: float | None = None
    fps: float = 8.0


class Comparison:
    """
    The cells of a comparison in a folder.

    `manifest.json` lists them, `done/` holds one JSON file per finished cell, `videos/` the videos. A folder holds a
    single comparison, whose cells several processes may share.

    Raises:
        UnstillError: the folder holds another comparison.
    """

    def __init__(
        self,
        folder: Path,
        models: Sequence[ComparedModel],
        images: dict[str, Image.Image],
        seeds: Sequence[int],
        *,
        motions: Sequence[float | None] = (None,),
        prompts: Mapping[str, str] | str | None = None,
        caption_only: bool = False,
        toys: Mapping[str, Toys] | None = None,
    ) -> None:
        """
        Args:
            folder: of the comparison; created if missing.
            models: with their settings.
            images: pictures by name.
            seeds: of the noise.
            motions: requested motion levels; `None` for the pipeline's default.
            prompts: one prompt for all images, or prompts by the name of the image.
            caption_only: the denoiser does not see the image; only the methods use it.
            toys: toys of the images, by the name of the image.
        """
        self.folder, self.images, self.caption_only, self.toys = folder, images, caption_only, toys or {}
        self.prompts: Mapping[str, str | None] = (
            prompts if isinstance(prompts, Mapping) else dict.fromkeys(images, prompts)
        )
        self.models = {model.name: model for model in models}
        cells = [
            Cell(model=model.name, setting=setting.name, motion_asked=motion, image=image, seed=seed)
            for model in models
            for setting in model.settings
            for motion in motions
            for image in images
            for seed in seeds
        ]
        if not cells:
            raise UnstillError("There is nothing to compare: give at least one image, seed, setting and model.")
        self.cells = {cell.key(self._inputs(cell)): cell for cell in cells}
        manifest = {"cells": {key: asdict(cell) for key, cell in self.cells.items()}}
        if not (folder / "manifest.json").exists():
            check_folder(folder, "manifest.json", ("done", "claims", "videos"))
        if write_once(folder / "manifest.json", manifest) != manifest:
            raise UnstillError(f"{folder} holds another comparison; choose another folder, or delete that one.")
        (folder / "videos").mkdir(exist_ok=True)
        self._queue = WorkQueue(folder, list(self.cells), self._schema)
        self._loaded: tuple[str, Any] = ("", None)

    def _schema(self, key: str) -> type[BaseModel]:
        """The schema of the file of one cell: `StoredCell` with the fields of this cell."""
        expected = asdict(self.cells[key])

        class Result(StoredCell):
            @model_validator(mode="after")
            def _of_this_cell(self) -> Result:
                if any(getattr(self, name) != value for name, value in expected.items()):
                    raise ValueError("it is the result of another cell")
                return self

        return Result

    def run(
        self,
        rank: int = 0,
        processes: int = 1,
        progress: Callable[[int, int], None] | None = None,
    ) -> int:
        """
        Computes the missing cells, beginning at this process's share. Rank 0 waits for those of other processes.

        Args:
            rank: index of this process.
            processes: number of processes.
            progress: called with (finished cells, all cells).

        Returns:
            The number of cells that this process computed.
        """
        first = rank * len(self.cells) // processes
        return self._queue.work(self._make, first=first, wait=rank == 0, progress=progress)

    def results(self) -> list[dict[str, Any]]:
        """All finished cells with their measurements or errors."""
        results = ((key, self._queue.result(key)) for key in self.cells)
        return [{"cell": key, **result} for key, result in results if result is not None]

    def video(self, key: str) -> Path:
        """The file of a cell's video."""
        return self.folder / "videos" / f"{key}.mp4"

    def _setting(self, cell: Cell) -> Setting:
        return next(setting for setting in self.models[cell.model].settings if setting.name == cell.setting)

    def _inputs(self, cell: Cell) -> dict[str, Any]:
        """Everything besides the cell that its result depends on, as JSON values."""
        model, setting = self.models[cell.model], self._setting(cell)
        return {
            "methods": setting.described,
            "picture": hashlib.sha256(self.images[cell.image].tobytes()).hexdigest(),
            "call": [
                model.frames,
                setting.steps or model.steps,
                model.size,
                self.prompts.get(cell.image),
                self.caption_only,
            ],
            "weights": model.weights,
            **({} if model.guidance is None else {"guidance": model.guidance}),
            **({"toys": toys.fingerprint} if (toys := self.toys.get(cell.image)) else {}),
        }

    def _pipeline(self, model: ComparedModel) -> Any:
        if self._loaded[0] != model.name:
            self._loaded = ("", None)  # first frees the memory of the previous model
            pipe = model.load()
            pipe.set_progress_bar_config(disable=True)
            self._loaded = (model.name, pipe)
        return self._loaded[1]

    def _make(self, key: str) -> dict[str, Any]:
        cell = self.cells[key]
        model = self.models[cell.model]
        pipe = self._pipeline(model)
        picture = resize_and_crop(self.images[cell.image], model.size)
        # On a CPU, the processor time: it does not depend on other programs.
        clock = time.process_time if pipe._execution_device.type == "cpu" else time.perf_counter
        start = clock()
        try:
            video = self._sample(pipe, model, cell, picture)
        except UnstillError as error:  # a method that does not fit this model: the other cells continue
            return {**asdict(cell), "error": str(error)}
        seconds = clock() - start
        scale = max(1, math.ceil(128 / min(model.size))) if min(model.size) < 128 else 1
        write_video(self.video(key), video, model.fps, upscale=scale)
        measures = measure_video(video, picture, self.toys.get(cell.image), cell.motion_asked, model.fps)
        measures["seconds"] = round(seconds, 3)
        finite = {name: value for name, value in measures.items() if math.isfinite(value)}
        if not finite.keys() >= set(METRICS):
            return {**asdict(cell), "error": "A measurement of the video is not finite."}
        return {**asdict(cell), **finite}

    def _sample(self, pipe: Any, model: ComparedModel, cell: Cell, picture: Image.Image) -> torch.Tensor:
        setting = self._setting(cell)
        takes_image = "image" in parameters(type(pipe))
        call = call_arguments(pipe, model, picture, self.prompts.get(cell.image), cell.motion_asked, setting.steps)
        methods = [*setting.methods, *([RemovedImage()] if self.caption_only and takes_image else [])]
        with sampling(pipe, *methods, image=None if takes_image else picture) as sampler:
            return generate(pipe, call, cell.seed, sampler)


def call_arguments(
    pipe: Any,
    model: ComparedModel,
    picture: Image.Image,
    prompt: str | None,
    motion: float | None,
    steps: int | None = None,
) -> dict[str, Any]:
    """Arguments of a pipeline's call for one video of a comparison; a pipeline without an image is given none."""
    return arguments(
        type(pipe),
        image=picture if "image" in parameters(type(pipe)) else None,
        prompt=prompt,
        motion=motion,
        guidance=model.guidance,
        frames=model.frames,
        steps=steps or model.steps,
        size=model.size,
    )
