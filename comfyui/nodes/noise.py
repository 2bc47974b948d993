"""Analytic-Init and Progressive Noise: NOISE in, NOISE out, so that such nodes can follow each other."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io
from torch import Tensor

from unstill.latent_statistics import LatentStatistics
from unstill.methods.analytic_init import initial_latents, statistics_for
from unstill.methods.progressive_noise import mixed, progressive

from ..model_access import alpha_sigma, as_latent, as_video, one_of, sampling_of, start_scale


FOLDER = "latent_statistics"
KINDS = ["progressive", "mixed"]
EMPTY = "(no file yet)"
SECOND_DRAW = 0x5DEECE66D  # so that a shared frame does not repeat the noise that it is mixed with


class MadeNoise:
    """A NOISE object: noise of another one, changed by a function of `(B, C, F, H, W)`."""

    def __init__(self, noise: Any, change: Any) -> None:
        self.seed, self.noise, self.change = noise.seed, noise, change

    def generate_noise(self, latent: dict[str, Tensor]) -> Tensor:
        made: Tensor = self.noise.generate_noise(latent)
        return as_latent(self.change(as_video(made)), made)


class AnalyticInitNoise(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="UnstillAnalyticInitNoise",
            display_name="Analytic-Init Noise",
            category="unstill/noise",
            description="For a video that stands still, after Early Start: begins from latents distributed like "
            "noised videos, which an early start alone is not. Needs a statistics file (`unstill statistics`) in "
            f"ComfyUI/models/{FOLDER}. Use with an empty latent.",
            inputs=[
                io.Noise.Input("noise"),
                io.Model.Input("model"),
                io.Sigmas.Input("sigmas", tooltip="The same that the sampler gets, after Early Start."),
                io.Combo.Input("statistics", options=_files() or [EMPTY], tooltip=f"From ComfyUI/models/{FOLDER}."),
                io.Boolean.Input(
                    "resize", default=False, tooltip="Interpolate statistics of another size or number of frames."
                ),
            ],
            outputs=[io.Noise.Output(display_name="noise")],
        )

    @classmethod
    def validate_inputs(cls, statistics: str) -> bool | str:
        return one_of("statistics", statistics, _files())

    @classmethod
    def execute(cls, noise: Any, model: Any, sigmas: Tensor, statistics: str, resize: bool = False) -> io.NodeOutput:
        import folder_paths

        known = LatentStatistics.load(folder_paths.get_full_path_or_raise(FOLDER, statistics))
        sampling = sampling_of(model)
        alpha, sigma = alpha_sigma(sampling, sigmas[0])

        def change(unit: Tensor) -> Tensor:
            fitting = statistics_for(known, (unit.shape[1], *unit.shape[2:]), resize)
            start = initial_latents(fitting.mean.to(unit), float(fitting.variance), alpha, sigma, unit)
            return start / start_scale(sampling, sigmas)

        return io.NodeOutput(MadeNoise(noise, change))


def _files() -> list[str]:
    import folder_paths

    if FOLDER not in folder_paths.folder_names_and_paths:
        folder_paths.add_model_folder_path(FOLDER, f"{folder_paths.models_dir}/{FOLDER}")
    return list(folder_paths.get_filename_list(FOLDER))


class ProgressiveNoise(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="UnstillProgressiveNoise",
            display_name="Progressive Noise",
            category="unstill/noise",
            description="For a video that flickers, when sampling twice is too slow: noise that the frames share. "
            "Costs much motion.",
            inputs=[
                io.Noise.Input("noise"),
                io.Combo.Input(
                    "kind", options=KINDS, default="progressive",
                    tooltip="progressive: each frame continues the one before; mixed: all share a part.",
                ),
                io.Float.Input(
                    "alpha", default=2.0, min=0.0, max=100.0, step=0.1,
                    tooltip="How much is shared; 0 changes nothing. Paper: 2 for progressive, 1 for mixed.",
                ),
            ],
            outputs=[io.Noise.Output(display_name="noise")],
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, kind: str) -> bool | str:
        return one_of("kind", kind, KINDS)

    @classmethod
    def execute(cls, noise: Any, kind: str, alpha: float) -> io.NodeOutput:
        def change(unit: Tensor) -> Tensor:
            if alpha == 0:
                return unit
            if kind == "progressive":
                return progressive(unit[:, :, :1], unit, alpha)
            generator = torch.Generator().manual_seed((noise.seed ^ SECOND_DRAW) % 2**64)
            shared = torch.randn(unit[:, :, :1].shape, generator=generator).to(unit)
            return mixed(shared, unit, alpha)

        return io.NodeOutput(MadeNoise(noise, change))
