"""
The parts of a family of models: adapters for its pipeline classes, how it is trained, and its models with their names.

Adapters have no state; every method takes the pipeline. Methods of this library see video latents as
`(B, C, F, h, w)`, and adapters convert to and from the layout of the pipeline.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unstill.data.images import resize_and_crop
from unstill.errors import UnstillError
from unstill.families.model_card import Model
from unstill.families.reference_keys import ReferenceKeys
from unstill.families.training import TrainingRole
from unstill.forward_process import ForwardProcess, ProcessKind
from unstill.predictions import Prediction


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """
    All facts about the pipelines of one family of models. A file of this package defines one as `FAMILY`. The keys of
    all mappings are names of pipeline classes.

    Attributes:
        adapters: the supported pipelines. An adapter also serves the subclasses of its pipeline.
        unsupported: pipelines, and base classes of pipelines, on which no method works. The value continues a sentence
            that starts with the class name: the reason, and what to use instead.
        image_modes: pipelines that generate a picture from a prompt when they are called for one frame inside this
            context manager.
        training: pipelines that `unstill train` can train.
        image_inputs: how the image enters the network of an image-to-video pipeline, for the table of pipelines.
        models: the named models. The first one of a pipeline class gives the defaults for its unknown checkpoints.
        module: the module that the pipeline classes are imported from.
        reward: the default reward of `i4vgen`, as `--reward` takes it.
    """

    adapters: Mapping[str, Adapter] = dataclasses.field(default_factory=dict)
    unsupported: Mapping[str, str] = dataclasses.field(default_factory=dict)
    image_modes: Mapping[str, Callable[[Any], AbstractContextManager[Any]]] = dataclasses.field(default_factory=dict)
    training: Mapping[str, TrainingRole] = dataclasses.field(default_factory=dict)
    image_inputs: Mapping[str, str] = dataclasses.field(default_factory=dict)
    models: tuple[Model, ...] = ()
    module: str = "diffusers"
    reward: str = "proxy"


class Adapter:
    """
    The facts about a pipeline class that methods depend on. The defaults hold for most pipelines.

    Attributes:
        kind: the kind of the forward process, where it does not follow from the scheduler (see `ForwardProcess.of`).
        prediction: the kind of prediction that the scheduler receives, where it is not what the network predicts.
        two_pass_step: whether the pipeline calls `scheduler.step` twice per step: first for x0, then, with the guided
            x0, for the next sample.
        frames_first: whether the pipeline's latents are `(B, F, C, h, w)`.
        image_latents_from: the method of the pipeline whose result holds the image latents; `None` if the pipeline
            encodes no image.
        last_setup_call: the one of `set_timesteps`, `prepare_latents` and `image_latents_from` that the pipeline calls
            last. Until then the pipeline has not read the first latents, and they can be rewritten in place.
        denoisers: the components whose input holds image latents; empty where these cannot be changed.
        condition_input: the name of that input.
        reuses_input: whether the pipeline passes the same tensor to several calls of the denoiser.
        zero_unconditional: whether, with guidance, the first half of the batch has zeros in place of the image.
        modular: whether this is a modular pipeline, in which `PrepareLatentsStep` creates the first latents and stores
            the image latents in the state as `image_condition_latents`.
        in_sections: whether the pipeline samples a video in consecutive sections, each from first latents of its own.
            Methods see each section as a video.
        two_calls: whether guidance calls the denoiser twice, first with the prompt, then without it. Otherwise one
            call has both as rows of its batch, the one without the prompt first.
        guides_output: whether guidance combines the outputs of the denoiser themselves, not a function of them.
        attends: the components whose self-attention to the first latent frame can be changed.
        temporal_attention: the class name of the modules in these components that attend over the frames at one
            position; empty for attention over all tokens of the video.
        inverted: whether the network counts time from noise (0) to data (1), for a scheduler with `invert_sigmas`.
        has_audio_scheduler: whether the pipeline also samples audio, with a copy of the scheduler.
        usual_scheduler: class and configuration of the scheduler of its released models, for the table of pipelines.
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
    inverted: bool = False
    has_audio_scheduler: bool = False
    usual_scheduler: tuple[str, dict[str, Any]] = ("DDIMScheduler", {})

    def process(self, scheduler: Any) -> ForwardProcess:
        """The forward process of the samples that the scheduler steps."""
        process = ForwardProcess.of(scheduler, kind=self.kind)
        if process.inverted != self.inverted:
            raise UnstillError(
                f"This {type(scheduler).__name__} has invert_sigmas={process.inverted}, and the network of the "
                f"pipeline counts time as with invert_sigmas={self.inverted}; load the scheduler with that."
            )
        return process if self.prediction is None else dataclasses.replace(process, prediction=self.prediction)

    def conditioning_frames(self, pipe: Any) -> int:
        """The number of leading latent frames that hold the image and are not denoised."""
        return 0

    def handover(self, pipe: Any) -> float | None:
        """The timestep below which the pipeline uses its second network; `None` if it has one network."""
        return None

    def first_part(self, pipe: Any, latents: Tensor, arguments: dict[str, Any]) -> Tensor:
        """
        The part of the first latents that holds the video, as a view.

        Args:
            latents: the (first) value that `prepare_latents` returned.
            arguments: the arguments of that call, by name.
        """
        return latents

    def first_to_video(self, pipe: Any, latents: Tensor, arguments: dict[str, Any]) -> Tensor:
        """
        The pipeline's first latents as a video.

        Args:
            latents: what `first_part` returned.
            arguments: the arguments of `prepare_latents`, by name.

        Returns:
            `(B, C, F, h, w)`.
        """
        return latents.transpose(1, 2) if self.frames_first else latents

    def first_from_video(self, pipe: Any, video: Tensor, arguments: dict[str, Any]) -> Tensor:
        """The inverse of `first_to_video`."""
        return video.transpose(1, 2) if self.frames_first else video

    def step_to_video(self, pipe: Any, x: Tensor, shape: torch.Size) -> Tensor:
        """
        A prediction or sample that `scheduler.step` receives or returns, as a video.

        Args:
            shape: (B, C, F, h, w) of the video that methods see.
        """
        return x.transpose(1, 2) if self.frames_first else x

    def step_from_video(self, pipe: Any, video: Tensor, own: Tensor) -> Tensor:
        """The inverse of `step_to_video`. `own` is what that was given; its tokens outside of the video are kept."""
        return video.transpose(1, 2) if self.frames_first else video

    def first_scale(self, pipe: Any, image_latents: Tensor | None) -> tuple[Any, Any]:
        """(scale, offset) in latents = scale * noise + offset, by which `prepare_latents` transforms unit noise."""
        return getattr(pipe.scheduler, "init_noise_sigma", 1.0), 0.0  # flow matching schedulers have none

    def rescale_initial(self, pipe: Any, video: Tensor, image_latents: Tensor | None) -> Tensor:
        """
        The pipeline's first latents, rescaled to the first noise level. Overridden where methods can change that level
        and the pipeline scales by a fixed one.
        """
        return video

    def image_latents(self, pipe: Any, result: Any, video: Tensor) -> Tensor:
        """
        The image latents, normalised as the video latents.

        Args:
            result: what the method `image_latents_from` returned.
            video: the first latents, `(B, C, F, h, w)`.

        Returns:
            `(B, C, 1, h, w)`.
        """
        raise NotImplementedError

    def condition_view(self, x: Tensor, channels: int) -> Tensor:
        """The part of a denoiser's input that holds the image latents, as a view `(rows, C, F or 1, h, w)`."""
        raise NotImplementedError

    def condition_scale(self, pipe: Any) -> float:
        """The ratio of image latents normalised as the video latents to those in the denoiser's input."""
        return 1.0

    def guidance_scale(self, pipe: Any) -> float | Tensor | None:
        """The guidance scale: a number, or a tensor that broadcasts over `(B, C, F, h, w)`; `None` if not known."""
        return None

    def set_image_noise(
        self, pipe: Any, noise: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Callable[[], Any] | None:
        """
        Writes the noise level of the image latents into the arguments of a denoiser's call.

        Args:
            noise: standard deviations, `(B,)`.
            args: positional arguments of the call.
            kwargs: named arguments of the call.

        Returns:
            A function that undoes it; `None` where the network has no such input or was not trained with such noise.
        """
        return None

    @property
    def has_condition_clip(self) -> bool:
        """Whether `condition_clip_view` is available."""
        return type(self).condition_clip_view is not Adapter.condition_clip_view

    def condition_clip_view(self, pipe: Any, x: Tensor, channels: int) -> tuple[Tensor, Any, Any]:
        """
        The clip of image latents in a denoiser's input.

        Returns:
            A view `(rows, C, F, h, w)`, and the mean and standard deviation by which the pipeline normalised it.
        """
        raise NotImplementedError

    def drop_image(
        self, x: Tensor, channels: int, args: tuple[Any, ...], kwargs: dict[str, Any], keep_prompt: bool = False
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """
        The arguments of a denoiser's call without image and (unless `keep_prompt`) prompt, for a model that was also
        trained without them (`zero_unconditional`). `x`, a copy of the denoiser's input, is among them and is changed
        in place.
        """
        raise NotImplementedError

    def reference_keys(self, pipe: Any, network: Any, x: Tensor, shape: torch.Size) -> ReferenceKeys:
        """
        The position of the first latent frame in the self-attention of a network in `attends`.

        Args:
            network: the component.
            x: its first input.
            shape: (B, C, F, h, w) of the video latents, with all frames.
        """
        raise NotImplementedError

    def compression(self, pipe: Any) -> tuple[int, int]:
        """(pixels per latent pixel and side, frames per latent frame)."""
        return pipe.vae_scale_factor, 1

    def encode_video(self, pipe: Any, video: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """
        Encodes a clip with the pipeline's VAE and normalises the latents as the pipeline does.

        Args:
            video: `(F, 3, H, W)` in [0, 1].
            generator: for a sample of the posterior; without it, the mode.

        Returns:
            `(1, C, F', h, w)`, float32.

        Raises:
            UnstillError: the VAE cannot encode clips of this length or size.
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
        image: Image.Image | Tensor,
        size: tuple[int, int, int, int],
        device: torch.device,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """
        Encodes an image for latents of a given size.

        Args:
            image: an image, which is cropped and encoded as a clip of one frame, or latents `(B or 1, C, 1, h, w)`.
            size: (B, C, h, w) of the latents.
            device: where the result is put.
            generator: see `encode_video`.

        Returns:
            `(B, C, 1, h, w)`, float32.

        Raises:
            UnstillError: latents of another shape.
        """
        batch, channels, height, width = size
        if isinstance(image, Tensor):
            shape = (batch, channels, 1, height, width)
            if image.shape not in (shape, (1, *shape[1:])):
                raise UnstillError(
                    f"The image latents given to apply are {tuple(image.shape)}, and this call needs {shape}."
                )
            return image.to(device).float().expand(shape)
        pixels = self._pixels(pipe, image, height, width)
        return self.encode_video(pipe, pixels, generator).to(device).expand(batch, -1, -1, -1, -1)

    def _pixels(self, pipe: Any, image: Image.Image, height: int, width: int) -> Tensor:
        """An image cropped to the size of latents of `height` x `width`, `(1, 3, H, W)` in [0, 1]."""
        space, _ = self.compression(pipe)
        picture = resize_and_crop(image.convert("RGB"), (height * space, width * space))
        return torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None] / 255

    def decode_video(self, pipe: Any, latents: Tensor) -> Tensor:
        """Decodes normalised video latents `(1, C, F', h, w)` to a clip `(F, 3, H, W)` in [0, 1], float32."""
        with torch.no_grad():
            video = self._decode(pipe, latents.to(pipe._execution_device, pipe.vae.dtype))
        return (video[0].transpose(0, 1).float() / 2 + 0.5).clamp(0, 1)

    def _encode(self, pipe: Any, frames: Tensor, generator: torch.Generator | None) -> Tensor:
        """Frames `(F, 3, H, W)` in [-1, 1] to normalised latents `(1, C, F', h, w)`."""
        raise NotImplementedError

    def _decode(self, pipe: Any, latents: Tensor) -> Tensor:
        """Normalised latents `(1, C, F', h, w)` to a video `(1, 3, F, H, W)` in [-1, 1]."""
        raise NotImplementedError
