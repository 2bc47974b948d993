"""The components of the page: their layout, labels and limits."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from unstill.app import form_fields, html, motion_slider
from unstill.app.service import VideoService
from unstill.app.words import method_title, value_title
from unstill.errors import UnstillError
from unstill.methods.registry import method_classes, summary_of
from unstill.models import registry
from unstill.models.call_arguments import parameters


CROPS = (("Auto", "auto"), ("Whole picture", "fit"), ("Centre", "centre"), ("A point", "point"))
PICO_PROMPT = "a red ring and a blue star drifting left over green"
"""In words that pico reads; it refuses others."""


class Controls:
    """
    The components of the page, created in the current `gr.Blocks`.

    Attributes:
        picture, picture_error: the upload, and what is wrong with it.
        crop, across, down: the choice of a crop; `crop_choice` and `point` are the groups that are hidden if unused.
        seen: what the model sees of the picture.
        level: the settings that follow from the Motion slider.
        method_groups: the group of parameters of every method, by its name.
        method_fields: the components of all parameters.
        stage, earlier: the result that is shown, and those before it; `history` holds them.
        result: the result as JSON, for those who call the page as an API.
    """

    def __init__(self, service: VideoService) -> None:
        self._service = service
        gr.HTML(html.HEAD, padding=False, elem_id="masthead")
        self.history = gr.State([], time_to_live=3600)
        settings = model_settings(service, service.models[0])
        with gr.Row(elem_classes="columns"):
            with gr.Column(scale=4, min_width=300, elem_id="choices", elem_classes="choices"):
                self._add_picture()
                self._add_main_settings(settings)
                with gr.Accordion("Advanced", open=False, elem_id="advanced"):
                    self._add_advanced_settings(settings)
            with gr.Column(scale=7, min_width=320):
                self.stage = gr.HTML(
                    html.EMPTY, elem_id="stage", js_on_load=html.STAGE_SCRIPT, apply_default_css=False
                )
                self.earlier = gr.HTML("", elem_id="history", js_on_load=html.STRIP_SCRIPT, apply_default_css=False)
        self.result = gr.JSON(visible=False)

    def _add_picture(self) -> None:
        self.picture = _picture()
        self.picture_error = gr.HTML(elem_id="note", elem_classes="told")
        self.seen = gr.HTML(elem_id="seen", elem_classes="told")
        with gr.Column(visible=False, elem_id="crop-choice") as self.crop_choice:
            self.crop = gr.Radio(list(CROPS), value="auto", label="What the model sees of the picture")
            with gr.Row(visible=False) as self.point:
                self.across = gr.Slider(0, 100, 50, step=1, label="From left, %", min_width=120, buttons=[])
                self.down = gr.Slider(0, 100, 50, step=1, label="From top, %", min_width=120, buttons=[])

    def _add_main_settings(self, settings: dict[str, dict[str, Any]]) -> None:
        longest = self._service.limits.prompt
        self.prompt = gr.Textbox("", max_length=longest, lines=1, elem_id="prompt", **settings["prompt"])
        self.slider = gr.Slider(
            0, 1, motion_slider.USUAL, step=0.05, label="Motion", elem_id="motion", buttons=[], interactive=True
        )
        self.level = gr.HTML(elem_id="means", elem_classes="told")
        self.start = gr.Button("Make it move", variant="primary", elem_id="go")
        self.stop = gr.Button("Stop", elem_id="stop", visible=False)

    def _add_advanced_settings(self, settings: dict[str, dict[str, Any]]) -> None:
        models = self._service.models
        with gr.Row():
            self.model = gr.Dropdown(models, value=models[0], label="Model", elem_id="model", min_width=120)
            self.seed = gr.Number(0, label="Seed", precision=0, min_width=120)
        self.dice = gr.Button("Another seed", size="sm", elem_id="dice")
        with gr.Row():
            self.frames = gr.Number(precision=0, min_width=120, **settings["frames"])
            self.steps = gr.Number(precision=0, min_width=120, **settings["steps"])
        self.methods = gr.CheckboxGroup(label="Methods", elem_id="methods", **settings["methods"])
        self.method_groups: dict[str, Any] = {}
        self.method_fields: dict[form_fields.Field, Any] = {}
        for name, fields in form_fields.form().items():
            chosen = name in settings["methods"]["value"]
            with gr.Column(visible=chosen, elem_classes="method") as self.method_groups[name]:
                gr.HTML(html.method(method_title(name), _description(name)), padding=False)
                for field in fields:
                    self.method_fields[field] = _input(field)


def model_settings(service: VideoService, name: str) -> dict[str, dict[str, Any]]:
    """Properties of the components that depend on the model."""
    entry, cls = registry.find(name), registry.pipeline_class(name)
    assert cls is not None
    known = parameters(cls)
    needed = "prompt" in known and known["prompt"].default != ""
    choices = form_fields.offered(cls.__name__, registry.defaults_of(name))
    # Values out of range are refused by the service, with a message that names them.
    return {
        "prompt": {
            "visible": "prompt" in known,
            "label": "What happens" if needed else "What happens (optional)",
            "placeholder": PICO_PROMPT if cls.__name__ == "PicoPipeline" else "",
        },
        "frames": {
            "value": entry.frames if entry else None,
            "label": f"Frames, up to {service.max_frames(name)}",
        },
        "steps": {"value": entry.steps if entry else 25, "label": f"Steps, up to {service.limits.steps}"},
        "methods": {
            "choices": [(method_title(method), method) for method in choices],
            "value": [registry.usual_method(registry.defaults_of(name))],
        },
    }


def _picture() -> Any:
    """A gr.Image that gives the path of the upload; `guard.RequestGuard` has checked the path."""
    image = gr.Image(
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

    # Set on this component in place of a subclass: gradio writes a stub file next to the source of every subclass.
    image.preprocess = preprocess
    return image


def _input(field: form_fields.Field) -> Any:
    """The component of one parameter of a method."""
    common: dict[str, Any] = {
        "value": field.shown(),
        "label": value_title(field.name).capitalize(),
        "info": re.sub(r"([*_<\\[\]])", r"\\\1", field.about) or None,  # gradio reads Markdown there
    }
    if field.kind == "switch":
        return gr.Checkbox(**common)
    if field.kind == "choice":
        return gr.Dropdown(list(field.choices), **common)
    if field.kind == "numbers" or field.default is None:  # an empty gr.Number comes back as 0
        return gr.Textbox(max_length=form_fields.LONGEST, lines=1, **{**common, "value": common["value"] or ""})
    return gr.Number(precision=0 if field.kind == "whole" else None, **common)


def _description(method: str) -> str:
    """What the method does for a user, and when to use it."""
    cls = method_classes()[method]
    return f"{summary_of(cls)} For a video that {cls.use_when}." if cls.use_when else summary_of(cls)
