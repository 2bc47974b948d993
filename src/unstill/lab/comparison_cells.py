"""
Models x settings x motion levels x images x seeds: one video per cell, made once, measured and kept.

A cell is named after everything that decides its result, so a stopped comparison can be resumed, and several processes
can share it. Every setting sees the same images and the same noise.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
import torch
from PIL import Image
from pydantic import BaseModel, Field, model_validator

from unstill.data.images import resize_and_crop
from unstill.data.ownership import check_folder
from unstill.data.video import write_video
from unstill.documents import Stored
from unstill.errors import UnstillError
from unstill.hooks import sampling
from unstill.lab.one_step import Removed
from unstill.lab.probe_clips import flow_of
from unstill.lab.toys import measure_toys
from unstill.lab.work_queue import WorkQueue, settle
from unstill.methods.base import Method
from unstill.metrics import first_frame_error, proxy_coherence, proxy_colour_fidelity, proxy_edge_fidelity
from unstill.models.call_arguments import arguments, generate, parameters


METRICS = ("motion", "fidelity", "colour", "detail", "coherence", "first_frame_error", "seconds")
"""motion: mean optical flow, % of the picture's side per frame; fidelity: mean of the proxies colour and detail;
seconds: on a CPU those of its own time."""
TOY_METRICS = ("travel", "travel_share", "outline", "toy_colour", "background_error")
"""Of pictures of the synthetic world, whose toys are known: see `unstill.lab.toys.ToyMeasures`. travel_share: travel
as a share of what was asked for, which is that of the picture's own clip, scaled to the motion level asked for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """Methods under the name of their setting; `described`: their parameters as JSON values."""

    name: str
    methods: tuple[Method, ...]
    described: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """One video to make."""

    model: str
    setting: str
    motion_asked: float | None
    image: str
    seed: int

    def key(self, decides: dict[str, Any]) -> str:
        """A name for the cell, from it and from what else decides its result."""
        content = json.dumps([asdict(self), decides], sort_keys=True, default=str)
        return hashlib.sha256(content.encode()).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True, slots=True)
class ComparedModel:
    """How to load a model, and its default settings. `weights` identifies the weights behind the name."""

    name: str
    load: Callable[[], Any]
    weights: str = ""
    size: tuple[int, int]
    settings: tuple[Setting, ...]
    frames: int | None = None
    steps: int | None = None
    fps: float = 8.0


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Toys:
    """What is known of the toys of an image: `masks` (S, H, W), and the motion level and the travel (% of the side per
    frame) of the clip that the image is the first frame of."""

    masks: torch.Tensor
    motion: float
    travel: float

    @property
    def fingerprint(self) -> str:
        content = self.masks.numpy().tobytes() + repr((self.motion, self.travel)).encode()
        return hashlib.sha256(content).hexdigest()


_Share = Annotated[float, Field(ge=0, le=1)]
_Amount = Annotated[float, Field(ge=0, le=1e9)]


class _Figures(Stored):
    """The file of a finished cell: the cell, and what was measured or the reason why nothing was."""

    model: str
    setting: str
    motion_asked: float | None
    image: str
    seed: int
    error: str | None = None
    motion: _Amount | None = None
    fidelity: _Share | None = None
    colour: _Share | None = None
    detail: _Share | None = None
    coherence: _Share | None = None
    first_frame_error: _Share | None = None
    seconds: _Amount | None = None
    travel: _Amount | None = None
    travel_share: _Amount | None = None
    outline: _Amount | None = None
    toy_colour: _Amount | None = None
    background_error: _Amount | None = None

    @model_validator(mode="after")
    def _figures_or_reason(self) -> Self:
        lacks = [name for name in METRICS if getattr(self, name) is None]
        if self.error is None and lacks:
            raise ValueError(f"{lacks[0]} is missing")
        return self


