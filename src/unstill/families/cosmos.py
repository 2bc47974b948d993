"""Cosmos Predict 1, 2 and 2.5 (https://huggingface.co/papers/2501.03575)."""

from typing import Any

import torch

from unstill.errors import UnstillError
from unstill.families.base import Family
from unstill.families.vae_adapters import VideoAdapter
from unstill.families.wan import WanText
from unstill.forward_process import ProcessKind
from unstill.predictions import Prediction


class Cosmos(VideoAdapter):
    """
    The image replaces frame 0 in the input and in the output of the network, and a mask marks it. Used unchanged for
    Cosmos Predict 2, which has a flow-matching scheduler on x0 + sigma eps and starts at a fixed sigma.
    """

    kind: ProcessKind | None = "ve"
    image_latents_from: str | None = "prepare_latents"
    denoisers: tuple[str, ...] = ("transformer",)
    two_calls = True
    guides_output = False
    indicator = 2  # which value of `prepare_latents` marks the frames of the image

    def conditioning_frames(self, pipe: Any) -> int:
        return 1

    def first_scale(self, pipe: Any, image_latents: torch.Tensor | None) -> tuple[Any, Any]:
        return pipe.scheduler.sigmas[0].item(), 0.0

    def rescale_initial(self, pipe: Any, video: torch.Tensor, image_latents: torch.Tensor | None) -> torch.Tensor:
        return video * (pipe.scheduler.sigmas[0].item() / pipe.scheduler.config.sigma_max)

    def image_latents(self, pipe: Any, result: Any, video: torch.Tensor) -> torch.Tensor:
        if result[self.indicator][0].sum() != 1:
            raise UnstillError(f"Methods hold one latent frame of {type(pipe).__name__}; give it one image or frame.")
        return result[1][:, :, :1]

    def condition_view(self, x: torch.Tensor, channels: int) -> torch.Tensor:
        return x[:, :, :1]


class Cosmos1(Cosmos):
    """
    Guidance acts on x0, which `scheduler.step` first computes from the network's output and then receives for its
    step. The condition cannot be changed: without the prompt the network may see no image, and the pipeline itself
    adds noise to it (`augment_sigma`).
    """

    prediction: Prediction | None = "sample"
    two_pass_step = True
    denoisers = ()
    usual_scheduler = ("EDMEulerScheduler", {"sigma_max": 80.0, "sigma_min": 0.002, "sigma_data": 0.5})

    def moments(self, pipe: Any, latents: torch.Tensor) -> tuple[Any, Any]:
        mean, deviation = super().moments(pipe, latents)
        return mean, deviation / pipe.scheduler.config.sigma_data


class Cosmos1Text(Cosmos1):
    """Text to video."""

    image_latents_from = None

    def conditioning_frames(self, pipe: Any) -> int:
        return 0


class Cosmos25(Cosmos):
    """Flow matching. The velocity of frame 0 is its first latents minus the image; from the image, it stays there."""

    kind = None
    last_setup_call = "set_timesteps"
    indicator = 3
    usual_scheduler = WanText.usual_scheduler

    def first_scale(self, pipe: Any, image_latents: torch.Tensor | None) -> tuple[Any, Any]:
        return 1.0, 0.0

    def rescale_initial(self, pipe: Any, video: torch.Tensor, image_latents: torch.Tensor | None) -> torch.Tensor:
        assert image_latents is not None
        return torch.cat([image_latents.to(video), video[:, :, 1:]], 2)


FAMILY = Family(
    adapters={
        "CosmosTextToWorldPipeline": Cosmos1Text(),
        "CosmosVideoToWorldPipeline": Cosmos1(),
        "Cosmos2VideoToWorldPipeline": Cosmos(),
        "Cosmos2_5_PredictBasePipeline": Cosmos25(),
    },
    image_inputs={
        "CosmosVideoToWorldPipeline": "frame 0",
        "Cosmos2VideoToWorldPipeline": "frame 0",
        "Cosmos2_5_PredictBasePipeline": "frame 0",
    },
)
