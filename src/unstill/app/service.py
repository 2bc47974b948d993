"""Makes the videos of the app: one model in memory, one request at a time, the files of each in the result store."""

from __future__ import annotations

import gc
import json
import threading
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from unstill.animation import animate
from unstill.animation_result import Animation
from unstill.app.code_export import PICTURE, brief, python
from unstill.app.limits import Limits
from unstill.app.motion_slider import motion_level
from unstill.app.result_store import Shelf
from unstill.data.picture_crop import Crop
from unstill.data.video import write_video
from unstill.errors import UnstillError
from unstill.methods.base import Method
from unstill.methods.free_init import FreeInit
from unstill.methods.ni_vsds import NIVSDS
from unstill.models import registry
from unstill.models.call_arguments import native_frames, native_size


SHOWN = 512  # pixels of the shorter side that a video is enlarged to, by a whole factor
Tell = Callable[[str, int, int], None]


class Stopped(Exception):
    """The user pressed Stop, left the page, or the server ends."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Wish:
    """What a user of the page asked for; `motion` is where the slider stands, which gave `methods` their levels."""

    model: str
    picture: Image.Image | None
    prompt: str
    motion: float
    methods: tuple[Method, ...]
    frames: int | None
    steps: int | None
    seed: int
    crop: Crop = "auto"


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """The answer to a request: a folder in the result store (`token`), its files, and what the page shows of them.

    `note` says what the model saw of a picture of another aspect ratio; otherwise it is empty.
    """

    token: str
    files: tuple[str, ...]
    verdict: str
    scores: dict[str, dict[str, float]]
    code: str
    summary: str
    settings: tuple[str, ...]
    note: str


class Studio:
    """
    Args:
        models: the names or local folders that are offered; the first one is selected at first.
        shelf: the store of results.
        limits: what a request may ask for.
        device, offload: as of `unstill.load`.
    """

    def __init__(
        self, models: list[str], shelf: Shelf, limits: Limits, *, device: str | None = None, offload: bool = False
    ) -> None:
        for model in models:
            if registry.pipeline_class(model) is None:
                raise UnstillError(f"{model} is only known to the hub; download it and offer its folder, or a name.")
        self.models = list(dict.fromkeys(models))
        self.limits = limits
        self.shelf = shelf
        self._options: dict[str, Any] = {"device": device, "offload": offload}
        self._one = threading.Lock()  # a stopped run may still be in its last step when the next one begins
        self._loaded: tuple[str, Any] | None = None
        self.closed = threading.Event()  # stops the current run

    def make(self, wish: Wish, tell: Tell, stopped: Callable[[], bool] = lambda: False) -> Result:
        """
        Makes the plain and the improved video, scores them and writes all files of the result.

        Args:
            tell: called with (the current work, steps done, steps in all).
            stopped: called at every step; whether to stop.

        Raises:
            UnstillError: something is asked for that the model or the limits do not allow.
            Stopped: `stopped` returned true; no file of the run is left.
        """
        self._check(wish)

        def over() -> bool:
            return stopped() or self.closed.is_set()

        with self._one:
            if over():
                raise Stopped
            pipe = self._pipe(wish.model, tell)
            token, folder = self.shelf.new()
            try:
                result = self._make(pipe, wish, token, folder, tell, over)
            except BaseException:
                self.shelf.drop(token)
                raise
        self.shelf.put(token)
        return result

    def close(self) -> None:
        """Stops the current run, and waits up to 10 seconds until it has removed its files."""
        self.closed.set()
        if self._one.acquire(timeout=10):
            self._one.release()

    def longest(self, model: str) -> int:
        """The largest number of frames that can be asked for: no more than the model was trained for."""
        entry = registry.find(model)
        return min(self.limits.frames, entry.frames if entry else self.limits.frames)

    def size_of(self, model: str) -> tuple[int, int] | None:
        """(height, width) of a model's videos; `None` for a local folder until it has been loaded."""
        entry = registry.find(model)
        if entry is not None:
            return entry.size
        loaded = self._loaded
        return native_size(loaded[1]) if loaded and loaded[0] == model else None

    def warm(self) -> None:
        """Loads the first model if it comes with the package, so that the first request does not wait for it."""
        entry = registry.find(self.models[0])
        if entry is not None and entry.weights is None:
            with self._one:
                self._pipe(self.models[0], lambda *_: None)

    def check_model(self, model: object) -> None:
        """Raises UnstillError for a model that is not offered here."""
        if model not in self.models:
            raise UnstillError(f"This server offers {', '.join(self.models)}; start it with --model for others.")

    def _check(self, wish: Wish) -> None:
        limits = self.limits
        self.check_model(wish.model)
        for name, value, low, high in (
            ("Motion", wish.motion, 0, 1),
            ("Frames", wish.frames, 2, self.longest(wish.model)),
            ("Steps", wish.steps, 1, limits.steps),
            ("The seed", wish.seed, 0, 2**32 - 1),
        ):
            if value is not None and not low <= value <= high:
                raise UnstillError(f"{name} goes from {low} to {high} here, but is {value:g}.")
        if wish.picture is None and not wish.prompt.strip():
            raise UnstillError("A video is made of a picture, or of a prompt if the model reads text: give one.")
        if wish.picture is None and any(isinstance(method, NIVSDS) for method in wish.methods):
            raise UnstillError("NI-VSDS animates a picture: give one, or leave this method out.")
        passes = max((method.iterations for method in wish.methods if isinstance(method, FreeInit)), default=1)
        if passes > limits.passes:
            raise UnstillError(f"FreeInit may sample up to {limits.passes} times here, but {passes} were asked for.")
        if len(wish.prompt) > limits.prompt:
            raise UnstillError(f"A prompt has up to {limits.prompt} characters here; this one has {len(wish.prompt)}.")

    def _pipe(self, model: str, tell: Tell) -> Any:
        if self._loaded is None or self._loaded[0] != model:
            tell(f"Loading {model}", 0, 1)
            self._loaded = None  # two large models do not fit
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            self._loaded = model, registry.load(model, **self._options)
        return self._loaded[1]

    def _make(
        self, pipe: Any, wish: Wish, token: str, folder: Path, tell: Tell, stopped: Callable[[], bool]
    ) -> Result:
        entry = registry.find(wish.model)
        size = entry.size if entry else native_size(pipe)
        if size[0] * size[1] > self.limits.pixels:
            raise UnstillError(
                f"{wish.model} makes frames of {size[1]}x{size[0]}, which is more than this page takes."
            )
        level = motion_level(wish.model, wish.motion)

        def report(video: str, done: int, total: int) -> None:
            tell(video, done, total)
            if stopped():
                raise Stopped

        animation = animate(
            wish.picture,
            pipe=pipe,
            model=wish.model,
            prompt=wish.prompt.strip() or None,
            methods=wish.methods,
            motion=level,
            frames=wish.frames or (entry.frames if entry else min(native_frames(pipe), self.limits.frames)),
            steps=wish.steps,
            seed=wish.seed,
            crop=wish.crop,
            progress=report,
        )
        tell("Writing the videos", 1, 1)
        code = python(wish.model, animation.call, wish.methods, wish.seed, animation.picture is not None)
        chips = ([] if level is None else [f"motion={level:g}"]) + [brief(method) for method in wish.methods]
        extra = {"slider": wish.motion, "picture": PICTURE if animation.picture else None, "code": code}
        _write(folder, animation, {**animation.settings, **extra}, code)
        return Result(
            token=token,
            files=tuple(sorted(file.name for file in folder.iterdir())),
            verdict=animation.verdict,
            scores=animation.scores,
            code=code,
            summary=f"{wish.model}, motion {wish.motion:g}, seed {wish.seed}",
            settings=tuple(chips),
            note=animation.picture_note,
        )


def _write(folder: Path, animation: Animation, settings: dict[str, Any], code: str) -> None:
    """The files that can be downloaded; `everything.zip` holds all the others."""
    factor = max(1, SHOWN // min(animation.frames.shape[-2:]))
    for name, video in animation.videos.items():
        write_video(folder / f"{name}.mp4", video, animation.fps, upscale=factor)
    write_video(folder / "side_by_side.mp4", animation.comparison(), animation.fps)
    (folder / "settings.json").write_text(json.dumps(settings, indent=2, default=str), encoding="utf-8")
    (folder / "make_again.py").write_text(code, encoding="utf-8")
    if animation.picture is not None:
        animation.picture.save(folder / PICTURE)
    with zipfile.ZipFile(folder / "everything.zip", "w") as packed:
        for file in sorted(folder.iterdir()):
            if file.suffix != ".zip":
                packed.write(file, file.name)
