"""HunyuanVideo (https://huggingface.co/papers/2412.03603), 1.5, and SkyReels V1, which has the same network."""

from typing import Any

import torch

from unstill.families.base import Family
from unstill.families.model_card import Model
from unstill.families.reference_keys import ReferenceKeys
from unstill.families.vae_adapters import VideoAdapter


class HunyuanVideoText(VideoAdapter):
    """Text to video."""

    two_calls = True
    attends = ("transformer",)

    def reference_keys(self, pipe: Any, network: Any, x: torch.Tensor, shape: torch.Size) -> ReferenceKeys:
        return ReferenceKeys.of_patches(network, x, "after")


class HunyuanVideo(HunyuanVideoText):
    """
    The first latents hold a thousandth of the image. `latent_concat`: channels C, C with the image in frame 0, 1 of a
    mask; `token_replace`: the image takes the place of frame 0.
    """

    image_latents_from = "prepare_latents"
    last_setup_call = "set_timesteps"
    denoisers = ("transformer",)

    def conditioning_frames(self, pipe: Any) -> int:
        return int(pipe.transformer.config.image_condition_type == "token_replace")

    def first_scale(self, pipe: Any, image_latents: torch.Tensor | None) -> tuple[Any, Any]:
        assert image_latents is not None
        return 0.999, 0.001 * image_latents

    def image_latents(self, pipe: Any, result: Any, video: torch.Tensor) -> torch.Tensor:
        return result[1][:, :, :1]

    def condition_view(self, x: torch.Tensor, channels: int) -> torch.Tensor:
        return x[:, -channels - 1 : -1, :1] if x.shape[1] > channels else x[:, :, :1]


class HunyuanSkyreels(HunyuanVideoText):
    """Channels C, C with the image in frame 0."""

    image_latents_from = "prepare_latents"
    denoisers = ("transformer",)

    def image_latents(self, pipe: Any, result: Any, video: torch.Tensor) -> torch.Tensor:
        return result[1][:, :, :1]

    def condition_view(self, x: torch.Tensor, channels: int) -> torch.Tensor:
        return x[:, channels:, :1]


class HunyuanVideo15(HunyuanVideoText):
    """Channels C, C with the image in frame 0, 1 of a mask."""

    image_latents_from = last_setup_call = "prepare_cond_latents_and_mask"
    denoisers = ("transformer",)

    def image_latents(self, pipe: Any, result: Any, video: torch.Tensor) -> torch.Tensor:
        return result[0][:, :, :1]

    def condition_view(self, x: torch.Tensor, channels: int) -> torch.Tensor:
        return x[:, -channels - 1 : -1, :1]


class Framepack(VideoAdapter):
    """
    Samples a video in sections, each from noise. The image is in a separate input, before the frames sampled so far.
    """

    image_latents_from = "prepare_image_latents"
    last_setup_call = "set_timesteps"
    denoisers = ("transformer",)
    condition_input = "latents_clean"
    two_calls = True
    in_sections = True

    def image_latents(self, pipe: Any, result: Any, video: torch.Tensor) -> torch.Tensor:
        return result

    def condition_view(self, x: torch.Tensor, channels: int) -> torch.Tensor:
        return x[:, :, :1]


FAMILY = Family(
    adapters={
        "HunyuanVideoPipeline": HunyuanVideoText(),
        "HunyuanVideoImageToVideoPipeline": HunyuanVideo(),
        "HunyuanSkyreelsImageToVideoPipeline": HunyuanSkyreels(),
        "HunyuanVideoFramepackPipeline": Framepack(),
        "HunyuanVideo15Pipeline": HunyuanVideoText(),
        "HunyuanVideo15ImageToVideoPipeline": HunyuanVideo15(),
    },
    image_inputs={
        "HunyuanVideoImageToVideoPipeline": "channels, frame 0, or with token_replace frame 0; MLLM",
        "HunyuanSkyreelsImageToVideoPipeline": "channels, frame 0",
        "HunyuanVideoFramepackPipeline": "an input of its own; SigLIP",
        "HunyuanVideo15ImageToVideoPipeline": "channels, frame 0; SigLIP",
    },
    models=(
        Model(
            name="hunyuanvideo-i2v",
            pipeline="HunyuanVideoImageToVideoPipeline",
            weights="hunyuanvideo-community/HunyuanVideo-I2V",
            licence="Tencent Hunyuan Community License (not for the EU, the UK and South Korea)",
            parameters="13 B",
            needs="a GPU of 60 GB with --offload",
            dtype="bfloat16",
            size=(720, 1280),
            frames=129,
            fps=24,
            steps=50,
            input="image and prompt",
            start=("start", 0.96),
            tiled=True,
        ),
        Model(
            name="hunyuanvideo",
            pipeline="HunyuanVideoPipeline",
            weights="hunyuanvideo-community/HunyuanVideo",
            licence="Tencent Hunyuan Community License (not for the EU, the UK and South Korea)",
            parameters="13 B",
            needs="a GPU of 60 GB with --offload",
            dtype="bfloat16",
            size=(720, 1280),
            frames=129,
            fps=24,
            steps=50,
            input="prompt",
            start=("start", 0.96),
            tiled=True,
        ),
        Model(
            name="hunyuanvideo-1.5-i2v",
            pipeline="HunyuanVideo15ImageToVideoPipeline",
            weights="hunyuanvideo-community/HunyuanVideo-1.5-Diffusers-480p_i2v",
            licence="Tencent Hunyuan Community License (not for the EU, the UK and South Korea)",
            parameters="8.3 B",
            needs="a GPU of 24 GB with --offload",
            dtype="bfloat16",
            size=(480, 832),
            frames=121,
            fps=24,
            steps=50,
            input="image and prompt",
            start=("start", 0.96),
            tiled=True,
        ),
    ),
)
