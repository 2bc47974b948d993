"""Calls any video pipeline: converts image, motion, frames and so on into the arguments of its class."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from PIL import Image

from unstill.errors import UnstillError


SVD_BUCKETS = 255  # motion_bucket_id was trained on 0 to 255


def parameters(cls: type) -> dict[str, inspect.Parameter]:
    """The parameters of a pipeline class's `__call__`."""
    return dict(inspect.signature(cls.__call__).parameters)


def frames_argument(cls: type) -> str | None:
    """The name of a pipeline class's argument for the number of frames; `None` if it has none."""
    return next((name for name in ("num_frames", "frames", "video_length") if name in parameters(cls)), None)


def native_size(pipe: Any) -> tuple[int, int]:
    """The default (height, width) of the pipeline's videos, in pixels."""
    known = parameters(type(pipe))
    for name in ("height", "width"):
        if name in known and not isinstance(known[name].default, int):
            break
    else:
        if "height" in known:
            return known["height"].default, known["width"].default
    config = (getattr(pipe, "transformer", None) or pipe.unet).config
    if hasattr(config, "target_size"):  # HunyuanVideo 1.5, which chooses by the aspect ratio; this is 16:9
        height, width = pipe.video_processor.calculate_default_height_width(9, 16, config.target_size)
        return int(height), int(width)
    sample = getattr(config, "sample_size", None)
    height, width = sample if isinstance(sample, (tuple, list)) else (sample, sample)
    if height is None:
        height, width = config.sample_height, config.sample_width
    factor = getattr(pipe, "vae_scale_factor_spatial", None) or pipe.vae_scale_factor
    return height * factor, width * factor


def native_frames(pipe: Any) -> int:
    """The default number of frames of the pipeline's videos."""
    config = (getattr(pipe, "transformer", None) or pipe.unet).config
    default = parameters(type(pipe))[frames_argument(type(pipe)) or "num_frames"].default
    trained = getattr(config, "sample_frames", None)  # CogVideoX, whose positions may be learned
    return trained or (default if isinstance(default, int) else config.num_frames)


def takes_text_alone(cls: type) -> bool:
    """Whether a pipeline class makes a video of a text without an image: those without one, and pico."""
    known = parameters(cls)
    if "prompt" not in known or "controlnet_frame_indices" in known:
        return False
    return "image" not in known or (known["image"].default is None and known["prompt"].default == "")


def arguments(
    cls: type,
    *,
    image: Image.Image | None = None,
    prompt: str | None = None,
    motion: float | None = None,
    frames: int | None = None,
    steps: int | None = None,
    size: tuple[int, int] | None = None,
    fps: int | None = None,
    guidance: float | None = None,
) -> dict[str, Any]:
    """
    Keyword arguments for a call of a pipeline of class `cls`; what is `None` keeps the pipeline's own default.

    Args:
        motion: 0 (still) to 1 (lively): pico's `motion`, Stable Video Diffusion's `motion_bucket_id` / 255.
        size: (height, width).
        guidance: weight of prompt and image against neither: `guidance_scale`, of Stable Video Diffusion that of the
            last frame, up to which it rises.

    A pipeline that takes no image leaves it to the methods (`unstill.apply(..., image=...)`).

    Raises:
        UnstillError: an argument that this pipeline does not take, or a missing one that it needs.
    """
    known, name = parameters(cls), cls.__name__
    call: dict[str, Any] = {"output_type": "pt"}
    if "image" in known:
        alone = takes_text_alone(cls)
        if image is None and not (alone and prompt):
            raise UnstillError(f"{name} animates an image: give one{', or a prompt' if alone else ''}.")
        if image is not None:
            call["image"] = image
    if "controlnet_frame_indices" in known:  # SparseCtrl, of which frame 0 is the default
        if image is None:
            raise UnstillError(f"{name} animates an image: give one.")
        call["conditioning_frames"] = [image]
    if "prompt" in known and (prompt or known["prompt"].default != ""):  # DynamiCrafter's and pico's may be empty
        if not prompt:
            raise UnstillError(f"{name} needs a prompt that says what happens: --prompt 'the boat sails to the left'.")
        call["prompt"] = prompt
    elif prompt:
        raise UnstillError(f"{name} takes no prompt: leave it out.")
    if motion is not None:
        if not 0 <= motion <= 1:
            raise UnstillError(f"The motion level goes from 0 (still) to 1 (lively), but is {motion:g}.")
        if "motion" in known:
            call["motion"] = motion
        elif "motion_bucket_id" in known:
            call["motion_bucket_id"] = max(1, round(motion * SVD_BUCKETS))
        else:
            raise UnstillError(f"{name} has no motion level: say it in the prompt, or use a method.")
    for key, value in (
        (frames_argument(cls) or "", frames),
        ("num_inference_steps", steps),
        ("height", size and size[0]),
        ("width", size and size[1]),
    ):
        if value is not None and key in known:
            call[key] = value
    if guidance is not None:
        scale = next((key for key in ("guidance_scale", "max_guidance_scale") if key in known), None)
        if scale is None:
            raise UnstillError(f"{name} has no guidance scale: leave it out.")
        call[scale] = guidance
    if fps is not None and "motion_bucket_id" in known:
        call["fps"] = fps  # a condition of Stable Video Diffusion, not the speed of the written file
    if "decode_chunk_size" in known:
        call["decode_chunk_size"] = 8  # all frames at once need several times the memory of the denoiser
    return call


def generate(pipe: Any, call: dict[str, Any], seed: int, sampler: Any = None) -> torch.Tensor:
    """
    Generates one video, uint8 (F, 3, H, W), by calling `pipe`, or `sampler` in its place. Noise is drawn on the CPU,
    so that a seed gives the same noise on every device.
    """
    with clear_refusals(pipe):
        video = (sampler or pipe)(**call, generator=torch.Generator().manual_seed(seed)).frames[0]
    return clamp_to_uint8(video)


@contextmanager
def clear_refusals(pipe: Any) -> Iterator[None]:
    """A context that converts the `ValueError` of diffusers for impossible arguments into `UnstillError`."""
    try:
        yield
    except UnstillError:
        raise
    except ValueError as error:
        raise UnstillError(f"{type(pipe).__name__} refuses this call: {' '.join(str(error).split())}") from error


def clamp_to_uint8(video: torch.Tensor) -> torch.Tensor:
    """A generated video in [0, 1] as uint8 on the CPU."""
    if not torch.isfinite(video).all():
        raise UnstillError("The model returned a video with NaN or infinity; use dtype float32, or another seed.")
    return (video.float().cpu().clamp(0, 1) * 255).round().to(torch.uint8)
