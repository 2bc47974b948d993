"""The page itself: gradio components, and the few functions between them and the studio."""

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

from unstill.app import form_fields, html, motion_slider
from unstill.app.code_export import brief
from unstill.app.guard import FAULT, NOT_UNDERSTOOD
from unstill.app.service import Result, Stopped, Studio, Wish
from unstill.app.uploads import checked_picture
from unstill.data.picture_crop import Crop, fit_picture, parse_crop
from unstill.errors import UnstillError, lacks_memory
from unstill.methods.base import Method
from unstill.methods.registry import build_method, method_classes, summary_of
from unstill.models import registry
from unstill.models.call_arguments import parameters


log = logging.getLogger(__name__)

TOO_SMALL = "The server has not enough memory for this: ask for fewer frames."
SIZE_UNKNOWN = "What the model sees of the picture is shown when the model has been loaded: with the first video."
CROPS = (("Auto", "auto"), ("Whole picture", "fit"), ("Centre", "centre"), ("A point", "point"))
WENT_WRONG = "Something went wrong on the server, not with what you did; its log says more."


class Runs:
    """Which visitors have a run, and how to stop it."""

    def __init__(self) -> None:
        self._stops: dict[str, threading.Event] = {}

    def begin(self, visitor: str) -> threading.Event:
        self._stops[visitor] = threading.Event()
        return self._stops[visitor]

    def end(self, visitor: str, run: threading.Event) -> None:
        if self._stops.get(visitor) is run:
            del self._stops[visitor]

    def stop(self, visitor: str) -> None:
        if visitor in self._stops:
            self._stops[visitor].set()


