"""Wan 2.1 and 2.2 (https://huggingface.co/papers/2503.20314), and SkyReels V2, which has the same network."""

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from unstill.data.images import Size
from unstill.data.sources import Sample
from unstill.errors import UnstillError
from unstill.families.base import Family
from unstill.families.model_card import Model
from unstill.families.reference_keys import ReferenceKeys
from unstill.families.training import (
    Encoded,
    TrainingRole,
    check_clip_length,
    check_more_than_the_image,
    check_multiple,
)
from unstill.families.vae_adapters import VideoAdapter


class WanText(VideoAdapter):
    """Text to video."""

    two_calls = True
    attends = ("transformer", "transformer_2")
    usual_scheduler = ("UniPCMultistepScheduler", {"prediction_type": "flow_prediction", "use_flow_sigmas": True})

    def handover(self, pipe: Any) -> float | None:
        ratio = pipe.config.get("boundary_ratio")
        if ratio is None or getattr(pipe, "transformer_2", None) is None:
            return None
        return float(ratio * pipe.scheduler.config.num_train_timesteps)

    def reference_keys(self, pipe: Any, network: Any, x: torch.Tensor, shape: torch.Size) -> ReferenceKeys:
        return ReferenceKeys.of_patches(network, x, "none")


class Wan(WanText):
    """
    The image is encoded as a video whose other frames are empty, and concatenated behind a mask: channels C, 4, C.
    With `expand_timesteps` (Wan 2.2 5B) it takes the place of frame 0 instead.
    """

    image_latents_from = "prepare_latents"
    denoisers = ("transformer", "transformer_2")

    def conditioning_frames(self, pipe: Any) -> int:
        return int(pipe.config.get("expand_timesteps", False))

    def image_latents(self, pipe: Any, result: Any, video: torch.Tensor) -> torch.Tensor:
        return result[1][:, -video.shape[1] :, :1]

    def condition_view(self, x: torch.Tensor, channels: int) -> torch.Tensor:
        return x[:, -channels:, :1]

    def condition_clip_view(self, pipe: Any, x: torch.Tensor, channels: int) -> tuple[torch.Tensor, Any, Any]:
        clip = x[:, -channels:]
        return clip, *self.moments(pipe, clip)


class SkyReels(Wan):
    """Wan 2.1 with other weights."""

    def conditioning_frames(self, pipe: Any) -> int:
        return 0


