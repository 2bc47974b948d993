"""Adapters of pipelines on a causal video VAE."""

from typing import Any

import torch

from unstill.errors import UnstillError
from unstill.forward_process import Kind, Prediction
from unstill.hooks.adapter import ModularAdapter, VideoAdapter


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

    def handover(self, pipe: Any) -> float | None:
        ratio = pipe.config.get("boundary_ratio")
        if ratio is None or getattr(pipe, "transformer_2", None) is None:
            return None
        return float(ratio * pipe.scheduler.config.num_train_timesteps)


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


class ModularWanText(ModularAdapter, WanText):
    """Text to video, made of blocks."""


class ModularWan(ModularAdapter, Wan):
    """`Wan`, made of blocks."""

    def held_frames(self, pipe: Any) -> int:
        return 0


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


class HunyuanSkyreels(VideoAdapter):
    """Channels C, C with the image in frame 0."""

    captures = "prepare_latents"
    denoisers = ("transformer",)

    def image_latents(self, pipe: Any, result: Any, video: torch.Tensor) -> torch.Tensor:
        return result[1][:, :, :1]

    def condition_view(self, x: torch.Tensor, channels: int) -> torch.Tensor:
        return x[:, channels:, :1]


class MotifVideoText(VideoAdapter):
    """Text to video."""

    starts_at = "set_timesteps"


class MotifVideo(MotifVideoText):
    """Channels C, C with the image in frame 0, 1 of a mask."""

    captures = "_prepare_first_frame_conditioning"
    denoisers = ("transformer",)

    def image_latents(self, pipe: Any, result: Any, video: torch.Tensor) -> torch.Tensor:
        return result[0][:, :, :1]

    def condition_view(self, x: torch.Tensor, channels: int) -> torch.Tensor:
        return x[:, channels:-1, :1]


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
    captures: str | None = "prepare_latents"
    denoisers: tuple[str, ...] = ("transformer",)
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


class Cosmos1(Cosmos):
    """
    Guides in terms of x0, which `scheduler.step` first makes of the network's outputs and then takes for its step. The
    condition is left alone: without the prompt the network may see no image, and `augment_sigma` noises it already.
    """

    prediction: Prediction | None = "sample"
    asks_for_x0 = True
    denoisers = ()
    usual_scheduler = ("EDMEulerScheduler", {"sigma_max": 80.0, "sigma_min": 0.002, "sigma_data": 0.5})

    def moments(self, pipe: Any, latents: torch.Tensor) -> tuple[Any, Any]:
        mean, deviation = super().moments(pipe, latents)
        return mean, deviation / pipe.scheduler.config.sigma_data


class Cosmos1Text(Cosmos1):
    """Text to video."""

    captures = None

    def held_frames(self, pipe: Any) -> int:
        return 0


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
        mean, deviation = self.moments(pipe, latents)
        clean = latents.new_zeros(len(latents)) if pipe.vae.config.timestep_conditioning else None
        return pipe.vae.decode((latents * deviation + mean).to(latents.dtype), clean).sample


class LTX2(LTX):
    """Samples its audio with a copy of the scheduler."""

    copies_scheduler = True


class KandinskyText(VideoAdapter):
    """
    Text to video. The latents are `(B, F, H, W, C)`, and the pipeline writes each step into them: they are copied
    here, because a view would change under a method that keeps it. Some networks take C + 1 more channels, of zeros.
    """

    def first_to_video(self, pipe: Any, latents: torch.Tensor, arguments: dict[str, Any]) -> torch.Tensor:
        return latents[..., : pipe.transformer.config.in_visual_dim].permute(0, 4, 1, 2, 3).clone()

    def first_from_video(self, pipe: Any, video: torch.Tensor, arguments: dict[str, Any]) -> torch.Tensor:
        latents = video.permute(0, 2, 3, 4, 1)
        if not pipe.transformer.visual_cond:
            return latents
        mask = torch.zeros_like(latents[..., :1])
        mask[:, : self.held_frames(pipe)] = 1
        return torch.cat([latents, torch.zeros_like(latents), mask], -1)

    def step_to_video(self, x: torch.Tensor, frames: int) -> torch.Tensor:
        return x.permute(0, 4, 1, 2, 3).clone()

    def step_from_video(self, video: torch.Tensor) -> torch.Tensor:
        return video.permute(0, 2, 3, 4, 1)


class Kandinsky(KandinskyText, HeldFrame):
    """The image takes the place of frame 0 for good; after the last step the pipeline evens out its brightness."""
