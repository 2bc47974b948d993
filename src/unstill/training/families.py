"""
What training must know of a kind of pipeline: how a clip becomes what its denoiser is given, and how it is called.

| family | pipelines | loss | the image is seen as |
|---|---|---|---|
| `svd` | StableVideoDiffusionPipeline | EDM, v-prediction | latents in every frame, one CLIP embedding |
| `pico` | PicoPipeline | EDM, v-prediction | latents in every frame |
| `dynamicrafter` | DynamiCrafterPipeline | VP, v or eps | latents in every frame, CLIP tokens |
| `videocrafter` | VideoCrafterPipeline | VP, eps | CLIP tokens |
| `wan` | WanImageToVideoPipeline (one transformer: Wan 2.1) | flow matching | latents behind a mask, CLIP tokens |

A folder of a user's own works if its pipeline is one of these classes.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from unstill.data.images import Size
from unstill.data.sources import Sample
from unstill.errors import UnstillError
from unstill.hooks import adapter_for
from unstill.training.noise_sampling import Levels


Encoded = dict[str, Tensor]
"""One clip as the denoiser is trained on it, or a batch of them with a first dimension more.

latents (C, F, h, w): of the video. image (C, 1 or F, h, w): of the conditional image, as the network sees them (absent
where it sees none). mask: channels that go before them. tokens (L, D): of the image. text (L, D): of the caption.
fps, motion (): what the network is told.
"""


class Family:
    """
    What holds for most; a kind of pipeline overrides what differs.

    Attributes:
        name: in `conditions.PLANS` and messages.
        denoiser: the component that is trained.
        blank_latents: whether a withheld image also means zeros for its latents.
        lora: names of the linear layers that a LoRA is put beside.
    """

    name: ClassVar[str]
    denoiser: ClassVar[str] = "unet"
    blank_latents: ClassVar[bool] = True
    has_text: ClassVar[bool] = True
    has_tokens: ClassVar[bool] = True
    lora: ClassVar[tuple[str, ...]] = ("to_q", "to_k", "to_v", "to_out.0")

    def check(self, pipe: Any) -> None:
        """Raises `UnstillError` for a pipeline of the class that cannot be trained."""

    def check_clip(self, pipe: Any, frames: int, size: Size) -> None:
        """Raises `UnstillError` for clips of a length or size (H, W) that the network cannot take."""
        multiple = pipe.vae_scale_factor * 2 ** (len(pipe.unet.config.block_out_channels) - 1)
        _check_multiple(pipe, size, multiple)

    def encode(self, pipe: Any, sample: Sample, frame: int, generator: torch.Generator) -> Encoded:
        """A clip with its frame number `frame` as the conditional image; the generator draws from the posterior."""
        raise NotImplementedError

    def withheld(self, pipe: Any, like: Encoded) -> Encoded:
        """What stands for a withheld caption (`text`) and image (`tokens`)."""
        return {name: torch.zeros_like(like[name]) for name in ("text", "tokens") if name in like}

    def predict(self, model: Any, noisy: Tensor, levels: Levels, given: Encoded, told: Tensor) -> Tensor:
        """Prediction `(B, C, F, h, w)` from `noisy` as the network sees it; `told` (B,): std of the image noise."""
        raise NotImplementedError


class SVD(Family):
    """Image latents are not scaled; the network is told frames per second, a motion bucket and the image's noise."""

    name = "svd"
    has_text = False
    usual_bucket: ClassVar[float] = 127.0
    usual_noise: ClassVar[float] = 0.02

    def encode(self, pipe: Any, sample: Sample, frame: int, generator: torch.Generator) -> Encoded:
        latents = adapter_for(pipe).encode_video(pipe, sample.video, generator)[0]
        # As the pipeline prepares its image: in [-1, 1], resized with antialiasing.
        from diffusers.pipelines.stable_video_diffusion.pipeline_stable_video_diffusion import (
            _resize_with_antialiasing,
        )

        picture = _resize_with_antialiasing(sample.video[frame][None] * 2 - 1, (224, 224)) / 2 + 0.5
        return {
            "latents": latents,
            "image": latents[:, [frame]] / pipe.vae.config.scaling_factor,
            "tokens": pipe._encode_image(picture, pipe._execution_device, 1, False)[0].float(),
            "fps": torch.tensor(sample.fps),
            "motion": torch.tensor(self.usual_bucket),
        }

    def predict(self, model: Any, noisy: Tensor, levels: Levels, given: Encoded, told: Tensor) -> Tensor:
        image = given["image"].expand(-1, -1, noisy.shape[2], -1, -1)
        x = torch.cat([noisy, image.to(noisy)], 1).transpose(1, 2)
        # One less than the rate: so the pipeline tells it.
        ids = torch.stack([given["fps"] - 1, given["motion"], told], 1).to(noisy)
        context = given.get(self.context)
        return model(x, levels.timestep, context, ids, return_dict=False)[0].transpose(1, 2)

    context: ClassVar[str] = "tokens"


