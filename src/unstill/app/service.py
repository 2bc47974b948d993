"""Generates the videos of the app: one model in memory, one request at a time, files in the result store."""

from __future__ import annotations

import dataclasses
import gc
import json
import threading
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from unstill.animation import sample
from unstill.animation_request import AnimationRequest, methods_for
from unstill.animation_result import Animation
from unstill.animation_settings import OneImage
from unstill.app import motion_slider
from unstill.app.code_export import PICTURE, python_code
from unstill.app.limits import Limits
from unstill.app.result_store import ResultStore
from unstill.app.words import brief
from unstill.data.video import write_video
from unstill.errors import UnstillError
from unstill.methods.base import Method
from unstill.methods.free_init import FreeInit
from unstill.methods.ni_vsds import NIVSDS
from unstill.models import registry
from unstill.models.call_arguments import native_frames, native_size
from unstill.progress import StageProgress


SHOWN_PIXELS = 512  # videos are enlarged by a whole factor to at most this length of the shorter side


class Stopped(Exception):
    """The user pressed Stop, left the page, or the server ends."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredResult:
    """
    A result in the store, and what the page shows of it.

    Attributes:
        token: the name of its folder in the store.
        files: names of the files in the folder.
        verdict: one sentence that compares the plain and the improved video.
        scores: by video and measure.
        code: Python code that makes the improved video again.
        summary: one line for the list of earlier results.
        settings: the motion level and the methods as short text.
        note: what the model saw of a picture of another aspect ratio; otherwise empty.
    """

    token: str
    files: tuple[str, ...]
    verdict: str
    scores: dict[str, dict[str, float]]
    code: str
    summary: str
    settings: tuple[str, ...]
    note: str


class VideoService:
    """
    Generates videos for requests, one at a time, and keeps the model of the last request in memory.

    Args:
        models: names or local folders that are offered; the first one is the default.
        store: where results are written.
        limits: of requests.
        device, offload: see `unstill.load`.

    Raises:
        UnstillError: a model whose pipeline class is not known without the hub.
    """

    def __init__(
        self,
        models: list[str],
        store: ResultStore,
        limits: Limits,
        *,
        device: str | None = None,
        offload: bool = False,
    ) -> None:
        for model in models:
            if registry.pipeline_class(model) is None:
                raise UnstillError(f"{model} is only known to the hub; download it and offer its folder, or a name.")
        self.models = list(dict.fromkeys(models))
        self.limits = limits
        self.store = store
        self._options: dict[str, Any] = {"device": device, "offload": offload}
        self._lock = threading.Lock()  # a stopped run may still be in its last step when the next one starts
        self._loaded: tuple[str, Any] | None = None
        self.closed = threading.Event()  # stops the current run

    def make(
        self, settings: OneImage, progress: StageProgress, stopped: Callable[[], bool] = lambda: False
    ) -> StoredResult:
        """
        Generates the plain and the improved video, scores them and writes all files of the result.

        Args:
            settings: image, model by name, prompt, methods, frames, steps, seed and crop are read of them; `motion`
                is the value of the Motion slider; `methods` have the noise level that follows from it.
            progress: called with the current stage, the steps done and the number of steps.
            stopped: called at every step; returns whether to stop.

        Raises:
            UnstillError: a setting that the model or the limits do not allow.
            Stopped: `stopped` returned true, or the server ends; the files of the run are removed.
        """
        self.check_model(settings.model)
        assert settings.model is not None
        slider = motion_slider.USUAL if settings.motion is None else settings.motion
        methods = methods_for(settings.methods, motion_slider.defaults(settings.model, slider))
        self._check(settings, methods)

        def stop_now() -> bool:
            return stopped() or self.closed.is_set()

        with self._lock:
            if stop_now():
                raise Stopped
            pipe = self._pipe(settings.model, progress)
            token, folder = self.store.new()
            try:
                result = self._make(pipe, settings, slider, methods, token, folder, progress, stop_now)
            except BaseException:
                self.store.drop(token)
                raise
        self.store.put(token)
        return result

    def close(self) -> None:
        """Stops the current run and waits up to 10 seconds for it to remove its files."""
        self.closed.set()
        if self._lock.acquire(timeout=10):
            self._lock.release()

    def max_frames(self, model: str) -> int:
        """The largest allowed number of frames: that of the limits, and at most what the model was trained for."""
        entry = registry.find(model)
        return min(self.limits.frames, entry.frames if entry else self.limits.frames)

    def size_of(self, model: str) -> tuple[int, int] | None:
        """(height, width) of a model's videos in pixels; `None` for a local folder that is not loaded yet."""
        entry = registry.find(model)
        if entry is not None:
            return entry.size
        loaded = self._loaded
        return native_size(loaded[1]) if loaded and loaded[0] == model else None

    def preload(self) -> None:
        """Loads the first model if it is embedded in the package, so that the first request is faster."""
        entry = registry.find(self.models[0])
        if entry is not None and entry.weights is None:
            with self._lock:
                self._pipe(self.models[0], lambda *_: None)

    def check_model(self, model: object) -> None:
        """Raises `UnstillError` for a model that this server does not offer."""
        if model not in self.models:
            raise UnstillError(f"This server offers {', '.join(self.models)}; start it with --model for others.")

    def _check(self, settings: OneImage, methods: Sequence[Method]) -> None:
        limits = self.limits
        for name, value, low, high in (
            ("Motion", settings.motion, 0, 1),
            ("Frames", settings.frames, 2, self.max_frames(settings.model or "")),
            ("Steps", settings.steps, 1, limits.steps),
            ("The seed", settings.seed, 0, 2**32 - 1),
        ):
            if value is not None and not low <= value <= high:
                raise UnstillError(f"{name} goes from {low} to {high} here, but is {value:g}.")
        if settings.image is None and not settings.prompt:
            raise UnstillError("A video is made of a picture, or of a prompt if the model reads text: give one.")
        if settings.image is None and any(isinstance(method, NIVSDS) for method in methods):
            raise UnstillError("NI-VSDS animates a picture: give one, or leave this method out.")
        passes = max((method.iterations for method in methods if isinstance(method, FreeInit)), default=1)
        if passes > limits.passes:
            raise UnstillError(f"FreeInit may sample up to {limits.passes} times here, but {passes} were asked for.")
        if len(settings.prompt or "") > limits.prompt:
            raise UnstillError(
                f"A prompt has up to {limits.prompt} characters here; this one has {len(settings.prompt or '')}."
            )

    def _pipe(self, model: str, progress: StageProgress) -> Any:
        if self._loaded is None or self._loaded[0] != model:
            progress(f"Loading {model}", 0, 1)
            self._loaded = None  # two large models may not fit into memory
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            self._loaded = model, registry.load(model, **self._options)
        return self._loaded[1]

    def _make(
        self,
        pipe: Any,
        settings: OneImage,
        slider: float,
        methods: tuple[Method, ...],
        token: str,
        folder: Path,
        progress: StageProgress,
        stopped: Callable[[], bool],
    ) -> StoredResult:
        model = settings.model or ""
        entry = registry.find(model)
        size = entry.size if entry else native_size(pipe)
        if size[0] * size[1] > self.limits.pixels:
            raise UnstillError(f"{model} makes frames of {size[1]}x{size[0]}, which is more than this page takes.")
        level = motion_slider.motion_level(model, slider)

        def report(video: str, done: int, total: int) -> None:
            progress(video, done, total)
            if stopped():
                raise Stopped

        frames = settings.frames or (entry.frames if entry else min(native_frames(pipe), self.limits.frames))
        asked = dataclasses.replace(settings, pipe=pipe, methods=methods, motion=level, frames=frames, progress=report)
        animation = sample(pipe, AnimationRequest.of(asked, settings.image), {})
        progress("Writing the videos", 1, 1)
        code = python_code(model, animation.call, methods, settings.seed, animation.picture is not None)
        chips = ([] if level is None else [f"motion {level:g}"]) + [brief(method) for method in methods]
        extra = {"slider": slider, "picture": PICTURE if animation.picture else None, "code": code}
        _write(folder, animation, {**animation.settings, **extra}, code)
        return StoredResult(
            token=token,
            files=tuple(sorted(file.name for file in folder.iterdir())),
            verdict=animation.verdict,
            scores=animation.scores,
            code=code,
            summary=f"{model}, motion {slider:g}, seed {settings.seed}",
            settings=tuple(chips),
            note=animation.picture_note,
        )


def _write(folder: Path, animation: Animation, settings: dict[str, Any], code: str) -> None:
    """Writes the files for download; `everything.zip` contains all others."""
    factor = max(1, SHOWN_PIXELS // min(animation.frames.shape[-2:]))
    for name, video in animation.videos.items():
        write_video(folder / f"{name}.mp4", video, animation.fps, upscale=factor)
    write_video(folder / "side_by_side.mp4", animation.comparison(), animation.fps)
    (folder / "settings.json").write_text(json.dumps(settings, indent=2, default=str), encoding="utf-8")
    (folder / "make_again.py").write_text(code, encoding="utf-8")
    if animation.picture is not None:
        animation.picture.save(folder / PICTURE)
    with zipfile.ZipFile(folder / "everything.zip", "w") as archive:
        for file in sorted(folder.iterdir()):
            if file.suffix != ".zip":
                archive.write(file, file.name)
