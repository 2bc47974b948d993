"""Leak Probe: does the model copy its image, and from which noise level on does it know the motion?"""

from __future__ import annotations

import json
from typing import Any

import torch
from comfy_api.latest import io, ui
from torch import Tensor

from unstill.errors import UnstillError
from unstill.lab.diagnosis_report import diagnosis_verdict
from unstill.lab.leakage import gathered, summarise_leakage
from unstill.lab.leakage_measures import measure_latents
from unstill.lab.plots import Series, curves_picture
from unstill.lab.probe_conditions import NoiseLevel, weaken

from ..model_access import alpha_sigma, as_video, sampling_of, with_change


CHANGES: dict[str, Any] = {
    "image": None,
    "weakened": lambda image, level, options: weaken(image),
    "removed": lambda image, level, options: torch.zeros_like(image),
}


class LeakProbe(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="UnstillLeakProbe",
            display_name="Leak Probe",
            category="unstill/measure",
            description="Tells whether a model stands still because it copies its image, and where Early Start should "
            "begin. Noises a real clip whose first frame is the image, predicts it in one step at every level, with "
            "the image, with a weakened one and without. Leave CLIP vision unconnected: it shows the image too.",
            is_output_node=True,
            inputs=[
                io.Guider.Input("guider"),
                io.Noise.Input("noise"),
                io.Latent.Input("video", tooltip="A real clip that moves, encoded by VAE Encode."),
                io.Latent.Input("still", tooltip="Its first frame, repeated as often, encoded the same way."),
                io.String.Input(
                    "levels", default="1, 0.98, 0.96, 0.92, 0.88, 0.8, 0.7, 0.6, 0.4, 0.2",
                    tooltip="Noise levels, falling. Stable Video Diffusion: 700, 256, 128, 64, 32, 16, 8, 4, 2.",
                ),
            ],
            outputs=[
                io.String.Output(display_name="json"),
                io.Image.Output(display_name="plot"),
                io.Float.Output(display_name="start", tooltip="For Early Start; the first level if none qualifies."),
            ],
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, levels: str) -> bool | str:
        try:
            return bool(_levels(levels))
        except UnstillError as error:
            return str(error)

    @classmethod
    def execute(cls, guider: Any, noise: Any, video: Any, still: Any, levels: str) -> io.NodeOutput:
        import comfy.samplers

        values = _levels(levels)
        predicted: dict[str, list[Tensor]] = {name: [] for name in CHANGES}
        seen: dict[str, Tensor] = {}

        def visit(model: Any, x: Tensor, sigmas: Tensor, extra_args: Any, callback: Any, disable: Any) -> Tensor:
            sampling = model.inner_model.inner_model.model_sampling
            seen["clean"], ones = model.latent_image, x.new_ones([len(x)])
            for value in values:
                noisy = sampling.noise_scaling(x.new_tensor(value), model.noise.clone(), seen["clean"].clone())
                for name, change in CHANGES.items():
                    options = extra_args["model_options"]
                    changed = options if change is None else with_change(options, "unstill_probe", change)
                    made = model(noisy, value * ones, **{**extra_args, "model_options": changed})
                    predicted[name].append(as_video(made).cpu().float())
            return seen["clean"]

        sampler = comfy.samplers.KSAMPLER(visit)
        sampling = sampling_of(guider.model_patcher)
        schedule = torch.tensor([*values, 0.0])
        guider.sample(
            noise.generate_noise(video), video["samples"], sampler, schedule,
            denoise_mask=video.get("noise_mask"), disable_pbar=True, seed=noise.seed,
        )  # fmt: skip
        visited = [NoiseLevel(value, *alpha_sigma(sampling, value)) for value in values]
        clean = as_video(seen["clean"]).cpu().float()
        held = as_video(guider.model_patcher.get_model_object("process_latent_in")(still["samples"])).float()
        made = {name: torch.cat(some) for name, some in predicted.items()}
        unit = "sigma" if values[0] > 1.5 else "start"
        rows = [measure_latents(clean, held.cpu(), made, visited)]
        found = summarise_leakage(gathered(rows), visited, unit, name="model")
        text = {**found.as_dict(), "verdict": diagnosis_verdict(found)[0], "advice": diagnosis_verdict(found)[1]}
        series = [
            Series(label, values, found.curves[name]["explained"], colour)
            for name, label, colour in (("image", "with its image", 1), ("removed", "without", 0))
        ]
        series.append(Series("leakage, at most", values, found.leak, 5, dashed=True))
        plot = curves_picture(
            series, x_label="noise level", y_label="share of the motion", y_range=(-0.5, 1.05), lines=(0, 1),
            log_x=unit == "sigma", mark=found.start,
        )  # fmt: skip
        picture = plot.permute(1, 2, 0)[None].float() / 255
        start = values[0] if found.start is None else found.start
        return io.NodeOutput(json.dumps(text), picture, start, ui=ui.PreviewText(" ".join(diagnosis_verdict(found))))


def _levels(text: str) -> list[float]:
    try:
        values = [float(part) for part in text.replace(";", ",").split(",")]
    except ValueError:
        values = []
    if len(values) < 2 or not all(a > b for a, b in zip(values, values[1:], strict=False)) or not values[-1] > 0:
        raise UnstillError(f"Levels are two or more falling numbers above 0, such as 1, 0.9, 0.6, not {text[:80]!r}.")
    return values
