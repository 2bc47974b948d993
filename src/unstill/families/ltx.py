"""LTX-Video (HaCohen et al., https://huggingface.co/papers/2501.00103) and LTX-2."""

from typing import Any

import torch

from unstill.errors import UnstillError
from unstill.families.base import Family
from unstill.families.model_card import Model
from unstill.families.reference_keys import ReferenceKeys
from unstill.families.vae_adapters import FirstFrameAdapter, VideoAdapter


class PackedLatents(VideoAdapter):
    """The first latents are packed: `(B, tokens, D)`."""

    last_setup_call = "set_timesteps"
    attends = ("transformer",)

    def first_to_video(self, pipe: Any, latents: torch.Tensor, arguments: dict[str, Any]) -> torch.Tensor:
        space, time = self.compression(pipe)
        size = ((arguments["num_frames"] - 1) // time + 1, arguments["height"] // space, arguments["width"] // space)
        patches = pipe.transformer_spatial_patch_size, pipe.transformer_temporal_patch_size
        tokens = size[0] // patches[1] * (size[1] // patches[0]) * (size[2] // patches[0])
        return pipe._unpack_latents(latents[:, :tokens], *size, *patches)  # images at later frames come after them

    def first_from_video(self, pipe: Any, video: torch.Tensor, arguments: dict[str, Any]) -> torch.Tensor:
        return pipe._pack_latents(video, pipe.transformer_spatial_patch_size, pipe.transformer_temporal_patch_size)

    def compression(self, pipe: Any) -> tuple[int, int]:
        return pipe.vae_spatial_compression_ratio, pipe.vae_temporal_compression_ratio

    def reference_keys(self, pipe: Any, network: Any, x: torch.Tensor, frames: int) -> ReferenceKeys:
        return ReferenceKeys(x.shape[1], x.shape[1] // frames)

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

    def step_from_video(self, pipe: Any, video: torch.Tensor) -> torch.Tensor:
        return pipe._pack_latents(video, pipe.transformer_spatial_patch_size, pipe.transformer_temporal_patch_size)


class LTX2Text(LTXText):
    """Samples its audio with a copy of the scheduler."""

    has_audio_scheduler = True


class LTX2(LTX):
    """Samples its audio with a copy of the scheduler."""

    has_audio_scheduler = True


class LTX2Condition(LTX2Text):
    """
    Images and videos at any frame. Methods need exactly one image, at frame 0 and with strength 1, as the plain
    image-to-video pipeline has it; `scheduler.step` takes packed latents with that frame.
    """

    image_latents_from = "prepare_latents"

    def conditioning_frames(self, pipe: Any) -> int:
        return 1

    def image_latents(self, pipe: Any, result: Any, video: torch.Tensor) -> torch.Tensor:
        mask = result[1][..., 0]  # 1: a token of an image, (0, 1): one that is noised less, 0: noise
        tokens = mask.shape[1] // video.shape[2]  # of a frame
        if result[3] is not None or not (mask[:, :tokens] == 1).all() or mask[:, tokens:].any():
            raise UnstillError(
                f"Methods work in {type(pipe).__name__} with exactly one image, at index 0 and with strength 1, and "
                "this call has other conditions; give one image, or call it without methods."
            )
        return video[:, :, :1]

    def step_to_video(self, pipe: Any, x: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        return super().step_to_video(pipe, x, torch.Size((*shape[:2], shape[2] + 1, *shape[3:])))


FAMILY = Family(
    adapters={
        "LTXPipeline": LTXText(),
        "LTXImageToVideoPipeline": LTX(),
        "LTX2Pipeline": LTX2Text(),
        "LTX2ImageToVideoPipeline": LTX2(),
        "LTX2ConditionPipeline": LTX2Condition(),
    },
    image_inputs={
        "LTXImageToVideoPipeline": "frame 0",
        "LTX2ImageToVideoPipeline": "frame 0",
        "LTX2ConditionPipeline": "frame 0",
    },
    unsupported={
        "LTXConditionPipeline": (
            "steps every token of its latents from a level of its own, by the opposite of the velocity and along "
            "levels that are not its scheduler's; use LTXImageToVideoPipeline."
        ),
    },
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