class Comparison:
    """The cells of a comparison in a folder.

    `manifest.json` lists them, `done/` holds one JSON file per finished cell, `videos/` the videos. The folder belongs
    to one comparison; processes of the same comparison share its cells.

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
        blind: bool = False,
        toys: Mapping[str, Toys] | None = None,
    ) -> None:
        """
        Args:
            images: by name; so are `prompts`, where every image has its own.
            toys: what is known of the toys of an image, by its name.
            blind: the denoiser does not see the image, which only the methods know: a text-to-video model of one that
                takes both.
        """
        self.folder, self.images, self.blind, self.toys = folder, images, blind, toys or {}
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
        self.cells = {cell.key(self._decides(cell)): cell for cell in cells}
        own = {"cells": {key: asdict(cell) for key, cell in self.cells.items()}}
        if not (folder / "manifest.json").exists():
            check_folder(folder, "manifest.json", ("done", "claims", "videos"))
        if settle(folder / "manifest.json", own) != own:
            raise UnstillError(f"{folder} holds another comparison; choose another folder, or delete that one.")
        (folder / "videos").mkdir(exist_ok=True)
        self._claims = WorkQueue(folder, list(self.cells), self._result_of)
        self._loaded: tuple[str, Any] = ("", None)

    def _result_of(self, key: str) -> type[BaseModel]:
        """What the file of a cell must hold: the cell itself, and figures within bounds or why there are none."""
        own = asdict(self.cells[key])

        class Result(_Figures):
            @model_validator(mode="after")
            def _of_this_cell(self) -> Result:
                if any(getattr(self, name) != value for name, value in own.items()):
                    raise ValueError("it is the result of another cell")
                return self

        return Result

    def run(
        self,
        rank: int = 0,
        processes: int = 1,
        progress: Callable[[int, int], None] | None = None,
    ) -> int:
        """Makes what is missing, beginning at this process's share; returns how many cells it made. The process of
        rank 0 stays until all are done."""
        first = rank * len(self.cells) // processes
        return self._claims.work(self._make, first=first, wait=rank == 0, progress=progress)

    def results(self) -> list[dict[str, Any]]:
        """All finished cells: what they are, and what was measured or why they failed."""
        found = ((key, self._claims.result(key)) for key in self.cells)
        return [{"cell": key, **result} for key, result in found if result is not None]

    def video(self, key: str) -> Path:
        return self.folder / "videos" / f"{key}.mp4"

    def _decides(self, cell: Cell) -> dict[str, Any]:
        model = self.models[cell.model]
        setting = next(one for one in model.settings if one.name == cell.setting)
        return {
            "methods": setting.described,
            "picture": hashlib.sha256(self.images[cell.image].tobytes()).hexdigest(),
            "call": [model.frames, model.steps, model.size, self.prompts.get(cell.image), self.blind],
            "weights": model.weights,
            **({"toys": toys.fingerprint} if (toys := self.toys.get(cell.image)) else {}),
        }

    def _pipeline(self, model: ComparedModel) -> Any:
        if self._loaded[0] != model.name:
            self._loaded = ("", None)  # frees the memory of the last model first
            pipe = model.load()
            pipe.set_progress_bar_config(disable=True)
            self._loaded = (model.name, pipe)
        return self._loaded[1]

    def _make(self, key: str) -> dict[str, Any]:
        cell = self.cells[key]
        model = self.models[cell.model]
        setting = next(one for one in model.settings if one.name == cell.setting)
        pipe = self._pipeline(model)
        picture = resize_and_crop(self.images[cell.image], model.size)
        # On a CPU the processor time of this process counts, since other programs may be running.
        clock = time.process_time if pipe._execution_device.type == "cpu" else time.perf_counter
        began = clock()
        try:
            video = self._sample(pipe, model, setting, cell, picture)
        except UnstillError as error:  # a method that does not fit this model: the other cells continue
            return {**asdict(cell), "error": str(error)}
        seconds = clock() - began
        scale = max(1, math.ceil(128 / min(model.size))) if min(model.size) < 128 else 1
        write_video(self.video(key), video, model.fps, upscale=scale)
        figures = measure_video(video, picture, self.toys.get(cell.image), cell.motion_asked) | {
            "seconds": round(seconds, 3)
        }
        found = {name: value for name, value in figures.items() if math.isfinite(value)}
        if not found.keys() >= set(METRICS):
            return {**asdict(cell), "error": "What was measured of the video is no finite number."}
        return {**asdict(cell), **found}

    def _sample(
        self, pipe: Any, model: ComparedModel, setting: Setting, cell: Cell, picture: Image.Image
    ) -> torch.Tensor:
        takes_image = "image" in parameters(type(pipe))
        call = arguments(
            type(pipe),
            image=picture if takes_image else None,
            prompt=self.prompts.get(cell.image),
            motion=cell.motion_asked,
            frames=model.frames,
            steps=model.steps,
            size=model.size,
        )
        methods = [*setting.methods, *([Removed()] if self.blind and takes_image else [])]
        with sampling(pipe, *methods, image=None if takes_image else picture) as sampler:
            return generate(pipe, call, cell.seed, sampler)


def measure_video(
    video: torch.Tensor, picture: Image.Image, toys: Toys | None = None, motion: float | None = None
) -> dict[str, float]:
    """What is measured of every video, uint8 `(F, 3, H, W)`, see `METRICS`; with toys also `TOY_METRICS`, travel_share
    only where a `motion` level was asked for."""
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    colour, detail = proxy_colour_fidelity(video, pixels), proxy_edge_fidelity(video, pixels)
    found = {
        "motion": 100 * flow_of(video.float() / 255),
        "fidelity": (colour + detail) / 2,
        "colour": colour,
        "detail": detail,
        "coherence": proxy_coherence(video),
        "first_frame_error": first_frame_error(video, pixels),
    }
    if toys is not None and (kept := measure_toys(video.float() / 255, pixels.float() / 255, toys.masks)):
        found |= {"travel": kept.travel, "outline": kept.outline, "toy_colour": kept.colour}
        if math.isfinite(kept.background_error):  # not where toys cover the whole picture
            found["background_error"] = kept.background_error
        if motion:
            found["travel_share"] = kept.travel / (toys.travel * motion / toys.motion)
    return {name: round(value, 6) for name, value in found.items()}