class Pico(SVD):
    """The embedded model: no CLIP, short captions, motion levels that are exact on its own world."""

    name = "pico"
    denoiser = "transformer"
    has_text = True
    has_tokens = False
    usual_noise = 0.0
    lora = ("qkv", "out", "widen", "narrow")
    context = "text"

    def check_clip(self, pipe: Any, frames: int, size: Size) -> None:
        longest, own = pipe.transformer.config.num_frames, pipe.size
        if frames > longest or size != (own, own):
            raise UnstillError(
                f"data: this model takes clips of at most {longest} frames of {own}x{own}, not {frames} of "
                f"{size[1]}x{size[0]}; change data.frames and data.size, or leave them out."
            )

    def encode(self, pipe: Any, sample: Sample, frame: int, generator: torch.Generator) -> Encoded:
        from unstill.models.pico import motion_bucket
        from unstill.models.pico.text import embed

        latents = adapter_for(pipe).encode_video(pipe, sample.video, generator)[0]
        motion = pipe.transformer.unspecified_motion if sample.motion is None else motion_bucket(sample.motion)
        return {
            "latents": latents,
            "image": latents[:, [frame]],
            "text": embed([sample.caption])[0],
            "fps": torch.tensor(sample.fps),
            "motion": torch.tensor(float(motion)),
        }

    def predict(self, model: Any, noisy: Tensor, levels: Levels, given: Encoded, told: Tensor) -> Tensor:
        from unstill.models.pico.pipeline import image_noise_id

        shown = given["image"].flatten(1).any(1)  # a withheld image is all zeros, and has no noise to be told of
        return super().predict(model, noisy, levels, given, image_noise_id(told) * shown)


class DynamiCrafter(Family):
    """Image latents are never withheld; without an image means the tokens of mid-grey."""

    name = "dynamicrafter"
    blank_latents = False

    def encode(self, pipe: Any, sample: Sample, frame: int, generator: torch.Generator) -> Encoded:
        latents = adapter_for(pipe).encode_video(pipe, sample.video, generator)[0]
        pixels = (sample.video[[frame]] * 2 - 1).to(pipe._execution_device)
        made = {
            "latents": latents,
            "tokens": pipe.encode_image(pixels, len(sample.video))[0].float(),
            "text": pipe.encode_prompt([sample.caption])[0].float(),
            "fps": torch.tensor(sample.fps),
        }
        if pipe.unet.config.in_channels > pipe.unet.config.out_channels:
            made["image"] = latents[:, [frame]]
        return made

    def withheld(self, pipe: Any, like: Encoded) -> Encoded:
        size = pipe.image_encoder.config.image_size
        grey = torch.zeros(1, 3, size, size, device=pipe._execution_device)
        frames = like["latents"].shape[1]
        return {"text": pipe.encode_prompt([""])[0].float(), "tokens": pipe.encode_image(grey, frames)[0].float()}

    def predict(self, model: Any, noisy: Tensor, levels: Levels, given: Encoded, told: Tensor) -> Tensor:
        if "image" in given:
            image = given["image"].expand(-1, -1, noisy.shape[2], -1, -1)
            noisy = torch.cat([noisy, image.to(noisy)], 1)
        context = torch.cat([given["text"], given["tokens"]], 1).to(noisy)
        return model(noisy, levels.timestep.long(), context, given["fps"], return_dict=False)[0]


