"""What the nodes read of a ComfyUI model and put into it; no formulas of methods."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from unstill.errors import UnstillError


Change = Callable[[Tensor, Tensor, dict[str, Any]], Tensor]
"""Of image latents `(B, C, F, H, W)`, the sigma of the call and the transformer options."""


def sampling_of(model: Any) -> Any:
    return model.get_model_object("model_sampling")


def alpha_sigma(sampling: Any, sigma: float | Tensor) -> tuple[float, float]:
    """How much of the video and of the noise a sample of this level holds, as the model itself mixes them."""
    level, one, zero = torch.as_tensor(float(sigma)), torch.ones(1), torch.zeros(1)
    return float(sampling.noise_scaling(level, zero.clone(), one)), float(sampling.noise_scaling(level, one, zero))


def is_flow(sampling: Any) -> bool:
    return alpha_sigma(sampling, 0.5)[0] < 1


def start_scale(sampling: Any, sigmas: Tensor) -> float:
    """What the sampler multiplies the noise by before the first step."""
    first, highest = float(sigmas[0]), float(sampling.sigma_max)
    full = first > highest or math.isclose(first, highest, rel_tol=1e-5)
    return float(sampling.noise_scaling(torch.tensor(first), torch.ones(1), torch.zeros(1), full))


def training_level(sampling: Any, share: float) -> tuple[float, float]:
    """alpha and sigma, of unit noise, after a share of the training time; flow matching counts in sigma itself."""
    if is_flow(sampling):
        return 1 - share, share
    sigma = float(sampling.percent_to_sigma(min(max(1 - share, 1e-6), 1)))
    return 1 / math.hypot(1, sigma), sigma / math.hypot(1, sigma)


def as_video(x: Tensor) -> Tensor:
    """`(F, C, H, W)`, as Stable Video Diffusion's latents are in ComfyUI, to `(1, C, F, H, W)`; others unchanged."""
    return x.transpose(0, 1)[None] if x.ndim == 4 else x


def as_latent(video: Tensor, like: Tensor) -> Tensor:
    """The inverse of `as_video`."""
    return video[0].transpose(0, 1) if like.ndim == 4 else video


def image_of(model: Any, image: dict[str, Tensor], like: Tensor | None = None) -> Tensor:
    """A LATENT of the image as the model counts latents, `(B, C, 1, H, W)`; `like` is the video it must fit."""
    latent = model.get_model_object("process_latent_in")(as_video(image["samples"]))[:, :, :1]
    if like is None:
        return latent
    if latent.shape[1] != like.shape[1] or latent.shape[3:] != like.shape[3:]:
        raise UnstillError(
            f"The image's latents are {tuple(latent.shape[1:])} and the video's {tuple(like.shape[1:])} (channels, "
            "frames, height, width); encode the image at the size of the video, with the model's own VAE."
        )
    return latent.to(like)


def step_of(sigma: Tensor | float, sigmas: Tensor) -> int:
    """The sampler's step that calls the model at `sigma`: solvers of second order call it between two levels too."""
    value = float(torch.as_tensor(sigma).flatten()[0])
    return max(int((sigmas[:-1] >= value * (1 - 1e-5)).sum()) - 1, 0)


def one_of(name: str, value: str, known: Sequence[str]) -> bool | str:
    """For `validate_inputs`: ComfyUI itself does not check the choices of nodes of this API."""
    choices = ", ".join(known) or "none (its folder is empty)"
    return True if value in known else f"{name} is one of {choices}, not {value[:80]!r}."


def with_change(options: dict[str, Any], key: str, change: Change) -> dict[str, Any]:
    """Model options whose model sees other image latents; the options given stay as they are."""
    transformer = dict(options.get("transformer_options", {}))
    wrappers = {kind: dict(by) for kind, by in transformer.get("wrappers", {}).items()}
    wrappers.setdefault("apply_model", {})[key] = [_changing(change)]
    return {**options, "transformer_options": {**transformer, "wrappers": wrappers}}


def change_condition(model: Any, key: str, change: Change) -> Any:
    """A clone of the model that sees changed image latents."""
    clone = model.clone()
    clone.add_wrapper_with_key("apply_model", key, _changing(change))
    return clone


def _changing(change: Change) -> Callable[..., Tensor]:
    """A wrapper of `apply_model`, which finds the image where the model has it: beside the video, or in its frames."""

    def wrapper(
        executor: Any, x: Tensor, t: Tensor, c_concat: Any = None, c_crossattn: Any = None, control: Any = None,
        transformer_options: Any = None, **more: Any,
    ) -> Tensor:  # fmt: skip
        options = transformer_options or {}
        channels, mask = x.shape[1], more.get("denoise_mask")
        if c_concat is not None and c_concat.shape[1] >= channels:
            # Wan: mask and image; HunyuanVideo: image and mask; SVD: the image in every frame.
            first = c_concat.shape[1] - channels if c_concat.shape[1] == channels + 4 else 0
            c_concat = c_concat.clone()
            part = c_concat[:, first : first + channels]
            image = part[:, :, None] if part.ndim == 4 else part[:, :, :1]
            seen = image.flatten(1).any(1).view(-1, *[1] * (image.ndim - 1))  # not where there is no image at all
            image.copy_(torch.where(seen, change(image.clone(), t, options).to(image), image))
        elif mask is not None:  # LTX-Video, Wan 2.2 5B: frames of the video itself that are not denoised
            x = torch.where(mask.to(x) == 0, change(x, t, options).to(x), x)
        elif "guiding_frame_index" in more:  # HunyuanVideo, "replace"
            x = x.clone()
            x[:, :, :1] = change(x[:, :, :1], t, options).to(x)
        elif "ref_latent" in more:
            more["ref_latent"] = change(more["ref_latent"], t, options).to(more["ref_latent"])
        else:
            raise UnstillError(
                "This model is shown no image latents that could be changed; connect the image-to-video conditioning "
                "of the model (such as WanImageToVideo), or remove the node."
            )
        return executor(x, t, c_concat, c_crossattn, control, options, **more)

    return wrapper
