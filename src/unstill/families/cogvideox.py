"""CogVideoX (Yang et al., https://huggingface.co/papers/2408.06072), and ConsisID, which is based on it."""

from contextlib import nullcontext
from typing import Any

import torch

from unstill.families.base import Family
from unstill.families.model_card import Model
from unstill.families.reference_keys import ReferenceKeys
from unstill.families.vae_adapters import VideoAdapter


class CogVideoXText(VideoAdapter):
    """Text to video."""

    frames_first = True
    attends = ("transformer",)
    usual_scheduler = ("CogVideoXDDIMScheduler", {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"})

    def reference_keys(self, pipe: Any, network: Any, x: torch.Tensor, shape: torch.Size) -> ReferenceKeys:
        return ReferenceKeys.of_patches(network, x, "before", frame_dim=1)


class CogVideoX(CogVideoXText):
    """The image is frame 0 of a second block of channels, whose other frames are zero."""

    image_latents_from = "prepare_latents"
    denoisers = ("transformer",)

    def image_latents(self, pipe: Any, result: Any, video: torch.Tensor) -> torch.Tensor:
        return result[1][:, :1].transpose(1, 2) * self.condition_scale(pipe)

    def condition_view(self, x: torch.Tensor, channels: int) -> torch.Tensor:
        return x[:, :1, channels:].transpose(1, 2)

    def condition_scale(self, pipe: Any) -> float:
        # invert_scale_latents: the image is divided by the factor that videos are multiplied by
        config = pipe.vae.config
        return config.scaling_factor**2 if config.invert_scale_latents else 1.0


class ConsisID(CogVideoX):
    """Like `CogVideoX`, but the image is scaled as videos are, whatever `invert_scale_latents` says."""

    def condition_scale(self, pipe: Any) -> float:
        return 1.0


FAMILY = Family(
    adapters={
        "CogVideoXPipeline": CogVideoXText(),
        "CogVideoXImageToVideoPipeline": CogVideoX(),
        "ConsisIDPipeline": ConsisID(),
    },
    image_inputs={
        "CogVideoXImageToVideoPipeline": "channels, frame 0",
        "ConsisIDPipeline": "channels, frame 0; tokens of the face",
    },
    image_modes={"CogVideoXPipeline": nullcontext},
    models=(
        Model(
            name="cogvideox-5b-i2v",
            pipeline="CogVideoXImageToVideoPipeline",
            weights="zai-org/CogVideoX-5b-I2V",
            licence="CogVideoX License",
            parameters="5 B",
            needs="a GPU of 24 GB with --offload",
            dtype="bfloat16",
            size=(480, 720),
            frames=49,
            fps=8,
            steps=50,
            input="image and prompt",
            start=("start", 0.96),
            tiled=True,
        ),
        Model(
            name="cogvideox-2b",
            pipeline="CogVideoXPipeline",
            weights="zai-org/CogVideoX-2b",
            licence="Apache-2.0",
            parameters="1.7 B",
            needs="a GPU of 12 GB with --offload",
            dtype="float16",
            size=(480, 720),
            frames=49,
            fps=8,
            steps=50,
            input="prompt",
            start=("start", 0.96),
            tiled=True,
        ),
    ),
)