class VideoCrafter(DynamiCrafter):
    """The image is seen through its tokens only."""

    name = "videocrafter"


class Wan(Family):
    """Wan 2.1: condition latents of the image before empty frames, behind a mask of four channels."""

    name = "wan"
    denoiser = "transformer"
    blank_latents = False

    def check(self, pipe: Any) -> None:
        if pipe.transformer_2 is not None or pipe.config.get("expand_timesteps") or pipe.transformer is None:
            raise UnstillError(
                "Of Wan only 2.1 image-to-video can be trained here: one transformer, image behind a mask."
            )

    def check_clip(self, pipe: Any, frames: int, size: Size) -> None:
        _check_multiple(pipe, size, pipe.vae_scale_factor_spatial * pipe.transformer.config.patch_size[1])
        step = pipe.vae_scale_factor_temporal
        if frames % step != 1:
            raise UnstillError(
                f"data.frames is {frames}, but {type(pipe).__name__} takes a multiple of {step} and one more, such as "
                f"{frames // step * step + 1}."
            )

    def encode(self, pipe: Any, sample: Sample, frame: int, generator: torch.Generator) -> Encoded:
        latents = adapter_for(pipe).encode_video(pipe, sample.video, generator)[0]
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
        made = {"latents": latents, "mask": condition[0, : -len(latents)], "image": condition[0, -len(latents) :]}
        made["text"] = pipe.encode_prompt([sample.caption], do_classifier_free_guidance=False)[0][0].float()
        if pipe.transformer.config.image_dim is not None:
            picture = (pixels[0] * 255).round().byte()
            made["tokens"] = pipe.encode_image(picture, device)[0].float()
        return made

    def withheld(self, pipe: Any, like: Encoded) -> Encoded:
        text = pipe.encode_prompt([""], do_classifier_free_guidance=False)[0][0].float()
        return super().withheld(pipe, like) | {"text": text}

    def predict(self, model: Any, noisy: Tensor, levels: Levels, given: Encoded, told: Tensor) -> Tensor:
        x = torch.cat([noisy, given["mask"].to(noisy), given["image"].to(noisy)], 1)
        tokens = given["tokens"].to(noisy) if "tokens" in given else None
        return model(x, levels.timestep, given["text"].to(noisy), tokens, return_dict=False)[0]


def _check_multiple(pipe: Any, size: Size, multiple: int) -> None:
    height, width = size
    if height % multiple or width % multiple:
        raise UnstillError(
            f"data.size is {width}x{height}, but {type(pipe).__name__} takes multiples of {multiple} both ways, such "
            f"as {max(1, round(width / multiple)) * multiple}x{max(1, round(height / multiple)) * multiple}."
        )


FAMILIES: Mapping[str, Family] = {
    "StableVideoDiffusionPipeline": SVD(),
    "PicoPipeline": Pico(),
    "DynamiCrafterPipeline": DynamiCrafter(),
    "VideoCrafterPipeline": VideoCrafter(),
    "WanImageToVideoPipeline": Wan(),
}


def family_of(pipe: Any) -> Family:
    """Raises `UnstillError` for a pipeline that cannot be trained here."""
    name = type(pipe).__name__
    if name not in FAMILIES:
        raise UnstillError(f"{name} cannot be trained here; there is training for {', '.join(FAMILIES)}.")
    FAMILIES[name].check(pipe)
    return FAMILIES[name]
