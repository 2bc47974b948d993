"""FrameInit and FreeInit Noise: noise with the low frequencies of the image, or of the video before."""

from __future__ import annotations

from typing import Any, get_args

import torch
from comfy_api.latest import io
from torch import Tensor

from unstill.methods.frequency import FilterKind, low_pass, mix

from ..model_access import as_video, image_of, one_of, sampling_of, training_level
from .noise import MadeNoise


def _filter_inputs(kind: str) -> list[Any]:
    stop = {"min": 0.0, "max": 1.0, "step": 0.01}
    return [
        io.Combo.Input("filter", options=list(get_args(FilterKind)), default=kind),
        io.Float.Input("spatial", default=0.25, tooltip="Share of the spatial frequencies that is kept.", **stop),
        io.Float.Input("temporal", default=0.25, tooltip="Share of the temporal frequencies; 0 is off.", **stop),
    ]


class FrameInitNoise(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="UnstillFrameInitNoise",
            display_name="FrameInit Noise",
            category="unstill/noise",
            description="For a video that loses the layout of its image: the noise gets the low frequencies of the "
            "noised image, repeated over time. Costs some motion.",
            inputs=[
                io.Noise.Input("noise"),
                io.Model.Input("model"),
                io.Latent.Input("image", tooltip="The image, encoded by VAE Encode at the size of the video."),
                io.Float.Input("level", default=0.85, min=0.01, max=0.99, step=0.01, tooltip="Noise on the image."),
                *_filter_inputs("gaussian"),
            ],
            outputs=[io.Noise.Output(display_name="noise")],
        )

    @classmethod
    def validate_inputs(cls, filter: str) -> bool | str:
        return one_of("filter", filter, get_args(FilterKind))

    @classmethod
    def execute(
        cls, noise: Any, model: Any, image: Any, level: float, filter: FilterKind, spatial: float, temporal: float
    ) -> io.NodeOutput:
        alpha, sigma = training_level(sampling_of(model), level)

        def change(unit: Tensor) -> Tensor:
            if spatial == 0 or temporal == 0:
                return unit
            still = image_of(model, image, unit).expand_as(unit)
            return mix(alpha * still + sigma * unit, unit, low_pass(unit.shape[2:], filter, spatial, temporal))

        return io.NodeOutput(MadeNoise(noise, change))


class FreeInitNoise(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="UnstillFreeInitNoise",
            display_name="FreeInit Noise",
            category="unstill/noise",
            description="For a video that flickers: sample once, connect the result and its noise here, and sample "
            "again with the noise that comes out. Costs one whole run for each repetition.",
            inputs=[
                io.Noise.Input("noise", tooltip="The noise of the first run, in every repetition."),
                io.Model.Input("model"),
                io.Latent.Input("video", tooltip="The result of the run before."),
                io.Int.Input("fresh_seed", default=1, min=0, max=2**64 - 1, control_after_generate=True),
                io.Float.Input("level", default=0.95, min=0.01, max=0.99, step=0.01, tooltip="Noise on the video."),
                *_filter_inputs("butterworth"),
            ],
            outputs=[io.Noise.Output(display_name="noise")],
        )

    @classmethod
    def validate_inputs(cls, filter: str) -> bool | str:
        return one_of("filter", filter, get_args(FilterKind))

    @classmethod
    def execute(
        cls, noise: Any, model: Any, video: Any, fresh_seed: int, level: float, filter: FilterKind, spatial: float,
        temporal: float,
    ) -> io.NodeOutput:  # fmt: skip
        alpha, sigma = training_level(sampling_of(model), level)

        def change(unit: Tensor) -> Tensor:
            if spatial == 0 or temporal == 0:
                return unit
            clean = as_video(model.get_model_object("process_latent_in")(video["samples"])).to(unit)
            fresh = torch.randn(unit.shape, generator=torch.Generator().manual_seed(fresh_seed)).to(unit)
            return mix(alpha * clean + sigma * unit, fresh, low_pass(unit.shape[2:], filter, spatial, temporal))

        return io.NodeOutput(MadeNoise(noise, change))
