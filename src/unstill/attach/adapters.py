"""The adapters: one class per family of pipelines, one row of `ADAPTERS` per pipeline class."""

from typing import Any

import torch

from unstill.attach.adapter import Adapter, FrameAdapter, VideoAdapter
from unstill.errors import UnstillError
from unstill.process import Kind


class StableVideoDiffusion(FrameAdapter):
    """Image latents, not scaled, are repeated over the frames and concatenated to the channels."""

    frames_first = True
    captures = "_encode_vae_image"
    denoisers = ("unet",)
    condition_input = "sample"
    zero_unconditional = True
    usual_scheduler = (
        "EulerDiscreteScheduler",
        {"prediction_type": "v_prediction", "timestep_type": "continuous", "sigma_max": 700.0, "sigma_min": 0.002},
    )

    def image_latents(self, pipe: Any, result: Any, video: torch.Tensor) -> torch.Tensor:
        return result[-len(video) :].unsqueeze(2) * self.condition_scale(pipe)  # under guidance the first B are zeros

    def condition_view(self, x: torch.Tensor, channels: int) -> torch.Tensor:
        return x[:, :, channels:].transpose(1, 2)

    def condition_scale(self, pipe: Any) -> float:
        return pipe.vae.config.scaling_factor

    def _decode(self, pipe: Any, latents: torch.Tensor) -> torch.Tensor:
        return pipe.decode_latents(latents.transpose(1, 2), num_frames=latents.shape[2])


class Pico(StableVideoDiffusion):
    """The embedded model, in the manners of Stable Video Diffusion."""

    def _decode(self, pipe: Any, latents: torch.Tensor) -> torch.Tensor:
        return pipe.decode_latents(latents.transpose(1, 2))