def build(studio: Studio) -> gr.Blocks:
    """The page of a studio; `server.serve` puts it on the net."""
    runs, first = Runs(), studio.models[0]
    shown = _of_model(studio, first)
    with gr.Blocks(title="unstill", analytics_enabled=False, delete_cache=(300, 3600)) as page:
        gr.HTML(html.HEAD, padding=False, elem_id="masthead")
        history = gr.State([], time_to_live=3600)
        with gr.Row(elem_classes="columns"):
            with gr.Column(scale=4, min_width=300, elem_id="choices", elem_classes="choices"):
                picture = _picture()
                note = gr.HTML(elem_id="note", elem_classes="told")
                seen = gr.HTML(elem_id="seen", elem_classes="told")
                with gr.Column(visible=False, elem_id="crop-choice") as crop_choice:
                    crop = gr.Radio(list(CROPS), value="auto", label="What the model sees of the picture")
                    with gr.Row(visible=False) as point:
                        across = gr.Slider(0, 100, 50, step=1, label="From left, %", min_width=120, buttons=[])
                        down = gr.Slider(0, 100, 50, step=1, label="From top, %", min_width=120, buttons=[])
                prompt = gr.Textbox("", max_length=studio.limits.prompt, lines=1, elem_id="prompt", **shown["prompt"])
                slider = gr.Slider(
                    0,
                    1,
                    motion_slider.USUAL,
                    step=0.05,
                    label="Motion",
                    elem_id="motion",
                    buttons=[],
                    interactive=True,
                )
                means = gr.HTML(elem_id="means", elem_classes="told")
                go = gr.Button("Make it move", variant="primary", elem_id="go")
                stop = gr.Button("Stop", elem_id="stop", visible=False)
                with gr.Accordion("Advanced", open=False, elem_id="advanced"):
                    with gr.Row():
                        model = gr.Dropdown(studio.models, value=first, label="Model", elem_id="model", min_width=120)
                        seed = gr.Number(0, label="Seed", precision=0, min_width=120)
                    dice = gr.Button("Another seed", size="sm", elem_id="dice")
                    with gr.Row():
                        frames = gr.Number(precision=0, min_width=120, **shown["frames"])
                        steps = gr.Number(precision=0, min_width=120, **shown["steps"])
                    chosen = gr.CheckboxGroup(label="Methods", elem_id="methods", **shown["methods"])
                    groups, controls = _form(shown["methods"]["value"])
            with gr.Column(scale=7, min_width=320):
                stage = gr.HTML(html.EMPTY, elem_id="stage", js_on_load=html.STAGE_SCRIPT, apply_default_css=False)
                earlier = gr.HTML("", elem_id="history", js_on_load=html.STRIP_SCRIPT, apply_default_css=False)
        facts = gr.JSON(visible=False)  # the result for those who call this page as an API

        meaning = {prompt, slider, model, seed, frames, steps, chosen, *controls.values()}
        asked = {picture, crop, across, down, history} | meaning

        def wish(data: Mapping[Any, Any]) -> tuple[str, tuple[Method, ...]]:
            values = {key: data[control] for key, control in controls.items()}
            studio.check_model(data[model])
            if not _is_number(data[slider]) or not 0 <= data[slider] <= 1:
                raise UnstillError("Motion goes from 0 to 1 here.")
            return data[model], _methods(data[model], data[slider], data[chosen], values)

        @_spoken
        def look_at(path: Path | None) -> tuple[Image.Image | None, str]:
            try:
                return (None, "") if path is None else (checked_picture(path, studio.limits), "")
            except UnstillError as error:
                return None, html.problem(str(error))

        @_spoken
        def show_crop(path: Path | None, name: str, kind: str, x: float, y: float) -> tuple[str, Any, Any]:
            """What the model sees of the picture, and a choice of crops where its aspect ratio is not the model's."""
            studio.check_model(name)
            hidden, size = gr.update(visible=False), studio.size_of(name)
            offered = gr.update(visible=True), gr.update(visible=kind == "point")
            if path is None:
                return "", hidden, hidden
            if size is None:
                return html.problem(SIZE_UNKNOWN), *offered
            try:
                original = checked_picture(path, studio.limits)
            except UnstillError:  # `look_at` has said it
                return "", hidden, hidden
            try:
                fitted = fit_picture(original, size, _crop(kind, x, y))
            except UnstillError as error:
                return html.problem(str(error)), *offered
            return html.seen(fitted), *((hidden, hidden) if fitted.crop == "whole" else offered)

        @_spoken
        def tell_means(data: dict[Any, Any]) -> str:
            try:
                name, methods = wish(data)
                level = motion_slider.motion_level(name, data[slider])
            except UnstillError as error:
                return html.problem(str(error))
            words = ([] if level is None else [f"motion={level:g}"]) + [brief(method) for method in methods]
            return html.means(words)

        @_spoken
        def animate(data: dict[Any, Any], request: gr.Request, progress: gr.Progress = gr.Progress()) -> Any:  # noqa: B008
            def tell(what: str, done: int, total: int) -> None:
                words = {"plain": "The plain video", "improved": "The improved video"}
                progress((done, total), desc=words.get(what, what), unit="steps")

            name, methods = wish(data)
            made = Wish(
                model=name,
                picture=None if data[picture] is None else checked_picture(data[picture], studio.limits),
                prompt=(data[prompt] or "") if _takes_prompt(name) else "",
                motion=data[slider],
                methods=methods,
                frames=data[frames],
                steps=data[steps],
                seed=data[seed] or 0,
                crop=_crop(data[crop], data[across], data[down]),
            )
            run = runs.begin(request.session_hash)
            try:
                result = studio.make(made, tell, run.is_set)
            except Stopped:
                return {stage: html.STOPPED}
            finally:
                runs.end(request.session_hash, run)
            kept = [result, *data[history]][: studio.limits.history]
            told = {key: getattr(result, key) for key in ("token", "files", "verdict", "scores", "code", "summary")}
            return {stage: html.stage(result), earlier: html.strip(kept), history: kept, facts: told}

        @_spoken
        def again(kept: list[Result], event: gr.EventData) -> str:
            index = event._data.get("index") if isinstance(event._data, dict) else None
            if not isinstance(index, int) or not 0 <= index < len(kept):
                raise UnstillError("There is no such result any more.")
            return html.stage(kept[index])

        def halt(request: gr.Request) -> tuple[Any, Any, Any]:
            runs.stop(request.session_hash)
            return gr.update(visible=True), gr.update(visible=False), html.STOPPED

        def leave(request: gr.Request) -> None:
            runs.stop(request.session_hash)

        @_spoken
        def change_model(name: str) -> list[Any]:
            studio.check_model(name)
            new = _of_model(studio, name)
            return [gr.update(**new[key]) for key in ("prompt", "frames", "steps", "methods")]

        quiet: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
        looked_at = picture.input(look_at, picture, [picture, note], **quiet)
        shown_crop = (show_crop, [picture, model, crop, across, down], [seen, crop_choice, point])
        looked_at.then(*shown_crop, **quiet)
        moved = [control.change for control in (model, crop, across, down)]
        gr.on([page.load, *moved], *shown_crop, trigger_mode="always_last", **quiet)
        model.change(change_model, model, [prompt, frames, steps, chosen], **quiet)
        chosen.change(
            lambda names: [gr.update(visible=name in (names or [])) for name in groups],
            chosen,
            list(groups.values()),
            **quiet,
        )
        dice.click(lambda: random.randrange(2**16), None, seed, **quiet)
        changes = [control.change for control in (slider, model, chosen, *controls.values())]
        gr.on(
            [page.load, *changes],
            tell_means,
            meaning,
            means,
            trigger_mode="always_last",
            **quiet,
        )

        begun = go.click(lambda: (gr.update(visible=False), gr.update(visible=True)), None, [go, stop], **quiet)
        run = begun.then(
            animate,
            asked,
            [facts, stage, earlier, history],
            api_name="animate",
            show_progress="full",
            show_progress_on=stage,
            concurrency_limit=1,
        )
        run.then(*shown_crop, **quiet)  # the size of a local folder's videos is known now
        run.then(lambda: (gr.update(visible=True), gr.update(visible=False)), None, [go, stop], **quiet)
        stop.click(halt, None, [go, stop, stage], cancels=[run], **quiet)
        earlier.select(again, history, stage, **quiet)
        page.unload(leave)
    page.queue(max_size=studio.limits.waiting)
    preprocess = page.preprocess_data

    async def preprocess_data(*args: Any, **kwargs: Any) -> Any:
        """gradio's reading of the values of a request; where it fails, they are not those of the page."""
        try:
            return await preprocess(*args, **kwargs)
        except Exception as error:
            raise gr.Error(NOT_UNDERSTOOD, print_exception=False) from error

    page.preprocess_data = preprocess_data
    return page


