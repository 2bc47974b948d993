"""The base of this library's pipelines with Stable Diffusion's autoencoder: noise, denoising loop, decoding."""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from diffusers import AutoencoderKL, DiffusionPipeline
from diffusers.utils.torch_utils import randn_tensor
from diffusers.video_processor import VideoProcessor
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from unstill.errors import UnstillError
from unstill.models.pipeline_io import Generators, StepCallback, VideoPipelineOutput


class LatentVideoPipeline(DiffusionPipeline):
    """A pipeline whose latents are `(B, C, F, h, w)`, each frame one picture of an `AutoencoderKL`."""

    _callback_tensor_inputs = ["latents"]
    _optional_components = ["tokenizer"]
    vae: AutoencoderKL
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer | None
    unet: Any
    scheduler: Any

    def _set_up(self) -> None:
        """To be called after the components are registered."""
        self.vae_scale_factor = 2 ** (len(self.vae.config.block_out_channels) - 1)
        self.video_processor = VideoProcessor(vae_scale_factor=self.vae_scale_factor)

    def native_size(self) -> tuple[int, int]:
        """(height, width) in pixels that the denoiser was trained for."""
        height, width = self.unet.config.sample_size
        return height * self.vae_scale_factor, width * self.vae_scale_factor

    def check_size(self, height: int, width: int, num_frames: int, steps: int) -> None:
        """Raises `UnstillError` for a size that is no multiple of the network's, or a number below 1."""
        multiple = self.vae_scale_factor * 2 ** (len(self.unet.config.block_out_channels) - 1)
        if height % multiple or width % multiple or min(height, width) < multiple:
            raise UnstillError(f"The size is {height}x{width}, but must be a multiple of {multiple} both ways.")
        if num_frames < 1 or steps < 1:
            raise UnstillError(f"{num_frames} frames in {steps} steps cannot be made; give at least 1 of each.")

    def encode_prompt(self, prompts: list[str]) -> Tensor:
        """`(B, L, C)`: the text encoder's last layer, normalised."""
        length = self.text_encoder.config.max_position_embeddings
        if self.tokenizer is not None:
            ids = self.tokenizer(
                prompts, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
            ).input_ids
        elif not any(prompts):
            ids = self._empty_prompt(length).expand(len(prompts), -1)
        else:
            raise UnstillError(
                "This pipeline has no tokenizer, so it reads only the empty prompt; give it one (load or "
                "convert with base, or pipe.register_modules(tokenizer=...)), or pass prompt_embeds."
            )
        return self.text_encoder(ids.to(self._execution_device)).last_hidden_state

    def _empty_prompt(self, length: int) -> Tensor:
        """The tokens of the empty string, as of a CLIP tokenizer: start, end, padding."""
        config = self.text_encoder.config
        ids = torch.full((1, length), config.pad_token_id)
        ids[0, :2] = torch.tensor([config.bos_token_id, config.eos_token_id])
        return ids

    def prepare_latents(
        self,
        batch_size: int,
        num_channels_latents: int,
        num_frames: int,
        height: int,
        width: int,
        dtype: torch.dtype,
        device: torch.device,
        generator: Generators,
        latents: Tensor | None = None,
    ) -> Tensor:
        """First latents `(B, C, F, h, w)`: noise, or the caller's `latents`, times the scheduler's first sigma."""
        scale = self.vae_scale_factor
        shape = (batch_size, num_channels_latents, num_frames, height // scale, width // scale)
        if isinstance(generator, list) and len(generator) != batch_size:
            raise UnstillError(f"There are {len(generator)} generators for {batch_size} videos; give one for each.")
        if latents is None:
            latents = randn_tensor(shape, generator=generator, device=device, dtype=dtype)
        elif tuple(latents.shape) != shape:
            raise UnstillError(f"latents have shape {tuple(latents.shape)}; this call needs {shape}.")
        return latents.to(device, dtype) * self.scheduler.init_noise_sigma

    def begin(
        self,
        videos: int,
        num_frames: int,
        height: int,
        width: int,
        steps: int,
        generator: Generators,
        latents: Tensor | None,
    ) -> Tensor:
        """Sets the noise levels, and returns the first latents of `videos` videos."""
        device = self._execution_device
        self.scheduler.set_timesteps(steps, device=device)
        channels, dtype = self.unet.config.out_channels, self.unet.dtype
        return self.prepare_latents(videos, channels, num_frames, height, width, dtype, device, generator, latents)

    def denoise(
        self,
        latents: Tensor,
        predict: Callable[[Tensor, Tensor], Tensor],
        eta: float,
        generator: Generators,
        callback: StepCallback | None,
    ) -> Tensor:
        """Runs the scheduler over `latents`; `predict(sample, timestep)` returns the guided model output."""
        supported = inspect.signature(self.scheduler.step).parameters
        options = {k: v for k, v in {"eta": eta, "generator": generator}.items() if k in supported}
        with self.progress_bar(total=len(self.scheduler.timesteps)) as bar:
            for i, t in enumerate(self.scheduler.timesteps):
                output = predict(self.scheduler.scale_model_input(latents, t), t)
                latents = self.scheduler.step(output, t, latents, **options).prev_sample
                if callback is not None:
                    latents = callback(self, i, t, {"latents": latents}).pop("latents", latents)
                bar.update()
        return latents

    def decode_latents(self, latents: Tensor, decode_chunk_size: int = 1) -> Tensor:
        """`(B, C, F, h, w)` to pixels `(B, 3, F, H, W)` in [-1, 1], `decode_chunk_size` frames at a time."""
        frames = latents.transpose(1, 2).flatten(0, 1).to(self.vae.dtype) / self.vae.config.scaling_factor
        pixels = torch.cat([self.vae.decode(part).sample.float() for part in frames.split(decode_chunk_size)])
        return pixels.unflatten(0, (len(latents), -1)).transpose(1, 2)

    def finish(self, latents: Tensor, output_type: str, decode_chunk_size: int, return_dict: bool) -> Any:
        """Converts the last latents to the return value of the call."""
        frames: Any = latents
        if output_type != "latent":
            pixels = self.decode_latents(latents, decode_chunk_size)
            frames = self.video_processor.postprocess_video(pixels, output_type=output_type)
        self.maybe_free_model_hooks()
        return VideoPipelineOutput(frames=frames) if return_dict else (frames,)


def rescale_guidance(guided: Tensor, conditional: Tensor, share: float) -> Tensor:
    """
    Rescales guided predictions towards the standard deviation of the conditional ones, per video.

    Args:
        guided, conditional: `(B, ...)`.
        share: 0 leaves `guided` unchanged, 1 gives it the standard deviation of `conditional`.

    "Common Diffusion Noise Schedules and Sample Steps are Flawed", https://huggingface.co/papers/2305.08891, Section
    3.4.
    """
    dims = list(range(1, guided.ndim))
    factor = conditional.std(dims, keepdim=True) / guided.std(dims, keepdim=True)
    return guided * (share * factor + 1 - share)


def as_list(prompt: str | list[str], batch: int, name: str) -> list[str]:
    """One prompt per video; raises `UnstillError` for another number of prompts than 1 or `batch`."""
    prompts = [prompt] * batch if isinstance(prompt, str) else list(prompt)
    if len(prompts) != batch:
        raise UnstillError(f"There are {len(prompts)} of {name} for {batch} videos; give one, or one for each.")
    return prompts
