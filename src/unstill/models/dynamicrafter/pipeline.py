"""DynamiCrafter's pipeline (https://huggingface.co/papers/2310.12190) with the interface of diffusers."""

from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn.functional import conv2d, interpolate, pad
from transformers import CLIPTextModel, CLIPTokenizer, CLIPVisionModel

from unstill.errors import UnstillError
from unstill.models.base_pipeline import LatentVideoPipeline, as_list, rescale_guidance
from unstill.models.dynamicrafter.resampler import ImageResampler
from unstill.models.dynamicrafter.unet import DynamiCrafterUNet
from unstill.models.pipeline_io import Generators, Images, StepCallback, VideoPipelineOutput, image_pixels


CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_DEVIATION = (0.26862954, 0.26130258, 0.27577711)


class DynamiCrafterPipeline(LatentVideoPipeline):
    """
    Animates an image according to a prompt. The released interpolation and looping models have the same network and
    other checkpoints; they are called with `last_image` (looping: the same image twice).

    Args:
        image_encoder: OpenCLIP ViT-H/14.
        image_projector: maps all its tokens to those of the U-Net.
        scheduler: `DynamiCrafterScheduler` samples as released.
    """

    model_cpu_offload_seq = "text_encoder->image_encoder->image_projector->unet->vae"

    def __init__(
        self,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer | None,
        image_encoder: CLIPVisionModel,
        image_projector: ImageResampler,
        unet: DynamiCrafterUNet,
        scheduler: Any,
    ) -> None:
        super().__init__()
        self.register_modules(
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            image_encoder=image_encoder,
            image_projector=image_projector,
            unet=unet,
            scheduler=scheduler,
        )
        self._set_up()

    def encode_image(self, pixels: Tensor, num_frames: int) -> Tensor:
        """`(B, 3, H, W)` in [-1, 1] to the U-Net's image tokens `(B, L, C)`."""
        own_frames = self.image_projector.config.frames
        if 1 < own_frames < num_frames:
            raise UnstillError(f"num_frames is {num_frames}; this model has image tokens for at most {own_frames}.")
        side = self.image_encoder.config.image_size
        mean, deviation = (pixels.new_tensor(v)[:, None, None] for v in (CLIP_MEAN, CLIP_DEVIATION))
        pictures = (squash(pixels, (side, side)) / 2 + 0.5 - mean) / deviation
        pictures = pictures.to(self._execution_device, self.image_encoder.dtype)
        # All tokens of the last layer, before the normalisation that CLIP's own pooling applies to the first.
        tokens = self.image_encoder(pictures).last_hidden_state
        tokens = self.image_projector(tokens.to(self.image_projector.dtype))
        return tokens[:, : num_frames * self.image_projector.config.queries] if own_frames > 1 else tokens

    def prepare_image_latents(
        self, pixels: Tensor, num_frames: int, generator: Generators, last_pixels: Tensor | None = None
    ) -> Tensor:
        """`(B, C, F, h, w)`: the image in every frame; with a last image, the two at the ends and zeros between."""
        first = self._encode_vae(pixels, generator)[:, :, None]
        if last_pixels is None:
            return first.expand(-1, -1, num_frames, -1, -1)
        if num_frames < 2 or len(last_pixels) != len(pixels):
            raise UnstillError("Between two images there are at least 2 frames, and each image has a last one.")
        last = self._encode_vae(last_pixels, generator)[:, :, None]
        between = torch.zeros_like(first).expand(-1, -1, num_frames - 2, -1, -1)
        return torch.cat([first, between, last], 2)

    def _encode_vae(self, pixels: Tensor, generator: Generators) -> Tensor:
        posterior = self.vae.encode(pixels.to(self._execution_device, self.vae.dtype)).latent_dist
        if isinstance(generator, list):  # one posterior sample from each
            moments = posterior.parameters.split(1)
            rows = [type(posterior)(part).sample(g) for part, g in zip(moments, generator, strict=True)]
            return torch.cat(rows) * self.vae.config.scaling_factor
        return posterior.sample(generator) * self.vae.config.scaling_factor

    @torch.no_grad()
    def __call__(
        self,
        image: Images,
        prompt: str | list[str] = "",
        negative_prompt: str | list[str] = "",
        height: int | None = None,
        width: int | None = None,
        num_frames: int | None = None,
        num_inference_steps: int = 50,
        guidance_scale: float = 7.5,
        guidance_rescale: float | None = None,
        image_guidance_scale: float | None = None,
        fps: int | None = None,
        eta: float = 1.0,
        last_image: Images | None = None,
        num_videos_per_prompt: int = 1,
        generator: Generators = None,
        latents: Tensor | None = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        decode_chunk_size: int = 1,
        output_type: str = "pil",
        callback_on_step_end: StepCallback | None = None,
        return_dict: bool = True,
    ) -> VideoPipelineOutput | tuple[Any]:
        """
        Generates videos from pictures.

        Args:
            image: PIL picture(s) of any size, or a tensor `(B, 3, H, W)` in [0, 1]; resized and cropped.
            prompt, negative_prompt: one, or one for each image.
            height, width, num_frames: by default what the model was trained for.
            num_inference_steps: solver steps.
            guidance_scale: scale of classifier-free guidance by prompt and image; 1 turns it off.
            guidance_rescale: by default 0.7 for models with zero terminal signal-to-noise ratio, else 0.
            image_guidance_scale: scale of the guidance by the image alone; `guidance_scale` is then that of the
                prompt. It costs a third evaluation of the network per step.
            fps: conditioning of the network: frames per second (512, 1024: lower values move more), or for
                DynamiCrafter 256 the frame stride (higher values move more).
            eta: 1 as released; 0 is deterministic DDIM.
            last_image: the last frame, for the released interpolation and looping models.
            num_videos_per_prompt: videos per image.
            generator: for the noise and the image latents; a list has one for each video.
            latents: unit noise `(B, 4, F, h, w)`; by default it is drawn.
            prompt_embeds, negative_prompt_embeds: `(B, 77, C)`, instead of prompts.
            decode_chunk_size: frames decoded at a time.
            output_type: "pil", "np", "pt" or "latent".
            callback_on_step_end: called after every step, as in diffusers; may replace the latents.
            return_dict: whether to return a `VideoPipelineOutput`.

        Returns:
            `VideoPipelineOutput`, or a tuple with `return_dict=False`.

        Raises:
            UnstillError: an impossible size, number or combination of arguments.
        """
        config = self.unet.config
        height, width = height or self.native_size()[0], width or self.native_size()[1]
        num_frames = num_frames or config.num_frames
        self.check_size(height, width, num_frames, num_inference_steps)
        if guidance_rescale is None:
            guidance_rescale = 0.7 if self.scheduler.config.get("rescale_betas_zero_snr") else 0.0

        pixels = image_pixels(image, (height, width))
        images, copies = len(pixels), num_videos_per_prompt
        if prompt_embeds is None:
            prompt_embeds = self.encode_prompt(as_list(prompt, images, "prompts"))
        guides = guidance_scale != 1 or image_guidance_scale is not None
        if guides and negative_prompt_embeds is None:
            negative_prompt_embeds = self.encode_prompt(as_list(negative_prompt, images, "negative prompts"))
        tokens = self.encode_image(pixels, num_frames)
        contexts = [torch.cat([prompt_embeds.to(tokens), tokens], 1)]
        if guides:
            assert negative_prompt_embeds is not None
            negative = negative_prompt_embeds.to(tokens)
            if image_guidance_scale is not None:
                contexts.insert(0, torch.cat([negative, tokens], 1))
            # Without an image the network sees the tokens of mid-grey, not zeros.
            grey = self.encode_image(torch.zeros_like(pixels[:1]), num_frames).expand_as(tokens)
            contexts.insert(0, torch.cat([negative, grey], 1))
        branches = len(contexts)
        context = torch.cat([part.repeat_interleave(copies, 0) for part in contexts]).to(self.unet.dtype)

        latents = self.begin(images * copies, num_frames, height, width, num_inference_steps, generator, latents)
        condition: Tensor | None = None
        if config.in_channels > config.out_channels:
            first, last = pixels.repeat_interleave(copies, 0), None
            if last_image is not None:
                last = image_pixels(last_image, (height, width)).repeat_interleave(copies, 0)
            condition = self.prepare_image_latents(first, num_frames, generator, last).to(latents.dtype)
        elif last_image is not None:
            raise UnstillError("This model's network sees no image latents, so it has no use for last_image.")

        def predict(sample: Tensor, t: Tensor) -> Tensor:
            x = sample if condition is None else torch.cat([sample, condition], 1)
            output = self.unet(torch.cat([x] * branches), t, context, fps, return_dict=False)[0]
            if branches == 1:
                return output
            unconditional, *others = output.chunk(branches)
            full, guided = others[-1], unconditional
            if image_guidance_scale is not None:
                guided = guided + image_guidance_scale * (others[0] - unconditional)
                unconditional = others[0]
            guided = guided + guidance_scale * (full - unconditional)
            return rescale_guidance(guided, full, guidance_rescale) if guidance_rescale else guided

        latents = self.denoise(latents, predict, eta, generator, callback_on_step_end)
        return self.finish(latents, output_type, decode_chunk_size, return_dict)


def squash(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """
    Resizes `(B, C, H, W)` to `(B, C, *size)`, aspect ratio not kept, as for the image encoder in training: Gaussian
    blur of standard deviation (factor - 1) / 2 where it shrinks, then bicubic with aligned corners.
    """
    factors = [have / want for have, want in zip(pixels.shape[-2:], size, strict=True)]
    if max(factors) > 1:
        for dim, factor in zip((2, 3), factors, strict=True):
            pixels = _blur(pixels, dim, max((factor - 1) / 2, 0.001))
    return interpolate(pixels, size=size, mode="bicubic", align_corners=True)


def _blur(x: Tensor, dim: int, deviation: float) -> Tensor:
    radius = max(int(4 * deviation), 3) // 2
    place = torch.arange(-radius, radius + 1, device=x.device, dtype=x.dtype)
    kernel = torch.exp(-(place**2) / (2 * deviation**2))
    kernel = (kernel / kernel.sum()).expand(x.shape[1], 1, -1)
    shape, border = ((-1, 1), (0, 0, radius, radius)) if dim == 2 else ((1, -1), (radius, radius, 0, 0))
    return conv2d(pad(x, border, mode="reflect"), kernel.unflatten(2, shape), groups=x.shape[1])
