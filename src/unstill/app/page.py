"""The page: connects its components with the functions that are called when a user changes or clicks something."""

from __future__ import annotations

import functools
import logging
import random
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from unstill.animation_settings import OneImage
from unstill.app import html, motion_slider
from unstill.app.controls import Controls, model_settings
from unstill.app.guard import FAULT, NOT_UNDERSTOOD
from unstill.app.service import Stopped, StoredResult, VideoService
from unstill.app.uploads import checked_picture
from unstill.app.words import brief, sentence
from unstill.data.picture_crop import Crop, fit_picture, parse_crop
from unstill.errors import UnstillError, lacks_memory
from unstill.methods.base import Method
from unstill.methods.registry import build_method, method_classes
from unstill.models import registry
from unstill.models.call_arguments import parameters


log = logging.getLogger(__name__)

TOO_SMALL = "The server has not enough memory for this: ask for fewer frames."
SIZE_UNKNOWN = "What the model sees of the picture is shown when the model has been loaded: with the first video."
WENT_WRONG = "Something went wrong on the server, not with what you did; its log says more."
STAGES = {"plain": "The plain video", "improved": "The improved video"}


def build(service: VideoService) -> gr.Blocks:
    """The page of a service, as a gradio app; `server.serve` serves it."""
    with gr.Blocks(title="unstill", analytics_enabled=False, delete_cache=(300, 3600)) as page:
        controls = Controls(service)
        _connect(page, controls, Handlers(service, controls))
    page.queue(max_size=service.limits.waiting)
    preprocess = page.preprocess_data

    async def preprocess_data(*args: Any, **kwargs: Any) -> Any:
        """Gradio's conversion of the values of a request; it fails for values that the page does not send."""
        try:
            return await preprocess(*args, **kwargs)
        except Exception as error:
            raise gr.Error(NOT_UNDERSTOOD, print_exception=False) from error

    page.preprocess_data = preprocess_data
    return page


def _connect(page: Any, controls: Controls, handlers: Handlers) -> None:
    """Registers the functions that are called by events of the components."""
    c, stage = controls, controls.stage
    settings = {c.prompt, c.slider, c.model, c.seed, c.frames, c.steps, c.methods, *c.method_fields.values()}
    inputs = settings | {c.picture, c.crop, c.across, c.down, c.history}
    quiet: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}

    uploaded = c.picture.input(handlers.check_upload, c.picture, [c.picture, c.picture_error], **quiet)
    show_crop = (handlers.show_crop, [c.picture, c.model, c.crop, c.across, c.down], [c.seen, c.crop_choice, c.point])
    uploaded.then(*show_crop, **quiet)
    changes = [control.change for control in (c.model, c.crop, c.across, c.down)]
    gr.on([page.load, *changes], *show_crop, trigger_mode="always_last", **quiet)
    c.model.change(handlers.change_model, c.model, [c.prompt, c.frames, c.steps, c.methods], **quiet)
    c.methods.change(handlers.show_fields, c.methods, list(c.method_groups.values()), **quiet)
    c.dice.click(lambda: random.randrange(2**16), None, c.seed, **quiet)
    changes = [control.change for control in (c.slider, c.model, c.methods, *c.method_fields.values())]
    gr.on([page.load, *changes], handlers.show_level, settings, c.level, trigger_mode="always_last", **quiet)

    buttons = {"fn": None, "outputs": [c.start, c.stop], **quiet}
    started = c.start.click(js=html.RUN_STARTED, **buttons)
    run = started.then(
        handlers.animate,
        inputs,
        [c.result, stage, c.earlier, c.history],
        api_name="animate",
        show_progress="full",
        show_progress_on=stage,
        concurrency_limit=1,
    )
    run.then(*show_crop, **quiet)  # the size of a local folder's videos is known now
    # The script of the stage triggers `stop` for an error, after which gradio does not call `then`.
    for ended in (run.then, stage.stop):
        ended(js=html.RUN_ENDED, **buttons)
    c.stop.click(handlers.stop, c.history, stage, cancels=[run], **quiet)
    c.earlier.select(handlers.show_earlier, c.history, stage, **quiet)
    page.unload(handlers.leave)