class WanAnimate(WanText):
    """
    Samples a video in segments, each from noise. Latent frame 0 is an additional frame for the image, which is not
    decoded; the network receives the image there: channels C, 4 of a mask, C.
    """

    image_latents_from = "prepare_reference_image_latents"
    denoisers = ("transformer",)
    in_sections = True

    def image_latents(self, pipe: Any, result: Any, video: torch.Tensor) -> torch.Tensor:
        return result[:, -video.shape[1] :]

    def condition_view(self, x: torch.Tensor, channels: int) -> torch.Tensor:
        return x[:, -channels:, :1]

    def _encode(self, pipe: Any, frames: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
        latents = super()._encode(pipe, frames, generator)
        if len(frames) == 1:
            return latents
        return torch.cat([super()._encode(pipe, frames[:1], generator), latents], 2)

    def _decode(self, pipe: Any, latents: torch.Tensor) -> torch.Tensor:
        return super()._decode(pipe, latents[:, :, 1:])


class ModularWanText(WanText):
    """Text to video, made of blocks."""

    modular = True


class ModularWan(Wan):
    """`Wan`, made of blocks."""

    modular = True

    def conditioning_frames(self, pipe: Any) -> int:
        return 0


class WanTraining(TrainingRole):
    """
    Wan 2.1 and 2.2 A14B: condition latents of the image before empty frames, behind a mask of four channels; in 2.1
    tokens of CLIP, too. Of the two transformers of A14B the one for high noise is trained, on its own levels: at these
    the motion is decided, and they are where TimeNoise has its noise.
    """

    name = "wan"
    denoiser = "transformer"
    blank_latents = False

    def of(self, pipe: Any) -> TrainingRole:
        if pipe.transformer is None:
            raise UnstillError(
                "This Wan was loaded without the transformer for high noise, which is the one that is trained; load "
                "the pipeline with its transformer."
            )
        if pipe.config.get("expand_timesteps"):
            return WanFrameTraining()
        return self if pipe.transformer.config.image_dim is not None else WanWithoutTokensTraining()

    def check_clip(self, pipe: Any, frames: int, size: Size) -> None:
        check_multiple(pipe, size, pipe.vae_scale_factor_spatial * pipe.transformer.config.patch_size[1])
        check_clip_length(pipe, frames, pipe.vae_scale_factor_temporal)

    def encode(self, pipe: Any, sample: Sample, latents: Tensor, frame: int) -> Encoded:
        frames, _, height, width = sample.video.shape
        device, pixels = pipe._execution_device, sample.video[[frame]]
        _, condition = pipe.prepare_latents(
            (pixels * 2 - 1).to(device),
            1,
            len(latents),
            height,
            width,
            frames,
            torch.float32,
            device,
            latents=latents[None],
        )
        encoded = {"latents": latents, "mask": condition[0, : -len(latents)], "image": condition[0, -len(latents) :]}
        encoded["text"] = _text(pipe, sample.caption)
        if pipe.transformer.config.image_dim is not None:
            picture = (pixels[0] * 255).round().byte()
            encoded["tokens"] = pipe.encode_image(picture, device)[0].float()
        return encoded

    def dropped(self, pipe: Any, like: Encoded) -> Encoded:
        return super().dropped(pipe, like) | {"text": _text(pipe, "")}

    def predict(self, model: Any, noisy: Tensor, timestep: Tensor, given: Encoded, image_noise: Tensor) -> Tensor:
        x = torch.cat([noisy, given["mask"].to(noisy), given["image"].to(noisy)], 1)
        tokens = given["tokens"].to(noisy) if "tokens" in given else None
        return model(x, timestep, given["text"].to(noisy), tokens, return_dict=False)[0]


class WanWithoutTokensTraining(WanTraining):
    """Wan 2.2 A14B."""

    has_tokens = False


class WanFrameTraining(WanTraining):
    """
    Wan 2.2 5B: the image is the first latent frame, whose timestep is 0, or 1000 times the level of its noise where
    the network is conditioned on that. The other frames share a timestep, and have the loss.
    """

    name = "wan-5b"
    image_is_frame = True
    has_tokens = False

    def check_clip(self, pipe: Any, frames: int, size: Size) -> None:
        super().check_clip(pipe, frames, size)
        check_more_than_the_image(frames, pipe.vae_scale_factor_temporal)

    def encode(self, pipe: Any, sample: Sample, latents: Tensor, frame: int) -> Encoded:
        return {
            "latents": latents[:, 1:],
            "image": Wan().encode_video(pipe, sample.video[:1])[0],  # the mode of the posterior, as the pipeline does
            "text": _text(pipe, sample.caption),
        }

    def predict(self, model: Any, noisy: Tensor, timestep: Tensor, given: Encoded, image_noise: Tensor) -> Tensor:
        video = torch.cat([given["image"][:, :, :1].to(noisy), noisy], 2)
        frames, height, width = video.shape[2:]
        times = torch.cat([1000 * image_noise[:, None], timestep[:, None].expand(-1, frames - 1)], 1)  # (B, F)
        times = times.repeat_interleave((height // 2) * (width // 2), 1)  # patches are 2 by 2
        return model(video, times, given["text"].to(noisy), return_dict=False)[0][:, :, 1:]


def _text(pipe: Any, caption: str) -> Tensor:
    return pipe.encode_prompt([caption], do_classifier_free_guidance=False)[0][0].float()


FAMILY = Family(
    adapters={
        "WanPipeline": WanText(),
        "WanVACEPipeline": WanText(),
        "WanImageToVideoPipeline": Wan(),
        "WanAnimatePipeline": WanAnimate(),
        "WanModularPipeline": ModularWanText(),
        "Wan22ModularPipeline": ModularWanText(),
        "WanImage2VideoModularPipeline": ModularWan(),
        "Wan22Image2VideoModularPipeline": ModularWan(),
        "SkyReelsV2Pipeline": WanText(),
        "SkyReelsV2ImageToVideoPipeline": SkyReels(),
    },
    image_inputs={
        "WanImageToVideoPipeline": "channels, frame 0, or in 2.2 5B frame 0; CLIP (2.1)",
        "WanAnimatePipeline": "channels, frame 0; CLIP",
        "WanVACEPipeline": "a network of its own",
        "WanImage2VideoModularPipeline": "channels, frame 0; CLIP (2.1)",
        "Wan22Image2VideoModularPipeline": "channels, frame 0; CLIP (2.1)",
        "SkyReelsV2ImageToVideoPipeline": "channels, frame 0; CLIP",
    },
    unsupported={
        "Wan22VaceModularPipeline": "shows its image to a network of its own; use Wan22Image2VideoModularPipeline.",
        "SkyReelsV2DiffusionForcingImageToVideoPipeline": (
            "samples every latent frame with a scheduler of its own, and methods act on whole videos; use "
            "SkyReelsV2ImageToVideoPipeline."
        ),
    },
    image_modes={"WanPipeline": nullcontext},
    training={"WanImageToVideoPipeline": WanTraining()},
    models=(
        Model(
            name="wan2.1-i2v-14b-480p",
            pipeline="WanImageToVideoPipeline",
            weights="Wan-AI/Wan2.1-I2V-14B-480P-Diffusers",
            licence="Apache-2.0",
            parameters="14 B",
            needs="a GPU of 40 GB with --offload",
            dtype="bfloat16",
            size=(480, 832),
            frames=81,
            fps=16,
            steps=50,
            input="image and prompt",
            start=("start", 0.96),
        ),
        Model(
            name="wan2.1-i2v-14b-720p",
            pipeline="WanImageToVideoPipeline",
            weights="Wan-AI/Wan2.1-I2V-14B-720P-Diffusers",
            licence="Apache-2.0",
            parameters="16 B",
            needs="a GPU of 48 GB with --offload",
            dtype="bfloat16",
            size=(720, 1280),
            frames=81,
            fps=16,
            steps=50,
            input="image and prompt",
            start=("start", 0.96),
        ),
        Model(
            name="wan2.2-i2v-a14b",
            pipeline="WanImageToVideoPipeline",
            weights="Wan-AI/Wan2.2-I2V-A14B-Diffusers",
            licence="Apache-2.0",
            parameters="2 x 14 B",
            needs="a GPU of 40 GB with --offload",
            dtype="bfloat16",
            size=(480, 832),
            frames=81,
            fps=16,
            steps=40,
            input="image and prompt",
            start=("start", 0.96),
        ),
        Model(
            name="wan2.2-ti2v-5b",
            pipeline="WanImageToVideoPipeline",
            weights="Wan-AI/Wan2.2-TI2V-5B-Diffusers",
            licence="Apache-2.0",
            parameters="5 B",
            needs="a GPU of 24 GB with --offload",
            dtype="bfloat16",
            size=(704, 1280),
            frames=121,
            fps=24,
            steps=50,
            input="image and prompt",
            start=("start", 0.96),
        ),
        Model(
            name="wan2.1-t2v-1.3b",
            pipeline="WanPipeline",
            weights="Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
            licence="Apache-2.0",
            parameters="1.4 B",
            needs="a GPU of 16 GB with --offload",
            dtype="bfloat16",
            size=(480, 832),
            frames=81,
            fps=16,
            steps=50,
            input="prompt",
            start=("start", 0.96),
        ),
        Model(
            name="skyreels-v2-i2v-1.3b",
            pipeline="SkyReelsV2ImageToVideoPipeline",
            weights="Skywork/SkyReels-V2-I2V-1.3B-540P-Diffusers",
            licence="Skywork Community License",
            parameters="1.5 B",
            needs="a GPU of 16 GB with --offload",
            dtype="bfloat16",
            size=(544, 960),
            frames=97,
            fps=24,
            steps=50,
            input="image and prompt",
            start=("start", 0.96),
        ),
        Model(
            name="skyreels-v2-i2v-14b",
            pipeline="SkyReelsV2ImageToVideoPipeline",
            weights="Skywork/SkyReels-V2-I2V-14B-540P-Diffusers",
            licence="Skywork Community License",
            parameters="16 B",
            needs="a GPU of 48 GB with --offload",
            dtype="bfloat16",
            size=(544, 960),
            frames=97,
            fps=24,
            steps=50,
            input="image and prompt",
            start=("start", 0.96),
        ),
    ),
)
