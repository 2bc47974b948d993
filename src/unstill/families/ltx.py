"""LTX-Video (HaCohen et al., https://huggingface.co/papers/2501.00103) and LTX-2."""

import math
from typing import Any, Literal

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
from unstill.families.vae_adapters import FirstFrameAdapter, VideoAdapter
from unstill.forward_process import ForwardProcess
from unstill.predictions import Prediction


class PackedLatents(VideoAdapter):
    """The first latents are packed: `(B, tokens, D)`."""

    last_setup_call = "set_timesteps"
    attends = ("transformer",)

    def latent_size(self, pipe: Any, arguments: dict[str, Any]) -> tuple[int, int, int]:
        """Frames, height and width of the latents, from the arguments of `prepare_latents`."""
        space, time = self.compression(pipe)
        return (arguments["num_frames"] - 1) // time + 1, arguments["height"] // space, arguments["width"] // space

    def first_to_video(self, pipe: Any, latents: torch.Tensor, arguments: dict[str, Any]) -> torch.Tensor:
        patches = pipe.transformer_spatial_patch_size, pipe.transformer_temporal_patch_size
        return pipe._unpack_latents(latents, *self.latent_size(pipe, arguments), *patches)

    def first_from_video(self, pipe: Any, video: torch.Tensor, arguments: dict[str, Any]) -> torch.Tensor:
        return pipe._pack_latents(video, pipe.transformer_spatial_patch_size, pipe.transformer_temporal_patch_size)

    def compression(self, pipe: Any) -> tuple[int, int]:
        return pipe.vae_spatial_compression_ratio, pipe.vae_temporal_compression_ratio

    def reference_keys(self, pipe: Any, network: Any, x: torch.Tensor, shape: torch.Size) -> ReferenceKeys:
        return ReferenceKeys(x.shape[1], x.shape[1] // shape[2])

    def _decode(self, pipe: Any, latents: torch.Tensor) -> torch.Tensor:
        mean, deviation = self.moments(pipe, latents)
        clean = latents.new_zeros(len(latents)) if pipe.vae.config.timestep_conditioning else None
        return pipe.vae.decode((latents * deviation + mean).to(latents.dtype), clean).sample


class LTX(PackedLatents, FirstFrameAdapter):
    """Image to video: `scheduler.step` takes unpacked frames."""


class LTXText(PackedLatents):
    """Text to video: `scheduler.step` takes packed latents."""

    def step_to_video(self, pipe: Any, x: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        patches = pipe.transformer_spatial_patch_size, pipe.transformer_temporal_patch_size
        return pipe._unpack_latents(x, *shape[2:], *patches)

    def step_from_video(self, pipe: Any, video: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
        return pipe._pack_latents(video, pipe.transformer_spatial_patch_size, pipe.transformer_temporal_patch_size)


class LTX2Text(LTXText):
    """Samples its audio with a copy of the scheduler. Guidance is computed in terms of x0."""

    guides_output = False
    has_audio_scheduler = True


class LTX2(LTX):
    """Samples its audio with a copy of the scheduler. Guidance is computed in terms of x0."""

    guides_output = False
    has_audio_scheduler = True


class Conditions(LTXText):
    """
    Images and videos at any frame, each with a strength. Methods need one image at frame 0 with strength 1, as the
    plain image-to-video pipeline has it. Images at later frames are tokens of their own beside those of the video,
    which methods leave as they are. `scheduler.step` takes packed latents, frame 0 and these tokens included.

    Attributes:
        images_first: whether the tokens of images at later frames come before those of the video.
    """

    images_first: bool
    image_latents_from = "prepare_latents"

    def conditioning_frames(self, pipe: Any) -> int:
        return 1

    def image_latents(self, pipe: Any, result: Any, video: torch.Tensor) -> torch.Tensor:
        if result[1] is None:
            raise UnstillError(
                f"This call of {type(pipe).__name__} has no image, which methods need here; give it one, or use the "
                "pipeline for text to video."
            )
        mask = result[1].flatten(1)  # (B, S): the strength of the image that a token is from, 0: noise
        own, images = self._split(mask, self._tokens(pipe, *video.shape[2:]))
        first = own.shape[1] // video.shape[2]  # tokens of frame 0
        if not (own[:, :first] == 1).all() or own[:, first:].any() or not (images == 1).all():
            raise UnstillError(
                f"Methods work in {type(pipe).__name__} with an image at frame 0 and, besides it, images at later "
                "frames, all with strength 1, and this call has other conditions; change them, or call it without "
                "methods."
            )
        return video[:, :, :1]

    def first_part(self, pipe: Any, latents: torch.Tensor, arguments: dict[str, Any]) -> torch.Tensor:
        return self._split(latents, self._tokens(pipe, *self.latent_size(pipe, arguments)))[0]

    def step_to_video(self, pipe: Any, x: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        whole = torch.Size((*shape[:2], shape[2] + 1, *shape[3:]))
        own, _ = self._split(x, self._tokens(pipe, *whole[2:]))
        return super().step_to_video(pipe, own, whole)

    def step_from_video(self, pipe: Any, video: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
        packed = super().step_from_video(pipe, video, own)
        _, images = self._split(own, packed.shape[1])
        return torch.cat([images, packed] if self.images_first else [packed, images], 1)

    def reference_keys(self, pipe: Any, network: Any, x: torch.Tensor, shape: torch.Size) -> ReferenceKeys:
        tokens = self._tokens(pipe, *shape[2:])
        others: Literal["none", "before", "after"]
        others = "none" if x.shape[1] == tokens else "before" if self.images_first else "after"
        return ReferenceKeys(tokens, tokens // shape[2], others)

    def _split(self, x: torch.Tensor, tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
        """`(B, S, ...)` of the video, and of images at later frames, as views."""
        if self.images_first:
            return x[:, x.shape[1] - tokens :], x[:, : x.shape[1] - tokens]
        return x[:, :tokens], x[:, tokens:]

    def _tokens(self, pipe: Any, frames: int, height: int, width: int) -> int:
        space, time = pipe.transformer_spatial_patch_size, pipe.transformer_temporal_patch_size
        return frames // time * (height // space) * (width // space)


class LTXCondition(Conditions):
    """
    The pipeline gives its scheduler timesteps (`linear_quadratic`) and steps every token from a level of its own, by
    the opposite of the velocity that the network predicts.
    """

    images_first = True
    last_setup_call = "prepare_latents"
    prediction: Prediction | None = "reversed_flow"

    def process(self, scheduler: Any) -> ForwardProcess:
        process = super().process(scheduler)
        if getattr(scheduler, "shift", 1.0) != 1 or scheduler.config.get("shift_terminal"):
            raise UnstillError(
                f"This {type(scheduler).__name__} shifts its sigmas, but not the timesteps that LTXConditionPipeline "
                "gives it, so that both are of different levels; load it with shift=1 and shift_terminal=None."
            )
        return process


class LTX2Condition(Conditions):
    """Samples its audio with a copy of the scheduler. Guidance is computed in terms of x0."""

    images_first = False
    guides_output = False
    has_audio_scheduler = True


class LTXTraining(TrainingRole):
    """
    The image is the first latent frame, whose timestep is 0, or 1000 times the level of its noise where the network
    is conditioned on that. The other frames share a timestep, and have the loss.
    """

    name = "ltx"
    denoiser = "transformer"
    image_is_frame = True
    blank_latents = False
    has_tokens = False

    def check_clip(self, pipe: Any, frames: int, size: Size) -> None:
        space, time = LTX().compression(pipe)
        check_multiple(pipe, size, space)
        check_clip_length(pipe, frames, time)
        check_more_than_the_image(frames, time)

    def shift(self, pipe: Any, latents: torch.Size) -> float | None:
        from diffusers.pipelines.ltx.pipeline_ltx_image2video import calculate_shift

        config = pipe.scheduler.config
        if not config.get("use_dynamic_shifting"):
            return None
        _, frames, height, width = latents
        defaults = {"base_image_seq_len": 256, "max_image_seq_len": 4096, "base_shift": 0.5, "max_shift": 1.15}
        rule = (config.get(name, default) for name, default in defaults.items())
        mu = calculate_shift((1 + frames) * height * width, *rule)
        return float(mu if config.get("time_shift_type") == "linear" else math.exp(mu))

    def encode(self, pipe: Any, sample: Sample, latents: Tensor, frame: int) -> Encoded:
        space, time = LTX().compression(pipe)
        return {
            "latents": latents[:, 1:],
            "image": latents[:, :1],
            "fps": torch.tensor(sample.fps),
            "compression": torch.tensor([time, space], dtype=torch.float32),
            **_text(pipe, sample.caption),
        }

    def dropped(self, pipe: Any, like: Encoded) -> Encoded:
        return _text(pipe, "")

    def predict(self, model: Any, noisy: Tensor, timestep: Tensor, given: Encoded, image_noise: Tensor) -> Tensor:
        video = torch.cat([given["image"][:, :, :1].to(noisy), noisy], 2)
        frames, height, width = video.shape[2:]
        times = torch.cat([1000 * image_noise[:, None], timestep[:, None].expand(-1, frames - 1)], 1)  # (B, F)
        output = model(
            video.flatten(2).transpose(1, 2),  # patches are single latent pixels
            given["text"].to(noisy),
            times.repeat_interleave(height * width, 1),
            given["text_mask"].to(noisy),
            **self.positions(given, frames, height, width),
            return_dict=False,
        )[0]
        return output.transpose(1, 2).unflatten(2, (frames, height, width))[:, :, 1:]

    def positions(self, given: Encoded, frames: int, height: int, width: int) -> dict[str, Any]:
        """The positions of the tokens, as arguments of the network: seconds, and pixels."""
        time, space = (x.view(-1, 1, 1, 1, 1) for x in given["compression"].unbind(1))
        scale = (time / given["fps"].view(-1, 1, 1, 1, 1), space, space)
        return {"num_frames": frames, "height": height, "width": width, "rope_interpolation_scale": scale}


class LTXConditionTraining(LTXTraining):
    """Latent frames after the first have the position of the first of the frames that they stand for."""

    def positions(self, given: Encoded, frames: int, height: int, width: int) -> dict[str, Any]:
        device = given["latents"].device
        grid = torch.meshgrid(*(torch.arange(n, device=device) for n in (frames, height, width)), indexing="ij")
        f, y, x = (axis.flatten() for axis in grid)
        time, space = (x[:, None] for x in given["compression"].unbind(1))
        seconds = (f * time + 1 - time).clamp(min=0) / given["fps"][:, None]
        return {"video_coords": torch.stack([seconds, y * space, x * space], 1)}


def _text(pipe: Any, caption: str) -> Encoded:
    text, mask, *_ = pipe.encode_prompt([caption], do_classifier_free_guidance=False)
    return {"text": text[0].float(), "text_mask": mask[0].float()}


FAMILY = Family(
    adapters={
        "LTXPipeline": LTXText(),
        "LTXImageToVideoPipeline": LTX(),
        "LTX2Pipeline": LTX2Text(),
        "LTX2ImageToVideoPipeline": LTX2(),
        "LTXConditionPipeline": LTXCondition(),
        "LTX2ConditionPipeline": LTX2Condition(),
    },
    image_inputs={
        "LTXImageToVideoPipeline": "frame 0",
        "LTX2ImageToVideoPipeline": "frame 0",
        "LTXConditionPipeline": "frame 0",
        "LTX2ConditionPipeline": "frame 0",
    },
    training={"LTXImageToVideoPipeline": LTXTraining(), "LTXConditionPipeline": LTXConditionTraining()},
    models=(
        Model(
            name="ltx-video",
            pipeline="LTXImageToVideoPipeline",
            weights="Lightricks/LTX-Video",
            licence="RAIL-M of LTX-Video 0.9; commercial use only from 0.9.5",
            parameters="1.9 B",
            needs="a GPU of 16 GB with --offload",
            dtype="bfloat16",
            size=(480, 704),
            frames=97,
            fps=24,
            steps=50,
            input="image and prompt",
            start=("start", 0.96),
        ),
        Model(
            name="ltx-2",
            pipeline="LTX2ImageToVideoPipeline",
            weights="Lightricks/LTX-2",
            licence="LTX-2 Community License",
            parameters="19 B, sound included",
            needs="a GPU of 48 GB with --offload",
            dtype="bfloat16",
            size=(512, 768),
            frames=121,
            fps=24,
            steps=40,
            input="image and prompt",
            start=("start", 0.96),
            tiled=True,
        ),
    ),
)