class DynamiCrafter(FrameAdapter):
    """Image latents are repeated over the frames and concatenated to the channels, in every branch of guidance."""

    captures = starts_at = "prepare_image_latents"
    denoisers = ("unet",)
    condition_input = "sample"
    usual_scheduler = ("DDIMScheduler", {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"})

    def image_latents(self, pipe: Any, result: Any, video: torch.Tensor) -> torch.Tensor:
        return result[:, :, :1]

    def condition_view(self, x: torch.Tensor, channels: int) -> torch.Tensor:
        return x[:, channels:]


class FoldedFrames(FrameAdapter):
    """The scheduler steps `(B F, C, H, W)`. As it stands: ModelScope's text to video."""

    def step_to_video(self, x: torch.Tensor, frames: int) -> torch.Tensor:
        return x.unflatten(0, (-1, frames)).transpose(1, 2)

    def step_from_video(self, video: torch.Tensor) -> torch.Tensor:
        return video.transpose(1, 2).flatten(0, 1)


class I2VGenXL(FoldedFrames):
    """Image latents are an input of their own: the image in frame 0, then frames of constants that count up to 1."""

    captures = "prepare_image_latents"
    denoisers = ("unet",)
    condition_input = "image_latents"

    def image_latents(self, pipe: Any, result: Any, video: torch.Tensor) -> torch.Tensor:
        return result[: len(video), :, :1]

    def condition_view(self, x: torch.Tensor, channels: int) -> torch.Tensor:
        return x[:, :, :1]


class PIA(FrameAdapter):
    """The image latents of every frame, behind one channel of similarity, are concatenated: channels C, 1, C."""

    captures = starts_at = "prepare_masked_condition"
    denoisers = ("unet",)
    condition_input = "sample"

    def image_latents(self, pipe: Any, result: Any, video: torch.Tensor) -> torch.Tensor:
        return result[1][: len(video), :, :1]

    def condition_view(self, x: torch.Tensor, channels: int) -> torch.Tensor:
        return x[:, channels + 1 :]


class CogVideoXText(VideoAdapter):
    """Text to video."""

    frames_first = True
    usual_scheduler = ("CogVideoXDDIMScheduler", {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"})


class CogVideoX(CogVideoXText):
    """The image is frame 0 of a second block of channels, whose other frames are zero."""

    captures = "prepare_latents"
    denoisers = ("transformer",)

    def image_latents(self, pipe: Any, result: Any, video: torch.Tensor) -> torch.Tensor:
        return result[1][:, :1].transpose(1, 2) * self.condition_scale(pipe)

    def condition_view(self, x: torch.Tensor, channels: int) -> torch.Tensor:
        return x[:, :1, channels:].transpose(1, 2)

    def condition_scale(self, pipe: Any) -> float:
        # invert_scale_latents: the image is divided by the factor that videos are multiplied by
        config = pipe.vae.config
        return config.scaling_factor**2 if config.invert_scale_latents else 1.0


class WanText(VideoAdapter):
    """Text to video."""

    usual_scheduler = ("UniPCMultistepScheduler", {"prediction_type": "flow_prediction", "use_flow_sigmas": True})


class Wan(WanText):
    """
    The image is encoded as a video whose other frames are empty, and concatenated behind a mask: channels C, 4, C.
    With `expand_timesteps` (Wan 2.2 5B) it takes the place of frame 0 instead.
    """

    captures = "prepare_latents"
    denoisers = ("transformer", "transformer_2")

    def held_frames(self, pipe: Any) -> int:
        return int(pipe.config.get("expand_timesteps", False))

    def image_latents(self, pipe: Any, result: Any, video: torch.Tensor) -> torch.Tensor:
        return result[1][:, -video.shape[1] :, :1]

    def condition_view(self, x: torch.Tensor, channels: int) -> torch.Tensor:
        return x[:, -channels:, :1]


class HunyuanVideo(VideoAdapter):
    """
    The first latents hold a thousandth of the image. `latent_concat`: channels C, C with the image in frame 0, 1 of a
    mask; `token_replace`: the image takes the place of frame 0.
    """

    captures = "prepare_latents"
    starts_at = "set_timesteps"
    denoisers = ("transformer",)

    def held_frames(self, pipe: Any) -> int:
        return int(pipe.transformer.config.image_condition_type == "token_replace")

    def first_scale(self, pipe: Any, image_latents: torch.Tensor | None) -> tuple[Any, Any]:
        assert image_latents is not None
        return 0.999, 0.001 * image_latents

    def image_latents(self, pipe: Any, result: Any, video: torch.Tensor) -> torch.Tensor:
        return result[1][:, :, :1]

    def condition_view(self, x: torch.Tensor, channels: int) -> torch.Tensor:
        return x[:, -channels - 1 : -1, :1] if x.shape[1] > channels else x[:, :, :1]


class HunyuanVideo15(VideoAdapter):
    """Channels C, C with the image in frame 0, 1 of a mask."""

    captures = starts_at = "prepare_cond_latents_and_mask"
    denoisers = ("transformer",)

    def image_latents(self, pipe: Any, result: Any, video: torch.Tensor) -> torch.Tensor:
        return result[0][:, :, :1]

    def condition_view(self, x: torch.Tensor, channels: int) -> torch.Tensor:
        return x[:, -channels - 1 : -1, :1]


class Cosmos(VideoAdapter):
    """
    The image takes the place of frame 0 in what the network sees and in what it predicts; a mask tells it. As it
    stands: Cosmos Predict 2, which runs a flow-matching scheduler on x0 + sigma eps, from a noise of fixed sigma.
    """

    kind: Kind | None = "ve"
    captures = "prepare_latents"
    denoisers = ("transformer",)
    indicator = 2  # which value of `prepare_latents` says which frames are held

    def held_frames(self, pipe: Any) -> int:
        return 1

    def first_scale(self, pipe: Any, image_latents: torch.Tensor | None) -> tuple[Any, Any]:
        return pipe.scheduler.sigmas[0].item(), 0.0

    def lower(self, pipe: Any, video: torch.Tensor, image_latents: torch.Tensor | None) -> torch.Tensor:
        return video * (pipe.scheduler.sigmas[0].item() / pipe.scheduler.config.sigma_max)

    def image_latents(self, pipe: Any, result: Any, video: torch.Tensor) -> torch.Tensor:
        if result[self.indicator][0].sum() != 1:
            raise UnstillError(f"Methods hold one latent frame of {type(pipe).__name__}; give it one image or frame.")
        return result[1][:, :, :1]

    def condition_view(self, x: torch.Tensor, channels: int) -> torch.Tensor:
        return x[:, :, :1]


class Cosmos25(Cosmos):
    """Flow matching. The velocity of frame 0 is its first latents minus the image: from the image, it stays there."""

    kind = None
    starts_at = "set_timesteps"
    indicator = 3
    usual_scheduler = WanText.usual_scheduler

    def first_scale(self, pipe: Any, image_latents: torch.Tensor | None) -> tuple[Any, Any]:
        return 1.0, 0.0

    def lower(self, pipe: Any, video: torch.Tensor, image_latents: torch.Tensor | None) -> torch.Tensor:
        assert image_latents is not None
        return torch.cat([image_latents.to(video), video[:, :, 1:]], 2)


class HeldFrame(VideoAdapter):
    """
    Frame 0 of the latents is the image from the first step to the last, and the scheduler steps the frames after it.
    As it stands: Sana Video.
    """

    captures = "prepare_latents"

    def held_frames(self, pipe: Any) -> int:
        return 1

    def image_latents(self, pipe: Any, result: Any, video: torch.Tensor) -> torch.Tensor:
        return video[:, :, :1]


class LTX(HeldFrame):
    """The first latents are packed: `(B, S, D)`."""

    starts_at = "set_timesteps"

    def first_to_video(self, pipe: Any, latents: torch.Tensor, arguments: dict[str, Any]) -> torch.Tensor:
        space, time = self.compression(pipe)
        size = ((arguments["num_frames"] - 1) // time + 1, arguments["height"] // space, arguments["width"] // space)
        patches = pipe.transformer_spatial_patch_size, pipe.transformer_temporal_patch_size
        return pipe._unpack_latents(latents, *size, *patches)

    def first_from_video(self, pipe: Any, video: torch.Tensor, arguments: dict[str, Any]) -> torch.Tensor:
        return pipe._pack_latents(video, pipe.transformer_spatial_patch_size, pipe.transformer_temporal_patch_size)

    def compression(self, pipe: Any) -> tuple[int, int]:
        return pipe.vae_spatial_compression_ratio, pipe.vae_temporal_compression_ratio

    def _decode(self, pipe: Any, latents: torch.Tensor) -> torch.Tensor:
        mean, deviation = self.moments(pipe)
        clean = latents.new_zeros(len(latents)) if pipe.vae.config.timestep_conditioning else None
        return pipe.vae.decode((latents * deviation + mean).to(latents.dtype), clean).sample


class LTX2(LTX):
    """Samples its audio with a copy of the scheduler."""

    copies_scheduler = True


ADAPTERS: dict[str, Adapter] = {
    "AnimateDiffControlNetPipeline": FrameAdapter(),
    "AnimateDiffPAGPipeline": FrameAdapter(),
    "AnimateDiffPipeline": FrameAdapter(),
    "AnimateDiffSDXLPipeline": FrameAdapter(),
    "AnimateDiffSparseControlNetPipeline": FrameAdapter(),
    "CogVideoXImageToVideoPipeline": CogVideoX(),
    "CogVideoXPipeline": CogVideoXText(),
    "Cosmos2VideoToWorldPipeline": Cosmos(),
    "Cosmos2_5_PredictBasePipeline": Cosmos25(),
    "DynamiCrafterPipeline": DynamiCrafter(),
    "HunyuanVideo15ImageToVideoPipeline": HunyuanVideo15(),
    "HunyuanVideoImageToVideoPipeline": HunyuanVideo(),
    "I2VGenXLPipeline": I2VGenXL(),
    "LaViePipeline": FrameAdapter(),
    "LTX2ImageToVideoPipeline": LTX2(),
    "LTXImageToVideoPipeline": LTX(),
    "PIAPipeline": PIA(),
    "PicoPipeline": Pico(),
    "SanaImageToVideoPipeline": HeldFrame(),
    "SkyReelsV2ImageToVideoPipeline": Wan(),
    "StableVideoDiffusionPipeline": StableVideoDiffusion(),
    "TextToVideoSDPipeline": FoldedFrames(),
    "VideoCrafterPipeline": FrameAdapter(),  # it sees its image as tokens only
    "WanImageToVideoPipeline": Wan(),
    "WanPipeline": WanText(),
}

# Pipelines, and base classes of them, on which no method works.
UNSUPPORTED: dict[str, str] = {
    "CosmosVideoToWorldPipeline": (
        "steps its scheduler twice per noise level and draws the image's noise anew each time, which methods cannot "
        "follow; use Cosmos2VideoToWorldPipeline."
    ),
    "ModularPipeline": (
        "makes its first latents inside of its blocks, where methods do not reach them; build the pipeline of the "
        "same name without Modular, such as WanImageToVideoPipeline, from its components."
    ),
    "SkyReelsV2DiffusionForcingImageToVideoPipeline": (
        "samples every latent frame with a scheduler of its own, and methods act on whole videos; use "
        "SkyReelsV2ImageToVideoPipeline."
    ),
}


def adapter_for(pipe: Any) -> Adapter:
    """The adapter of the pipeline's class, or of the nearest one it inherits from; without one `UnstillError`."""
    for cls in type(pipe).__mro__:
        if cls.__name__ in ADAPTERS:
            return ADAPTERS[cls.__name__]
        if cls.__name__ in UNSUPPORTED:
            raise UnstillError(f"{type(pipe).__name__} {UNSUPPORTED[cls.__name__]}")
    raise UnstillError(f"{type(pipe).__name__} is not a supported pipeline; supported are {', '.join(ADAPTERS)}.")
