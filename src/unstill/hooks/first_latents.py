"""The start of a run: the initial latents that the pipeline has prepared, as the methods make them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from unstill.errors import UnstillError
from unstill.families.base import Adapter
from unstill.hooks.scheduler_hooks import Arguments
from unstill.methods.base import Method, Run


class Prepared(NamedTuple):
    """
    The result of `prepare_latents`.

    Attributes:
        latents: of the tensor that the pipeline samples from, the part that is the video, as a view.
        arguments: of the call, by name.
    """

    latents: torch.Tensor
    arguments: Arguments


def rewrite_first_latents(
    adapter: Adapter, pipe: Any, run: Run, methods: Sequence[Method], prepared: Prepared, video: torch.Tensor
) -> None:
    """
    Applies `on_noise` and `on_start` of `methods`, and writes the initial latents into the pipeline's, in place.

    Args:
        adapter: the adapter of the pipeline's class.
        pipe: the pipeline.
        run: state of the current pipeline call; `noise` and `frames` are set here.
        methods: all methods, in order.
        prepared: what `prepare_latents` has returned.
        video: its latents, `(B, C, F, H, W)`, float32.

    Raises:
        UnstillError: the call generates no frame besides those of the image.
    """
    if video.shape[2] <= run.conditioning_frames:
        raise UnstillError(
            f"This call of {type(pipe).__name__} generates no latent frame besides those of the image, "
            "so methods have nothing to change; ask for more frames."
        )
    unscaled = video
    if not run.grid.own:
        video = adapter.rescale_initial(pipe, unscaled, run.image_latents)
    scale, offset = adapter.first_scale(pipe, run.image_latents)
    conditioning = video[:, :, : run.conditioning_frames]  # frames that the pipeline fills with the image
    latents = own = video[:, :, run.conditioning_frames :]
    run.noise = noise = ((video - offset) / scale)[:, :, run.conditioning_frames :]
    run.frames = own.shape[2]
    # Methods that own the initial latents run last and build on the noise of the others, in whatever order given.
    on_noise = [method for method in methods if method.implements("on_noise")]
    for method in sorted(on_noise, key=lambda method: "latents" in method.owns):
        run.noise = method.on_noise(run, run.noise)
    if run.noise is not noise:
        latents = (scale * torch.cat([conditioning, run.noise], 2) + offset)[:, :, run.conditioning_frames :]
    for method in methods:
        if method.implements("on_start"):
            latents = method.on_start(run, latents)
    if video is not unscaled or latents is not own:
        video = torch.cat([conditioning, latents.to(video)], 2)
        prepared.latents.copy_(adapter.first_from_video(pipe, video, prepared.arguments))
