"""
What a family is made of: adapters for its pipeline classes, how it is trained, and the models known by name.

Adapters have no state; they are handed the pipeline. Inside the library, video latents are `(B, C, F, H, W)`, and
adapters convert in both directions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image

from unstill.data.images import resize_and_crop
from unstill.errors import UnstillError
from unstill.families.model_card import Model
from unstill.families.training import TrainingRole
from unstill.forward_process import ForwardProcess, ProcessKind
from unstill.predictions import Prediction


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """
    Everything this library knows of the pipelines of one kind of model; a file of this package defines one as
    `FAMILY`. Keys are names of pipeline classes.

    Attributes:
        adapters: the supported pipelines. An adapter also serves the classes that inherit from its pipeline.
        unsupported: pipelines, and base classes of them, on which no method works, with the rest of a sentence that
            begins with the class name: why, and what to use instead.
        image_modes: pipelines that make a picture of a prompt when they are called for one frame, inside of this
            context.
        training: pipelines that `unstill train` can train.
        image_inputs: how the image enters the network of the pipelines that take one, for the table of pipelines.
        models: models known by name. The first one of a pipeline class gives the defaults of its unknown checkpoints.
        module: where the pipeline classes are imported from.
        reward: what `i4vgen` scores candidates with by default, as `--reward` takes it.
    """

    adapters: Mapping[str, Adapter] = dataclasses.field(default_factory=dict)
    unsupported: Mapping[str, str] = dataclasses.field(default_factory=dict)
    image_modes: Mapping[str, Callable[[Any], AbstractContextManager[Any]]] = dataclasses.field(default_factory=dict)
    training: Mapping[str, TrainingRole] = dataclasses.field(default_factory=dict)
    image_inputs: Mapping[str, str] = dataclasses.field(default_factory=dict)
    models: tuple[Model, ...] = ()
    module: str = "diffusers"
    reward: str = "proxy"


@dataclasses.dataclass(frozen=True, slots=True)
class ReferenceKeys:
    """
    Where the tokens of the first latent frame are in a network's self-attention.

    Attributes:
        tokens: of the video.
        reference: those of the first latent frame, which come first.
        text: whether tokens of the text are joined, and where.
        temporal: whether the tokens are the frames of one place.
    """

    tokens: int
    reference: int
    text: Literal["none", "before", "after"] = "none"
    temporal: bool = False

    def offset(self, length: int) -> int | None:
        """The first token of the video in a sequence of `length`; `None` where that is another kind of sequence."""
        if length < self.tokens or (self.text == "none" and length != self.tokens):
            return None
        return length - self.tokens if self.text == "before" else 0


class Adapter:
    """
    What must be known of a pipeline class to run methods in it. The defaults hold for most pipelines.

    Attributes:
        kind: the forward process, where the scheduler does not tell it (see `ForwardProcess.of`).
        prediction: what the scheduler steps, where that is not what the network predicts.
        two_pass_step: whether the pipeline calls `scheduler.step` twice per step: first for x0, then, with the guided
            x0, for the step.
        frames_first: whether the pipeline's latents are `(B, F, C, H, W)`.
        image_latents_from: the method of the pipeline whose result holds the image latents; `None`: it encodes no
            image.
        last_setup_call: the last of `set_timesteps`, `prepare_latents` and `image_latents_from` that the pipeline
            calls. Until then it has not read the first latents, so that they can be rewritten in place.
        denoisers: the components whose input holds image latents; empty where that cannot be changed.
        condition_input: the name of that input.
        reuses_input: whether the pipeline hands the same tensor to the denoiser again, not a new one for each call.
        zero_unconditional: whether under guidance the first half of the batch sees zeros instead of the image.
        modular: whether the pipeline is made of blocks, of which `PrepareLatentsStep` makes the first latents and
            leaves the image latents in the state as `image_condition_latents`.
        in_sections: whether the pipeline samples a video in several sections, one after the other, each from its own
            first latents: to methods, each is a video.
        two_calls: whether guidance calls the denoiser twice, first with the prompt, then without it; otherwise one
            call has both as rows of its batch, the one without the prompt first.
        guides_output: whether guidance acts on what the denoiser has put out, and not on a function of it.
        attends: the components whose self-attention to the first latent frame can be changed.
        temporal_attention: the class name of the modules in them that attend over the frames of one place; empty for
            attention over all tokens of the video.
        has_audio_scheduler: whether the pipeline samples audio beside the video, with a copy of the scheduler.
        usual_scheduler: class and configuration of what its released models come with, for the table of what works.
    """

    kind: ProcessKind | None = None
    prediction: Prediction | None = None
    two_pass_step: bool = False
    frames_first: bool = False
    image_latents_from: str | None = None
    last_setup_call: str = "prepare_latents"
    denoisers: tuple[str, ...] = ()
    condition_input: str = "hidden_states"
    reuses_input: bool = False
    zero_unconditional: bool = False
    modular: bool = False
    in_sections: bool = False
    two_calls: bool = False
    guides_output: bool = True
    attends: tuple[str, ...] = ()
    temporal_attention: str = ""
    has_audio_scheduler: bool = False
    usual_scheduler: tuple[str, dict[str, Any]] = ("DDIMScheduler", {})

    def process(self, scheduler: Any) -> ForwardProcess:
        """The forward process of what the scheduler steps."""
        process = ForwardProcess.of(scheduler, kind=self.kind)
        return process if self.prediction is None else dataclasses.replace(process, prediction=self.prediction)

    def conditioning_frames(self, pipe: Any) -> int:
        """Leading latent frames that the pipeline fills with the image and does not denoise."""
        return 0

    def handover(self, pipe: Any) -> float | None:
        """The timestep below which a second network takes over from the first; `None`: there is one network."""
        return None

    # The first latents: the (first) value of `prepare_latents`, with the arguments of that call.
    def first_to_video(self, pipe: Any, latents: torch.Tensor, arguments: dict[str, Any]) -> torch.Tensor:
        return latents.transpose(1, 2) if self.frames_first else latents

    def first_from_video(self, pipe: Any, video: torch.Tensor, arguments: dict[str, Any]) -> torch.Tensor:
        return video.transpose(1, 2) if self.frames_first else video

    # Outputs and samples: what the scheduler's `step` receives and returns; `shape` is that of the video which hooks
    # see.
    def step_to_video(self, pipe: Any, x: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        return x.transpose(1, 2) if self.frames_first else x

    def step_from_video(self, pipe: Any, video: torch.Tensor) -> torch.Tensor:
        return video.transpose(1, 2) if self.frames_first else video

    def first_scale(self, pipe: Any, image_latents: torch.Tensor | None) -> tuple[Any, Any]:
        """(scale, offset) of what `prepare_latents` makes of unit noise: latents = scale * noise + offset."""
        return getattr(pipe.scheduler, "init_noise_sigma", 1.0), 0.0  # flow matching schedulers have none

    def rescale_initial(self, pipe: Any, video: torch.Tensor, image_latents: torch.Tensor | None) -> torch.Tensor:
        """
        The pipeline's first latents, rescaled to the first noise level where methods changed it and the pipeline's own
        scaling does not follow.
        """
        return video

    def image_latents(self, pipe: Any, result: Any, video: torch.Tensor) -> torch.Tensor:
        """
        What `image_latents_from` has returned, as `(B, C, 1, H, W)`, normalised as the video latents; `video` are the
        first latents.
        """
        raise NotImplementedError

    def condition_view(self, x: torch.Tensor, channels: int) -> torch.Tensor:
        """The part of a denoiser's input that holds the image latents, as a view `(rows, C, F or 1, H, W)`."""
        raise NotImplementedError

    def condition_scale(self, pipe: Any) -> float:
        """Image latents normalised as the video latents, divided by those that the denoiser sees."""
        return 1.0

    def guidance_scale(self, pipe: Any) -> float | torch.Tensor | None:
        """The weight of the pipeline's guidance, one that broadcasts over `(B, C, F, h, w)`; `None`: not known."""
        return None

    def set_image_noise(
        self, pipe: Any, noise: torch.Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Callable[[], Any] | None:
        """
        Writes the standard deviation `(B,)` of the noise on the image latents into a denoiser's arguments. Returns an
        undo function; `None` where the network has no input for it or was not trained with such noise.
        """
        return None

    @property
    def has_condition_clip(self) -> bool:
        """Whether `condition_clip_view` gives a clip."""
        return type(self).condition_clip_view is not Adapter.condition_clip_view

    def condition_clip_view(self, pipe: Any, x: torch.Tensor, channels: int) -> tuple[torch.Tensor, Any, Any]:
        """
        The clip of image latents in a denoiser's input, as a view `(rows, C, F, H, W)`, and the mean and deviation by
        which the pipeline has normalised them.
        """
        raise NotImplementedError

    def drop_image(
        self, x: torch.Tensor, channels: int, args: tuple[Any, ...], kwargs: dict[str, Any], keep_prompt: bool = False
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """
        Arguments of a denoiser's call without image and (unless `keep_prompt`) prompt, of a model that was trained
        without them as well (`zero_unconditional`): `x`, a copy of its input, is among them.
        """
        raise NotImplementedError

    def reference_keys(self, pipe: Any, network: Any, x: torch.Tensor, frames: int) -> ReferenceKeys:
        """
        Where the tokens of the first latent frame are in the self-attention of a network in `attends`.

        Args:
            network: the component.
            x: its first input.
            frames: all latent frames.
        """
        raise NotImplementedError

    def compression(self, pipe: Any) -> tuple[int, int]:
        """Pixels per latent pixel, frames per latent frame."""
        return pipe.vae_scale_factor, 1

    def encode_video(self, pipe: Any, video: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
        """
        A clip encoded by the pipeline's own VAE, as video latents normalised as the pipeline does.

        Args:
            video: `(F, 3, H, W)` in [0, 1].
            generator: draws from the posterior; without it, its mode.

        Returns:
            `(1, C, F', h, w)`, float32.

        Raises:
            UnstillError: a length or size that the VAE does not take.
        """
        space, time = self.compression(pipe)
        frames, _, height, width = video.shape
        if height % space or width % space or (frames - 1) % time:
            raise UnstillError(
                f"{type(pipe).__name__} encodes clips of {time} n + 1 frames and sides that are multiples of {space}, "
                f"but this one has {frames} frames of {height}x{width}; cut or resize it."
            )
        vae, dtype = pipe.vae, pipe.vae.dtype
        upcast = dtype == torch.float16 and vae.config.get("force_upcast", False)
        if upcast:  # as the pipelines do: some VAEs overflow in float16
            vae.to(torch.float32)
        try:
            with torch.no_grad():
                return self._encode(pipe, (2 * video - 1).to(pipe._execution_device, vae.dtype), generator)
        finally:
            if upcast:
                vae.to(dtype)

    def encode_image(
        self,
        pipe: Any,
        image: Image.Image | torch.Tensor,
        size: tuple[int, int, int, int],
        device: torch.device,
        generator: torch.Generator | None = None,
    ) -> torch.Tensor:
        """
        The latents of an image, `(B, C, 1, h, w)`, float32, for a `size` of (B, C, h, w): an image is cropped and
        encoded as a clip of one frame, latents are only checked.
        """
        batch, channels, height, width = size
        if isinstance(image, torch.Tensor):
            shape = (batch, channels, 1, height, width)
            if image.shape not in (shape, (1, *shape[1:])):
                raise UnstillError(
                    f"The image latents given to apply are {tuple(image.shape)}, and this call needs {shape}."
                )
            return image.to(device).float().expand(shape)
        pixels = self._pixels(pipe, image, height, width)
        return self.encode_video(pipe, pixels, generator).to(device).expand(batch, -1, -1, -1, -1)

    def _pixels(self, pipe: Any, image: Image.Image, height: int, width: int) -> torch.Tensor:
        """An image cropped for latents of that size, `(1, 3, H, W)` in [0, 1]."""
        space, _ = self.compression(pipe)
        picture = resize_and_crop(image.convert("RGB"), (height * space, width * space))
        return torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None] / 255

    def decode_video(self, pipe: Any, latents: torch.Tensor) -> torch.Tensor:
        """Normalised video latents `(1, C, F', h, w)` to the clip `(F, 3, H, W)` in [0, 1], float32."""
        with torch.no_grad():
            video = self._decode(pipe, latents.to(pipe._execution_device, pipe.vae.dtype))
        return (video[0].transpose(0, 1).float() / 2 + 0.5).clamp(0, 1)

    def _encode(self, pipe: Any, frames: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
        raise NotImplementedError

    def _decode(self, pipe: Any, latents: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError


def patches(network: Any, x: torch.Tensor, text: Literal["none", "before", "after"], first: int = 2) -> ReferenceKeys:
    """
    The `ReferenceKeys` of a transformer over patches of `x`, whose frames, rows and columns are the dimensions
    `first` and the last two.
    """
    config = network.config
    size, depth = config.patch_size, getattr(config, "patch_size_t", None) or 1
    if isinstance(size, (tuple, list)):
        depth, size, _ = size
    area = (x.shape[-2] // size) * (x.shape[-1] // size)
    return ReferenceKeys(-(-x.shape[first] // depth) * area, area, text)


def _posterior(pipe: Any, pixels: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
    distribution = pipe.vae.encode(pixels).latent_dist
    return (distribution.mode() if generator is None else distribution.sample(generator)).float()


class FrameAdapter(Adapter):
    """Pipelines on a VAE of Stable Diffusion, which encodes frame by frame. Used unchanged for AnimateDiff."""

    def _encode(self, pipe: Any, frames: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
        latents = torch.cat([_posterior(pipe, frame[None], generator) for frame in frames])  # (F, C, h, w)
        return latents.transpose(0, 1)[None] * pipe.vae.config.scaling_factor

    def _decode(self, pipe: Any, latents: torch.Tensor) -> torch.Tensor:
        return pipe.decode_latents(latents)


class VideoAdapter(Adapter):
    """Pipelines on a causal video VAE."""

    reuses_input = True  # once with the prompt, once without it
    usual_scheduler = ("FlowMatchEulerDiscreteScheduler", {})

    def compression(self, pipe: Any) -> tuple[int, int]:
        return pipe.vae_scale_factor_spatial, pipe.vae_scale_factor_temporal

    def moments(self, pipe: Any, latents: torch.Tensor) -> tuple[Any, Any]:
        """
        (mean, deviation) by which the pipeline normalises latents `(B, C, F, h, w)` of its VAE: numbers, or
        `(1, C, 1 or F, 1, 1)`.
        """
        config = pipe.vae.config
        # LTX has them in the state of its VAE, Wan in its configuration
        known = {**dict(pipe.vae.named_buffers(recurse=False)), **config}
        if known.get("latents_mean") is None:
            return 0.0, 1 / config.scaling_factor
        mean, deviation = (
            torch.as_tensor(known[name])
            .to(latents.device, torch.float32)
            .view(1, latents.shape[1], -1, 1, 1)[:, :, : latents.shape[2]]
            for name in ("latents_mean", "latents_std")
        )
        return mean, deviation / config.get("scaling_factor", 1.0)

    def _encode(self, pipe: Any, frames: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
        latents = _posterior(pipe, frames.transpose(0, 1)[None], generator)
        mean, deviation = self.moments(pipe, latents)
        return (latents - mean) / deviation

    def _decode(self, pipe: Any, latents: torch.Tensor) -> torch.Tensor:
        mean, deviation = self.moments(pipe, latents)
        return pipe.vae.decode((latents * deviation + mean).to(latents.dtype)).sample


class FirstFrameAdapter(VideoAdapter):
    """
    Pipelines on a causal video VAE whose latent frame 0 is the image from the first step to the last; the scheduler
    steps the frames after it. Used unchanged for Sana Video.
    """

    image_latents_from = "prepare_latents"

    def conditioning_frames(self, pipe: Any) -> int:
        return 1

    def image_latents(self, pipe: Any, result: Any, video: torch.Tensor) -> torch.Tensor:
        return video[:, :, :1]
