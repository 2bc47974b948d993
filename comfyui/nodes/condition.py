"""Condition Noise and Condition Amplitude: what the model is shown of the image."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io
from torch import Tensor

from unstill.methods.conditioning_augmentation import augment, grown, vp

from ..model_access import alpha_sigma, change_condition, is_flow, one_of, sampling_of


SCHEDULES = ["constant", "t2"]


class ConditionNoise(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="UnstillConditionNoise",
            display_name="Condition Noise",
            category="unstill/condition",
            description="For a video that copies its image: the model sees a noised image. Best for models trained "
            "with noisy images (LTX-Video, Stable Video Diffusion); others read much noise as part of the picture.",
            inputs=[
                io.Model.Input("model"),
                io.Combo.Input(
                    "schedule", options=SCHEDULES, default="t2",
                    tooltip="constant: the same noise in every step. t2: strength x level squared, fresh in every "
                    "step, so that the details come from the clean image (LTX-Video's own).",
                ),
                io.Float.Input(
                    "strength", default=0.15, min=0.0, max=1.0, step=0.01,
                    tooltip="0 changes nothing. t2: 0.15 in LTX-Video. constant: a share of the training time, 0.02.",
                ),
                io.Int.Input("seed", default=0, min=0, max=2**63 - 1, control_after_generate=True),
            ],
            outputs=[io.Model.Output(display_name="model")],
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, schedule: str) -> bool | str:
        return one_of("schedule", schedule, SCHEDULES)

    @classmethod
    def execute(cls, model: Any, schedule: str, strength: float, seed: int) -> io.NodeOutput:
        if strength == 0:
            return io.NodeOutput(model)
        sampling = sampling_of(model)

        def change(image: Tensor, level: Tensor, options: dict[str, Any]) -> Tensor:
            sigma = float(level.flatten()[0])
            # One draw for all passes of a step; t2 draws anew in every step, which its noise level tells apart.
            draw = seed + (int(sigma * 1e6) if schedule == "t2" else 0)
            noise = torch.randn(image[:1].shape, generator=torch.Generator().manual_seed(draw)).to(image)
            if schedule == "t2":
                return grown(image, strength, *alpha_sigma(sampling, sigma), noise)
            share = torch.full((1,), strength, device=image.device)
            return augment(image, *((1 - share, share) if is_flow(sampling) else vp(share)), noise)

        return io.NodeOutput(change_condition(model, "unstill_condition_noise", change))


class ConditionAmplitude(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="UnstillConditionAmplitude",
            display_name="Condition Amplitude",
            category="unstill/condition",
            description="For Wan videos that stand still, also with 4-step LoRAs and without guidance: enlarges what "
            "the empty frames of the condition differ by from the image. Colours may shift.",
            inputs=[
                io.Conditioning.Input("positive", tooltip="From WanImageToVideo."),
                io.Conditioning.Input("negative", tooltip="From WanImageToVideo."),
                io.Float.Input(
                    "amplitude", default=1.15, min=0.0, max=2.0, step=0.01,
                    tooltip="1 changes nothing; 1.05 to 1.3 is usual.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(display_name="changed_positive"),
                io.Conditioning.Output(display_name="changed_negative"),
            ],
        )  # fmt: skip

    @classmethod
    def execute(cls, positive: Any, negative: Any, amplitude: float) -> io.NodeOutput:
        return io.NodeOutput(_amplified(positive, amplitude), _amplified(negative, amplitude))


def _amplified(conditioning: Any, amplitude: float) -> Any:
    from unstill.methods.condition_amplitude import amplify

    made = []
    for embedding, values in conditioning:
        clip = values.get("concat_latent_image")
        if amplitude != 1 and clip is not None and clip.ndim == 5 and clip.shape[2] > 1:
            values = {**values, "concat_latent_image": amplify(clip, amplitude)}
        made.append([embedding, values])
    return made
