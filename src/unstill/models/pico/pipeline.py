"""The embedded image-to-video pipeline; its call is similar to diffusers' `StableVideoDiffusionPipeline`."""

import json
import math
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from diffusers.utils.torch_utils import randn_tensor
from diffusers.video_processor import VideoProcessor
from safetensors.torch import load_file
from torch import Tensor

from unstill.data.synthetic_world import FPS
from unstill.errors import UnstillError
from unstill.families.pico import image_noise_id
from unstill.forward_process import ForwardProcess
from unstill.models.pico.autoencoder import PicoAutoencoder
from unstill.models.pico.text import embed
from unstill.models.pico.transformer import PicoTransformer
from unstill.models.pipeline_io import Generators, Images, StepCallback, VideoPipelineOutput, image_pixels


WEIGHTS = Path(__file__).parent / "weights"
LORAS = WEIGHTS / "loras"
MAX_IMAGE_NOISE = 3.0  # standard deviation of the strongest noise that image latents had in training
GUIDED = (1.0, 60.0)  # sigma / alpha at which image and caption are guided, see `guidance_scale`
MOTION_GUIDED = (4.0, 60.0)  # sigma / alpha where motion is decided; more levels cost time and gain nothing


class PicoPipeline(DiffusionPipeline):
    """
    Generates a video of 96 x 96 pixels from a picture, from a caption, or from both.

    Works with `edm_scheduler()` (the default), `vp_scheduler()` and any diffusers scheduler with v-prediction: the
    network is conditioned on 0.25 ln(sigma / alpha) of the scheduler's current noise level.
    """

    model_cpu_offload_seq = "transformer->vae"
    _callback_tensor_inputs = ["latents"]
    vae: PicoAutoencoder
    transformer: PicoTransformer

    def __init__(self, vae: PicoAutoencoder, transformer: PicoTransformer, scheduler: Any) -> None:
        super().__init__()
        self.register_modules(vae=vae, transformer=transformer, scheduler=scheduler)
        self.vae_scale_factor = 8
        self.video_processor = VideoProcessor(vae_scale_factor=self.vae_scale_factor)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **options: Any) -> "PicoPipeline":
        """
        As in any diffusers pipeline.

        Raises:
            UnstillError: a folder of the first generation of this model.
        """
        index = Path(pretrained_model_name_or_path) / cls.config_name
        if index.is_file() and "unet" in json.loads(index.read_text()):
            raise UnstillError(
                f"{index.parent} holds a pico of the first generation (8 frames of 64 pixels), which this version no "
                "longer runs; use the embedded pico, or train one with 'unstill train pico'."
            )
        pipe: PicoPipeline = super().from_pretrained(pretrained_model_name_or_path, **options)
        return pipe

    @classmethod
    def embedded(cls, lora: str | None = None, dtype: torch.dtype = torch.float32) -> "PicoPipeline":
        """
        The model whose weights are in this package.

        Args:
            lora: the name of a file in `LORAS` that is merged into the weights.
            dtype: of the weights.
        """
        pipe = cls.from_pretrained(WEIGHTS, dtype=dtype, local_files_only=True)
        if lora is not None:
            merge_lora(pipe.transformer, LORAS / f"{lora}.safetensors")
        return pipe

    @property
    def size(self) -> int:
        """The side of the square picture in pixels."""
        return self.transformer.config.sample_size * self.vae_scale_factor

    @property
    def guidance_scale(self) -> float:
        """The guidance scale of the last call."""
        return self._guidance_scale

    def check_inputs(
        self, motion: float | None, num_frames: int, num_inference_steps: int, noise_aug_strength: float
    ) -> None:
        """Raises `UnstillError` for an argument of the call that is out of range."""
        longest = self.transformer.config.num_frames
        if not 1 <= num_frames <= longest:
            raise UnstillError(
                f"num_frames is {num_frames}; this model makes 1 frame (a picture, from a prompt) to {longest} frames."
            )
        if motion is not None and not 0 <= motion <= 2:
            raise UnstillError(
                f"motion is {motion}; give 0 (still) to 1 (lively), at most 2, or None to let the model choose."
            )
        if not 0 <= noise_aug_strength <= MAX_IMAGE_NOISE:
            raise UnstillError(
                f"noise_aug_strength is {noise_aug_strength}; give 0 (the image as it is) to {MAX_IMAGE_NOISE:g}."
            )
        if num_inference_steps < 1:
            raise UnstillError(f"num_inference_steps is {num_inference_steps}; give at least 1.")

    @staticmethod
    def encode_prompt(captions: list[str]) -> Tensor:
        """
        Captions to embeddings `(B, words, codes)`, float32; an empty caption is all zeros.

        Raises:
            UnstillError: a word that is not in the vocabulary.
        """
        return embed(captions)

    def encode_motion(self, motion: float | None) -> float:
        """The conditioning value of a motion level; `None` stands for an unspecified level."""
        return self.transformer.unspecified_motion if motion is None else float(motion_bucket(motion))

    @staticmethod
    def _captions(prompt: str | list[str], pictures: int | None) -> list[str]:
        """One caption for each video; `pictures` is the number of images, `None` without an image."""
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        if pictures is None:
            if not any(prompts):
                raise UnstillError("Give an image to animate, a prompt, or both.")
            return prompts
        if len(prompts) == 1:
            return prompts * pictures
        if pictures not in (1, len(prompts)):
            raise UnstillError(f"Got {pictures} images and {len(prompts)} prompts; give as many, or one of either.")
        return prompts

    def _encode_vae_image(
        self, image: Tensor, device: torch.device, num_videos_per_prompt: int, do_classifier_free_guidance: bool
    ) -> Tensor:
        """Image latents `(B, C, h, w)`; with guidance, after as many zeros, as in Stable Video Diffusion."""
        latents = self.vae.encode(image.to(device, self.vae.dtype)).latent_dist.mode()
        latents = latents.repeat_interleave(num_videos_per_prompt, 0)
        return torch.cat([torch.zeros_like(latents), latents]) if do_classifier_free_guidance else latents

    def prepare_latents(
        self,
        batch_size: int,
        num_frames: int,
        num_channels_latents: int,
        height: int,
        width: int,
        dtype: torch.dtype,
        device: torch.device,
        generator: Generators,
        latents: Tensor | None = None,
    ) -> Tensor:
        """First latents `(B, F, C, h, w)`: noise or the caller's `latents`, times the scheduler's first sigma."""
        scale = self.vae_scale_factor
        shape = (batch_size, num_frames, num_channels_latents // 2, height // scale, width // scale)
        if latents is None:
            latents = randn_tensor(shape, generator=generator, device=device, dtype=dtype)
        elif tuple(latents.shape) != shape:
            raise UnstillError(f"latents have shape {tuple(latents.shape)}; this call needs {shape}.")
        return latents.to(device) * self.scheduler.init_noise_sigma

    def decode_latents(self, latents: Tensor) -> Tensor:
        """Latents `(B, F, C, h, w)` to pixels `(B, 3, F, H, W)` in [-1, 1]."""
        frames = self.vae.decode(latents.flatten(0, 1).to(self.vae.dtype), return_dict=False)[0]
        return frames.unflatten(0, latents.shape[:2]).transpose(1, 2).float()

    @torch.no_grad()
    def __call__(
        self,
        image: Images | None = None,
        prompt: str | list[str] = "",
        motion: float | None = None,
        num_frames: int | None = None,
        num_inference_steps: int = 15,
        noise_aug_strength: float = 0.0,
        guidance_scale: float = 2.0,
        motion_guidance_scale: float = 2.0,
        num_videos_per_prompt: int = 1,
        generator: Generators = None,
        latents: Tensor | None = None,
        output_type: str = "pil",
        callback_on_step_end: StepCallback | None = None,
        return_dict: bool = True,
    ) -> VideoPipelineOutput | tuple[Any]:
        """
        Generates videos from a picture, a caption, or both; with one frame, pictures.

        Args:
            image: PIL picture(s) of any size, or a tensor `(B, 3, H, W)` in [0, 1]; resized and cropped to a square.
            prompt: caption(s) in the vocabulary of the synthetic world (`unstill.models.pico.text.WORDS`), such as "a
                red ring and a blue star drifting left over green".
            motion: the mean optical flow, in units of 2 % of the picture's side per frame: 0 is still, 1 lively. With
                `None` the model chooses.
            num_frames: 1 to 16 frames, at 8 per second; by default the most.
            num_inference_steps: solver steps, with one call of the network each (two with guidance).
            noise_aug_strength: standard deviation of the noise added to the image latents (theirs is 1), 0 to 3. The
                network is conditioned on it. More noise gives more motion and less fidelity to the image.
            guidance_scale: scale of classifier-free guidance by image and caption, at the noise levels `GUIDED`
                (guidance in a limited interval, arXiv 2404.07724: at all levels it costs more, and in few steps the
                first frame); 1 turns it off and takes a third less time. At 2 captions are followed better than at 1
                and no worse than at 4 (docs/pico/captions.md), and toys keep more of their shape.
            motion_guidance_scale: scale of the guidance by the motion level against an unspecified level, at the noise
                levels `MOTION_GUIDED`; 1 turns it off. It costs a second call of the network in 5 of 15 steps, and
                videos follow `motion` more closely (docs/pico/motion.md). Not used for pictures or without `motion`.
            num_videos_per_prompt: videos per image or caption.
            generator: for the noise; a list has one for each video.
            latents: unit noise `(B, F, 12, 12, 12)`; by default it is drawn.
            output_type: "pil", "np", "pt" or "latent".
            callback_on_step_end: called after every step, as in diffusers; may replace the latents.
            return_dict: whether to return a `VideoPipelineOutput`.

        Returns:
            `VideoPipelineOutput`, or a tuple with `return_dict=False`.

        Raises:
            UnstillError: an argument out of range, or neither image nor prompt.
        """
        num_frames = self.transformer.config.num_frames if num_frames is None else num_frames
        self.check_inputs(motion, num_frames, num_inference_steps, noise_aug_strength)
        pixels = None if image is None else image_pixels(image, (self.size, self.size))
        captions = self._captions(prompt, None if pixels is None else len(pixels))
        self._guidance_scale = guidance_scale
        device = self._execution_device
        guided = guidance_scale != 1.0
        batch = len(captions) * num_videos_per_prompt
        words = self.encode_prompt(captions).to(device, self.transformer.dtype)
        words = words.repeat_interleave(num_videos_per_prompt, 0)
        if guided:
            words = torch.cat([torch.zeros_like(words), words])
        if pixels is None:
            height = self.size // self.vae_scale_factor
            image_latents = words.new_zeros(len(words), self.transformer.config.in_channels // 2, height, height)
        else:
            pixels = pixels.expand(len(captions), -1, -1, -1)
            image_latents = self._encode_vae_image(pixels, device, num_videos_per_prompt, guided)
        ids = torch.tensor([FPS - 1.0, self.encode_motion(motion), 0.0], device=device).repeat(len(image_latents), 1)
        if noise_aug_strength and pixels is not None:  # with guidance, the first half has no image and no noise
            clean = image_latents[-batch:]
            noise = randn_tensor(clean.shape, generator=generator, device=device, dtype=clean.dtype)
            image_latents = torch.cat([image_latents[:-batch], clean + noise_aug_strength * noise])
            ids[-batch:, 2] = image_noise_id(noise_aug_strength)
        image_latents = image_latents.unsqueeze(1).repeat(1, num_frames, 1, 1, 1)  # (B or 2B, F, C, h, w)

        self.scheduler.set_timesteps(num_inference_steps, device=device)
        latents = self.prepare_latents(
            batch,
            num_frames,
            self.transformer.config.in_channels,
            self.size,
            self.size,
            image_latents.dtype,
            device,
            generator,
            latents,
        )
        process = ForwardProcess.of(self.scheduler)
        motion_guided = motion_guidance_scale != 1.0 and motion is not None and num_frames > 1
        unspecified = ids.clone()
        unspecified[:, 1] = self.encode_motion(None)

        def predict(latents: Tensor, t: Tensor, label: float, ids: Tensor, guide: bool) -> Tensor:
            rows = 2 * batch if guide else batch  # the last rows are those with image and caption
            noisy = self.scheduler.scale_model_input(torch.cat([latents] * 2) if guide else latents, t)
            model_input = torch.cat([noisy.to(image_latents.dtype), image_latents[-rows:]], 2)
            output: Tensor = self.transformer(model_input, label, words[-rows:], ids[-rows:], return_dict=False)[0]
            if guide:
                unconditional, conditional = output.chunk(2)
                output = unconditional + guidance_scale * (conditional - unconditional)
            return output

        with self.progress_bar(total=len(self.scheduler.timesteps)) as bar:
            for i, t in enumerate(self.scheduler.timesteps):
                alpha, sigma = process.alpha_sigma(t, i)
                label, level = noise_label(alpha, sigma), sigma / max(alpha, 1e-12)
                guide = guided and GUIDED[0] <= level <= GUIDED[1]
                output = predict(latents, t, label, ids, guide)
                if motion_guided and MOTION_GUIDED[0] <= level <= MOTION_GUIDED[1]:
                    output = torch.lerp(predict(latents, t, label, unspecified, guide), output, motion_guidance_scale)
                latents = self.scheduler.step(output, t, latents).prev_sample
                if callback_on_step_end is not None:
                    latents = callback_on_step_end(self, i, t, {"latents": latents}).pop("latents", latents)
                bar.update()

        if output_type == "latent":
            frames: Any = latents
        else:
            frames = self.video_processor.postprocess_video(self.decode_latents(latents), output_type=output_type)
        self.maybe_free_model_hooks()
        return VideoPipelineOutput(frames=frames) if return_dict else (frames,)


@torch.no_grad()
def merge_lora(network: torch.nn.Module, path: Path) -> None:
    """
    Merges a LoRA that `unstill train` wrote into a network: W + B A, as its alpha equals its rank.

    Args:
        network: the one it was trained for; changed in place.
        path: a safetensors file.
    """
    tensors = load_file(path)
    for key, down in tensors.items():
        layer, a, _ = key.partition(".lora_A.")
        if a:
            weight = network.get_submodule(layer.partition(".")[2]).weight
            weight += (tensors[key.replace(".lora_A.", ".lora_B.")].float() @ down.float()).to(weight)


def noise_label(alpha: float, sigma: float) -> float:
    """The noise conditioning of the network: 0.25 ln(sigma / alpha), at most that of the highest training level."""
    return 0.25 * math.log(min(sigma / max(alpha, 1e-12), 700.0))


def motion_bucket(motion: Tensor | float) -> Any:
    """A motion level as the second of the `added_time_ids`; the square root resolves low levels more finely."""
    return 100.0 * motion**0.5
