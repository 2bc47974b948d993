"""pico, the model embedded in this package."""

import functools
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from unstill.data.images import Size
from unstill.data.sources import Sample
from unstill.errors import UnstillError
from unstill.families.base import Family
from unstill.families.model_card import Model
from unstill.families.reference_keys import ReferenceKeys
from unstill.families.svd import StableVideoDiffusion, SVDTraining
from unstill.families.training import Encoded


def image_noise_id(deviation: Tensor | float) -> Any:
    """The standard deviation of the noise on the image latents as the third of the `added_time_ids`."""
    return 100.0 * deviation


class Pico(StableVideoDiffusion):
    """A transformer with the call signature of Stable Video Diffusion's U-Net."""

    denoisers = ("transformer",)
    attends = ("transformer",)
    temporal_attention = ""

    def drop_image(
        self, x: Tensor, channels: int, args: tuple[Any, ...], kwargs: dict[str, Any], keep_prompt: bool = False
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        self.condition_view(x, channels).zero_()
        sample, label, words, ids = args
        ids = ids * ids.new_tensor([1.0, 1.0, 0.0])  # no noise on an absent image
        return (sample, label, words if keep_prompt else torch.zeros_like(words), ids), kwargs

    def reference_keys(self, pipe: Any, network: Any, x: Tensor, shape: torch.Size) -> ReferenceKeys:
        return ReferenceKeys.of_patches(network, x, "before", frame_dim=1)

    def set_image_noise(
        self, pipe: Any, noise: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Callable[[], Any]:
        ids = kwargs["added_time_ids"] if "added_time_ids" in kwargs else args[3]
        levels = ids[-len(noise) :, 2]  # a view; with guidance the first half has no image
        before = levels.clone()  # from `noise_aug_strength`: the variances of independent noises add up
        levels.copy_(torch.hypot(before, image_noise_id(noise).to(before)))
        return functools.partial(levels.copy_, before)

    def _decode(self, pipe: Any, latents: torch.Tensor) -> torch.Tensor:
        return pipe.decode_latents(latents.transpose(1, 2))


class PicoTraining(SVDTraining):
    """No CLIP, short captions, motion levels that are exact on the synthetic world."""

    name = "pico"
    denoiser = "transformer"
    has_text = True
    has_tokens = False
    usual_noise = 0.0
    lora = ("qkv", "out", "widen", "narrow")
    context = "text"

    def check_clip(self, pipe: Any, frames: int, size: Size) -> None:
        longest, own = pipe.transformer.config.num_frames, pipe.size
        if frames > longest or size != (own, own):
            raise UnstillError(
                f"data: this model takes clips of at most {longest} frames of {own}x{own}, not {frames} of "
                f"{size[1]}x{size[0]}; change data.frames and data.size, or leave them out."
            )

    def encode(self, pipe: Any, sample: Sample, latents: Tensor, frame: int) -> Encoded:
        return {
            "latents": latents,
            "image": latents[:, [frame]],
            "text": pipe.encode_prompt([sample.caption])[0],
            "fps": torch.tensor(sample.fps),
            "motion": torch.tensor(pipe.encode_motion(sample.motion)),
        }

    def predict(self, model: Any, noisy: Tensor, timestep: Tensor, given: Encoded, image_noise: Tensor) -> Tensor:
        shown = given["image"].flatten(1).any(1)  # a dropped image is all zeros, without noise
        return super().predict(model, noisy, timestep, given, image_noise_id(image_noise) * shown)


EMBEDDED = Model(
    name="pico",
    pipeline="PicoPipeline",
    weights=None,
    licence="Apache-2.0",
    parameters="16 M",
    needs="any CPU",
    dtype="float32",
    size=(96, 96),
    frames=16,
    max_frames=16,
    fps=8,
    steps=15,
    input="image",
    start=("sigma", 10.0),
)
FAMILY = Family(
    adapters={"PicoPipeline": Pico()},
    image_inputs={
        "PicoPipeline": "channels, every frame",
    },
    image_modes={"PicoPipeline": nullcontext},
    training={"PicoPipeline": PicoTraining()},
    models=(
        EMBEDDED,
        replace(EMBEDDED, name="pico-still", lora="still"),
        replace(EMBEDDED, name="pico-still-time-noise", lora="still-time-noise"),
    ),
    module="unstill.models.pico",
    reward="world",
)
