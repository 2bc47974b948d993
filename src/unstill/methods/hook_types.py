"""What hooks of methods receive and return besides tensors, and what methods check of a pipeline."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch


if TYPE_CHECKING:
    from unstill.forward_process import ForwardProcess
    from unstill.noise_schedule import Grid


@dataclass(frozen=True, slots=True)
class SolverSchedule:
    """
    Noise levels for the scheduler's solver in place of `run.grid`, when some levels of `run.grid` are visited without
    the solver (NI-VSDS) or belong to another part of a run.

    Attributes:
        grid: the levels that the solver is installed with.
        offset: the solver's step is `run.step + offset`.
    """

    grid: Grid
    offset: int


@dataclass(frozen=True, slots=True)
class NextSample:
    """
    Returned by an `on_step` hook in place of a model output: the solver's step, and the methods after this one, are
    skipped.

    Attributes:
        sample: the next sample, `(B, C, F, H, W)`.
    """

    sample: torch.Tensor


@dataclass(frozen=True, slots=True)
class Passes:
    """
    The predictions of the denoiser in one step, for `Method.on_guidance`: before guidance, in its own prediction type,
    `(B, C, F, H, W)`, read only.

    Attributes:
        conditional (`torch.Tensor`): with the image and the prompt.
        unconditional (`torch.Tensor`, *optional*): without the prompt; `None` where the call has no guidance.
        scale: the weight w of the pipeline's guidance, `unconditional + w (conditional - unconditional)`: a number or
            a tensor that broadcasts; `None` if it is unknown.
        unconditional_again: runs the unconditional pass once more, with the image that the conditional pass has seen.
        without_image: runs the conditional pass once more with neither image nor prompt, as the model was trained to
            do without; with `keep_prompt=True` only without the image. `None` where no model of this pipeline was
            trained so.
    """

    conditional: torch.Tensor
    unconditional: torch.Tensor | None
    scale: float | torch.Tensor | None
    unconditional_again: Callable[[], torch.Tensor]
    without_image: Callable[..., torch.Tensor] | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """
    The facts about a pipeline before it is called, for `Method.check`.

    Attributes:
        pipeline (`str`): name of the pipeline class.
        process (`ForwardProcess`): of the pipeline's scheduler.
        order (`int`): model calls per noise level (2 for Heun and KDPM2).
        image_latents (`bool`): whether `run.image_latents` will be available.
        condition (`bool`): whether the denoiser sees image latents that an `on_condition` hook can change.
        conditioning_frames (`int`): leading latent frames that the pipeline fills with the image and does not denoise.
        has_audio_scheduler (`bool`): whether the pipeline samples audio, too, with a copy of the scheduler.
        modular (`bool`): whether the pipeline consists of blocks, which determine what its call takes and returns.
        in_sections (`bool`): whether the pipeline samples a video in several sections, each a video to methods.
        encodes_image (`bool`): whether the pipeline's call encodes the image, so that `apply` takes none.
        vae (`dict | None`): properties of the VAE, see `unstill.statistics_hub.describe_vae`.
        guidance (`bool`): whether `on_guidance` hooks work: guidance acts on the output of the denoiser.
        drops_image (`bool`): whether the model was also trained without the image, so that `Passes.without_image` is
            available.
        attention (`bool`): whether the attention to the first latent frame can be changed.
        condition_clip (`bool`): whether the denoiser sees a whole clip of image latents (`on_condition_clip`).
    """

    pipeline: str
    process: ForwardProcess
    order: int
    image_latents: bool
    condition: bool
    conditioning_frames: int
    has_audio_scheduler: bool = False
    modular: bool = False
    in_sections: bool = False
    encodes_image: bool = False
    vae: dict[str, Any] | None = None
    guidance: bool = False
    drops_image: bool = False
    attention: bool = False
    condition_clip: bool = False