def _picture() -> Any:
    """A gr.Image that gives the path of the upload; what may be a path is checked by `guard.RequestGuard`."""
    made = gr.Image(
        value=Image.open(registry.bundled_picture()).convert("RGB"),
        format="png",
        sources=["upload", "clipboard"],
        height=280,
        label="Picture",
        show_label=False,
        buttons=[],
        elem_id="picture",
        placeholder="Drop a picture here\nor click to choose one",
    )

    def preprocess(payload: Any) -> Path | None:
        if payload is not None and not payload.path:
            raise UnstillError("A picture is an upload; addresses are not fetched.")
        return None if payload is None else Path(payload.path)

    # Of this one component, not of a subclass: gradio writes a stub file next to the source of every subclass.
    made.preprocess = preprocess
    return made


def _form(on: list[str]) -> tuple[dict[str, Any], dict[form_fields.Field, Any]]:
    """A group of controls for every method, to be seen when the method is on."""
    groups, controls = {}, {}
    for name, parameters_ in form_fields.form().items():
        with gr.Column(visible=name in on, elem_classes="method") as group:
            gr.HTML(f'<div class="means">{_title(name)}: {_about(name)}</div>')
            for field in parameters_:
                controls[field] = _control(field)
        groups[name] = group
    return groups, controls


def _control(field: form_fields.Field) -> Any:
    shown: dict[str, Any] = {"value": field.shown(), "label": field.name, "info": field.about or None}
    if field.kind == "switch":
        return gr.Checkbox(**shown)
    if field.kind == "choice":
        return gr.Dropdown(list(field.choices), **shown)
    if field.kind == "numbers" or field.default is None:  # an empty gr.Number comes back as 0
        return gr.Textbox(max_length=form_fields.LONGEST, lines=1, **{**shown, "value": shown["value"] or ""})
    return gr.Number(precision=0 if field.kind == "whole" else None, **shown)


def _methods(
    model: str, slider: float, chosen: list[str], values: Mapping[form_fields.Field, Any]
) -> tuple[Method, ...]:
    """The chosen methods, with what was set by hand and the slider's level for the rest."""
    defaults = motion_slider.defaults(model, slider)
    made = []
    for name in chosen or []:
        if name not in method_classes():
            raise UnstillError(f"There is no method {str(name)[:50]!r} here.")
        given = {field.name: field.read(value) for field, value in values.items() if field.method == name}
        given = {key: value for key, value in given.items() if value is not None}
        made.append(build_method(method_classes()[name], given, defaults))
    return tuple(made)


def _of_model(studio: Studio, name: str) -> dict[str, dict[str, Any]]:
    """What the controls look like for a model."""
    entry, cls = registry.find(name), registry.pipeline_class(name)
    assert cls is not None
    known = parameters(cls)
    longest = studio.longest(name)
    needed = "prompt" in known and known["prompt"].default != ""
    choices = form_fields.offered(cls.__name__, registry.defaults_of(name))
    return {
        "prompt": {"visible": "prompt" in known, "label": "What happens" if needed else "What happens (optional)"},
        # What is out of range is said by the studio, in a sentence that has the name in it.
        "frames": {"value": entry.frames if entry else None, "label": f"Frames, up to {longest}"},
        "steps": {"value": entry.steps if entry else 25, "label": f"Steps, up to {studio.limits.steps}"},
        "methods": {
            "choices": [(_title(one), one) for one in choices],
            "value": [registry.usual_method(registry.defaults_of(name))],
        },
    }


def _crop(kind: str, x: float, y: float) -> Crop:
    """The crop that is chosen on the page; the point counts for `"point"` only. Gradio has checked the values."""
    return parse_crop((x, y) if kind == "point" else str(kind))


def _takes_prompt(model: str) -> bool:
    cls = registry.pipeline_class(model)
    return cls is not None and "prompt" in parameters(cls)


def _title(name: str) -> str:
    return "NI-VSDS" if name == "ni_vsds" else name.replace("_", " ").capitalize()


def _about(name: str) -> str:
    """What the method does for a user, and when to use it."""
    cls = method_classes()[name]
    return f"{summary_of(cls)} For a video that {cls.use_when}." if cls.use_when else summary_of(cls)


def _spoken(function: Callable[..., Any]) -> Callable[..., Any]:
    """Errors as one sentence on the page. What is nobody's mistake goes to the server's log, and the page lives on."""

    @functools.wraps(function)
    def spoken(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except UnstillError as error:
            raise gr.Error(str(error), print_exception=False) from error
        except gr.Error:
            raise
        except Exception as error:
            log.exception("a request failed")
            if lacks_memory(error):
                raise gr.Error(TOO_SMALL, print_exception=False) from error
            raise gr.Error(WENT_WRONG, title=FAULT, print_exception=False) from error

    return spoken


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
