"""How `unstill train` trains a family: the encoding of a clip, and the call of the denoiser."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from unstill.data.images import Size
from unstill.data.sources import Sample
from unstill.errors import UnstillError


Encoded = dict[str, Tensor]
"""A clip encoded for training, or a batch of them with one more leading dimension.

latents (C, F, h, w): of the frames that are denoised. image (C, 1 or F, h, w): of the conditional image, as in the
network's input (absent if it has none). mask: channels beside them. tokens (L, D): of the image. text (L, D): of the
caption; further inputs that are made from it have names that begin with text_. fps, motion (): conditions of the
network. compression (2,): of the VAE, frames per latent frame and pixels per latent pixel.
"""


class TrainingRole:
    """
    The facts about a pipeline class that are needed to train its denoiser.

    Attributes:
        name: in presets of the condition noise (`training.condition_noise.PLANS`) and in messages.
        denoiser: the component that is trained.
        image_is_frame: whether the image takes the place of the first latent frame, which is not denoised and has no
            loss. The network has a timestep for every frame, and that of the image tells the level of its noise.
        blank_latents: whether a dropped image also means zeros for its latents.
        has_text: whether the network sees a caption.
        has_latents: whether the network sees latents of the image.
        has_tokens: whether the network sees tokens of the image.
        usual_noise: standard deviation of the noise on the image that the network is conditioned on by default.
        lora: names of the linear layers that LoRA is added to by default.
    """

    name: ClassVar[str]
    denoiser: ClassVar[str] = "unet"
    image_is_frame: ClassVar[bool] = False
    blank_latents: ClassVar[bool] = True
    has_text: ClassVar[bool] = True
    has_latents: ClassVar[bool] = True
    has_tokens: ClassVar[bool] = True
    usual_noise: ClassVar[float] = 0.0
    lora: ClassVar[tuple[str, ...]] = ("to_q", "to_k", "to_v", "to_out.0")

    def of(self, pipe: Any) -> TrainingRole:
        """
        The role of this pipeline, where the checkpoints of a class have different networks.

        Raises:
            UnstillError: it cannot be trained.
        """
        return self

    def check_clip(self, pipe: Any, frames: int, size: Size) -> None:
        """Raises `UnstillError` for clips of a length or size (H, W) that the network cannot take."""
        multiple = pipe.vae_scale_factor * 2 ** (len(pipe.unet.config.block_out_channels) - 1)
        check_multiple(pipe, size, multiple)

    def unread(self, model: Any) -> tuple[str, ...]:
        """
        Beginnings of the names of parameters whose results the network does not read. They are not trained, since
        training in several processes (DDP) waits for the gradient of every trained parameter.
        """
        return ()

    def shift(self, pipe: Any, latents: torch.Size) -> float | None:
        """
        The shift of the noise levels, where the pipeline computes it from the size of the video.

        Args:
            pipe: the pipeline.
            latents: shape of `latents` in an encoded clip, (C, F, h, w).

        Returns:
            `None` for the scheduler's own.
        """
        return None

    def encode(self, pipe: Any, sample: Sample, latents: Tensor, frame: int) -> Encoded:
        """
        Encodes a clip with the pipeline's frozen networks.

        Args:
            pipe: the pipeline.
            sample: the clip.
            latents: of the clip, `(C, F, h, w)`, from `Adapter.encode_video`.
            frame: the index of the frame that is the conditional image.
        """
        raise NotImplementedError

    def dropped(self, pipe: Any, like: Encoded) -> Encoded:
        """The values that replace a dropped caption (`text` and what begins with `text_`) and image (`tokens`)."""
        return {name: torch.zeros_like(like[name]) for name in ("text", "tokens") if name in like}

    def predict(self, model: Any, noisy: Tensor, timestep: Tensor, given: Encoded, image_noise: Tensor) -> Tensor:
        """
        The network's prediction.

        Args:
            model: the denoiser.
            noisy: latents `(B, C, F, h, w)`, scaled for the network.
            timestep: `(B,)`, in the network's unit.
            given: a batch of encoded clips.
            image_noise: standard deviation of the noise on the image, `(B,)`.

        Returns:
            `(B, C, F, h, w)`.
        """
        raise NotImplementedError


def check_multiple(pipe: Any, size: Size, multiple: int) -> None:
    """Raises `UnstillError` for a size (H, W) that is not a multiple both ways."""
    height, width = size
    if height % multiple or width % multiple:
        raise UnstillError(
            f"data.size is {width}x{height}, but {type(pipe).__name__} takes multiples of {multiple} both ways, such "
            f"as {max(1, round(width / multiple)) * multiple}x{max(1, round(height / multiple)) * multiple}."
        )


def check_clip_length(pipe: Any, frames: int, step: int) -> None:
    """Raises `UnstillError` for a clip whose length a causal VAE does not take: `step` frames per latent frame."""
    if frames % step != 1:
        raise UnstillError(
            f"data.frames is {frames}, but {type(pipe).__name__} takes a multiple of {step} and one more, such as "
            f"{frames // step * step + 1}."
        )


def check_more_than_the_image(frames: int, step: int) -> None:
    """Raises `UnstillError` for a clip of which nothing is left beside its image, which is the first latent frame."""
    if frames <= 1:
        raise UnstillError(f"data.frames is {frames}, but the first frame is the image; give {1 + step} or more.")