def _errors_as_messages(function: Callable[..., Any]) -> Callable[..., Any]:
    """Shows errors as one sentence on the page. Unexpected ones are also logged; the server continues."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except UnstillError as error:
            raise gr.Error(sentence(str(error)), print_exception=False) from error
        except gr.Error:
            raise
        except Exception as error:
            log.exception("a request failed")
            if lacks_memory(error):
                raise gr.Error(TOO_SMALL, print_exception=False) from error
            raise gr.Error(WENT_WRONG, title=FAULT, print_exception=False) from error

    return wrapped


class Handlers:
    """The functions of the page. `data` holds the values of components, by component."""

    def __init__(self, service: VideoService, controls: Controls) -> None:
        self._service = service
        self._controls = controls
        self._running: dict[str, threading.Event] = {}  # by session: set to stop its run

    @_errors_as_messages
    def check_upload(self, path: Path | None) -> tuple[Image.Image | None, str]:
        """The picture that is shown, and what is wrong with the upload."""
        try:
            return (None, "") if path is None else (checked_picture(path, self._service.limits), "")
        except UnstillError as error:
            return None, html.problem(sentence(str(error)))

    @_errors_as_messages
    def show_crop(self, path: Path | None, model: str, kind: str, x: float, y: float) -> tuple[str, Any, Any]:
        """What the model sees of the picture, and a choice of crops if the aspect ratios differ."""
        self._service.check_model(model)
        hidden, size = gr.update(visible=False), self._service.size_of(model)
        choice = gr.update(visible=True), gr.update(visible=kind == "point")
        if path is None:
            return "", hidden, hidden
        if size is None:
            return html.problem(SIZE_UNKNOWN), *choice
        try:
            original = checked_picture(path, self._service.limits)
        except UnstillError:  # `check_upload` has shown it
            return "", hidden, hidden
        try:
            fitted = fit_picture(original, size, _crop(kind, x, y))
        except UnstillError as error:
            return html.problem(sentence(str(error))), *choice
        return html.seen(fitted), *((hidden, hidden) if fitted.crop == "whole" else choice)

    @_errors_as_messages
    def change_model(self, model: str) -> list[Any]:
        """Updates of the components that depend on the model."""
        self._service.check_model(model)
        settings = model_settings(self._service, model)
        return [gr.update(**settings[key]) for key in ("prompt", "frames", "steps", "methods")]

    def show_fields(self, methods: list[str] | None) -> list[Any]:
        """Shows the parameters of the chosen methods only."""
        return [gr.update(visible=name in (methods or [])) for name in self._controls.method_groups]

    @_errors_as_messages
    def show_level(self, data: dict[Any, Any]) -> str:
        """The settings that follow from the slider, or what is wrong with them."""
        try:
            methods = self._methods(data)
            level = motion_slider.motion_level(data[self._controls.model], data[self._controls.slider])
        except UnstillError as error:
            return html.problem(sentence(str(error)))
        return html.means(([] if level is None else [f"motion {level:g}"]) + [brief(method) for method in methods])

    @_errors_as_messages
    def animate(
        self,
        data: dict[Any, Any],
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> Any:
        """Generates the videos and shows them."""
        c = self._controls

        def report(stage: str, done: int, total: int) -> None:
            progress((done, total), desc=STAGES.get(stage, stage), unit="steps")

        settings = OneImage(
            image=None if data[c.picture] is None else checked_picture(data[c.picture], self._service.limits),
            model=data[c.model],
            prompt=((data[c.prompt] or "").strip() or None) if _takes_prompt(data[c.model]) else None,
            motion=data[c.slider],
            methods=self._methods(data),
            frames=data[c.frames] or None,  # an empty gr.Number comes back as 0
            steps=data[c.steps] or None,
            seed=data[c.seed] or 0,
            crop=_crop(data[c.crop], data[c.across], data[c.down]),
        )
        session, stop = request.session_hash, threading.Event()
        self._running[session] = stop
        try:
            result = self._service.make(settings, report, stop.is_set)
        except Stopped:
            return {c.stage: _stopped(data[c.history])}
        finally:
            if self._running.get(session) is stop:
                del self._running[session]
        results = [result, *data[c.history]][: self._service.limits.history]
        shown = {key: getattr(result, key) for key in ("token", "files", "verdict", "scores", "code", "summary")}
        return {c.stage: html.stage(result), c.earlier: html.strip(results), c.history: results, c.result: shown}

    @_errors_as_messages
    def show_earlier(self, results: list[StoredResult], event: gr.EventData) -> str:
        """Shows an earlier result again."""
        index = event._data.get("index") if isinstance(event._data, dict) else None
        if not isinstance(index, int) or not 0 <= index < len(results):
            raise UnstillError("There is no such result any more.")
        try:
            self._service.store.find(results[index].token, "improved.mp4")  # it may have made room for a later one
        except UnstillError as error:
            return html.message(sentence(str(error)))
        return html.stage(results[index])

    def stop(self, results: list[StoredResult], request: gr.Request) -> str:
        """Stops the run of the session and says so in the stage."""
        self.leave(request)
        return _stopped(results)

    def leave(self, request: gr.Request) -> None:
        """Stops the run of the session."""
        if request.session_hash in self._running:
            self._running[request.session_hash].set()

    def _methods(self, data: Mapping[Any, Any]) -> tuple[Method, ...]:
        """The chosen methods with the values of the form; noise levels that were left empty follow the slider."""
        c = self._controls
        model, slider = data[c.model], data[c.slider]
        self._service.check_model(model)
        if not isinstance(slider, int | float) or isinstance(slider, bool) or not 0 <= slider <= 1:
            raise UnstillError("Motion goes from 0 to 1 here.")
        defaults = motion_slider.defaults(model, slider)
        methods = []
        for name in data[c.methods] or []:
            if name not in method_classes():
                raise UnstillError(f"There is no method {str(name)[:50]!r} here.")
            fields = {field: control for field, control in c.method_fields.items() if field.method == name}
            values = {field.name: field.read(data[control]) for field, control in fields.items()}
            values = {key: value for key, value in values.items() if value is not None}
            methods.append(build_method(method_classes()[name], values, defaults))
        return tuple(methods)


def _crop(kind: str, x: float, y: float) -> Crop:
    """The crop that is chosen on the page; `x` and `y` are used for `"point"` only. Gradio has checked the values."""
    return parse_crop((x, y) if kind == "point" else str(kind))


def _stopped(results: list[StoredResult]) -> str:
    """The stage after a run was stopped: it says so, above the last result if there is one."""
    return html.message(html.STOPPED) + (html.stage(results[0]) if results else "")


def _takes_prompt(model: str) -> bool:
    cls = registry.pipeline_class(model)
    return cls is not None and "prompt" in parameters(cls)
