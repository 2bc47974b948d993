"""Stable Video Diffusion (Blattmann et al., https://huggingface.co/papers/2311.15127)."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from unstill.data.sources import Sample
from unstill.families.base import Family
from unstill.families.model_card import Model
from unstill.families.reference_keys import ReferenceKeys
from unstill.families.training import Encoded, TrainingRole
from unstill.families.vae_adapters import FrameAdapter


class StableVideoDiffusion(FrameAdapter):
    """Image latents, not scaled, are repeated over the frames and concatenated to the channels."""

    frames_first = True
    image_latents_from = "_encode_vae_image"
    denoisers = ("unet",)
    condition_input = "sample"
    zero_unconditional = True
    attends: tuple[str, ...] = ("unet",)
    temporal_attention: str = "TemporalBasicTransformerBlock"
    usual_scheduler = (
        "EulerDiscreteScheduler",
        {"prediction_type": "v_prediction", "timestep_type": "continuous", "sigma_max": 700.0, "sigma_min": 0.002},
    )

    def image_latents(self, pipe: Any, result: Any, video: torch.Tensor) -> torch.Tensor:
        return result[-len(video) :].unsqueeze(2) * self.condition_scale(pipe)  # under guidance the first B are zeros

    def condition_view(self, x: torch.Tensor, channels: int) -> torch.Tensor:
        return x[:, :, channels:].transpose(1, 2)

    def condition_scale(self, pipe: Any) -> float:
        return pipe.vae.config.scaling_factor

    def guidance_scale(self, pipe: Any) -> float | Tensor | None:
        scale: float | Tensor = pipe.guidance_scale
        return scale.transpose(1, 2) if isinstance(scale, Tensor) else scale  # (B, F, 1, 1, 1)

    def drop_image(
        self, x: Tensor, channels: int, args: tuple[Any, ...], kwargs: dict[str, Any], keep_prompt: bool = False
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        self.condition_view(x, channels).zero_()
        tokens = kwargs["encoder_hidden_states"]
        return args, kwargs | {"encoder_hidden_states": torch.zeros_like(tokens)}

    def reference_keys(self, pipe: Any, network: Any, x: Tensor, shape: torch.Size) -> ReferenceKeys:
        return ReferenceKeys(shape[2], 1, temporal=True)

    def _decode(self, pipe: Any, latents: torch.Tensor) -> torch.Tensor:
        return pipe.decode_latents(latents.transpose(1, 2), num_frames=latents.shape[2])


class SVDTraining(TrainingRole):
    """Image latents are not scaled; conditioned on frames per second, a motion bucket and the noise on the image."""

    name = "svd"
    has_text = False
    usual_bucket: ClassVar[float] = 127.0
    usual_noise = 0.02
    context: ClassVar[str] = "tokens"

    def encode(self, pipe: Any, sample: Sample, latents: Tensor, frame: int) -> Encoded:
        # As the pipeline prepares its image: in [-1, 1], resized with antialiasing.
        from diffusers.pipelines.stable_video_diffusion.pipeline_stable_video_diffusion import (
            _resize_with_antialiasing,
        )

        picture = _resize_with_antialiasing(sample.video[frame][None] * 2 - 1, (224, 224)) / 2 + 0.5
        return {
            "latents": latents,
            "image": latents[:, [frame]] / pipe.vae.config.scaling_factor,
            "tokens": pipe._encode_image(picture, pipe._execution_device, 1, False)[0].float(),
            "fps": torch.tensor(sample.fps),
            "motion": torch.tensor(self.usual_bucket),
        }

    def predict(self, model: Any, noisy: Tensor, timestep: Tensor, given: Encoded, image_noise: Tensor) -> Tensor:
        image = given["image"].expand(-1, -1, noisy.shape[2], -1, -1)
        x = torch.cat([noisy, image.to(noisy)], 1).transpose(1, 2)
        # The pipeline also passes fps - 1.
        ids = torch.stack([given["fps"] - 1, given["motion"], image_noise], 1).to(noisy)
        context = given.get(self.context)
        return model(x, timestep, context, ids, return_dict=False)[0].transpose(1, 2)


FAMILY = Family(
    adapters={"StableVideoDiffusionPipeline": StableVideoDiffusion()},
    image_inputs={
        "StableVideoDiffusionPipeline": "channels, every frame; CLIP",
    },
    training={"StableVideoDiffusionPipeline": SVDTraining()},
    models=(
        Model(
            name="svd",
            pipeline="StableVideoDiffusionPipeline",
            weights="stabilityai/stable-video-diffusion-img2vid",
            licence="Stability AI Community License",
            parameters="1.5 B",
            needs="a GPU of 16 GB with --offload",
            dtype="float16",
            size=(576, 1024),
            frames=14,
            fps=7,
            steps=25,
            input="image",
            start=("sigma", 100.0),
            variant="fp16",
        ),
        Model(
            name="svd-xt",
            pipeline="StableVideoDiffusionPipeline",
            weights="stabilityai/stable-video-diffusion-img2vid-xt",
            licence="Stability AI Community License",
            parameters="1.5 B",
            needs="a GPU of 16 GB with --offload",
            dtype="float16",
            size=(576, 1024),
            frames=25,
            fps=7,
            steps=25,
            input="image",
            start=("sigma", 100.0),
            variant="fp16",
        ),
    ),
)
