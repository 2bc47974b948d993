"""LaVie's text-to-video pipeline (https://huggingface.co/papers/2309.15103) with the interface of diffusers."""

from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from unstill.errors import UnstillError
from unstill.models.base_pipeline import LatentVideoPipeline, as_list
from unstill.models.lavie.unet import LaVieUNet
from unstill.models.pipeline_io import Generators, StepCallback, VideoPipelineOutput


class LaViePipeline(LatentVideoPipeline):
    """
    Generates a video, or with one frame a picture, from a prompt.

    Args:
        scheduler: as released `DDPMScheduler`, linear betas from 1e-4 to 0.02; `DDIMScheduler` with the same betas
            needs fewer steps.
    """

    model_cpu_offload_seq = "text_encoder->unet->vae"

    def __init__(
        self,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer | None,
        unet: LaVieUNet,
        scheduler: Any,
    ) -> None:
        super().__init__()
        self.register_modules(vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, unet=unet, scheduler=scheduler)
        self._set_up()

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str] | None = None,
        negative_prompt: str | list[str] = "",
        height: int | None = None,
        width: int | None = None,
        num_frames: int = 16,
        num_inference_steps: int = 50,
        guidance_scale: float = 7.5,
        eta: float = 0.0,
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
        Generates videos from prompts.

        Args:
            prompt, negative_prompt: one, or one for each video.
            height, width: in pixels; by default what the model was trained for.
            num_frames: 1 generates a picture without temporal attention, as I4VGen does for its candidates.
            num_inference_steps: solver steps.
            guidance_scale: scale of classifier-free guidance by the prompt; 1 turns it off.
            eta: for schedulers of the DDIM family.
            num_videos_per_prompt: videos per prompt.
            generator: for the noise; a list has one for each video.
            latents: unit noise `(B, 4, F, h, w)`; by default it is drawn.
            prompt_embeds, negative_prompt_embeds: `(B, 77, C)`, instead of prompts.
            decode_chunk_size: frames decoded at a time.
            output_type: "pil", "np", "pt" or "latent".
            callback_on_step_end: called after every step, as in diffusers; may replace the latents.
            return_dict: whether to return a `VideoPipelineOutput`.

        Returns:
            `VideoPipelineOutput`, or a tuple with `return_dict=False`.
        """
        guided = guidance_scale != 1
        height, width = height or self.native_size()[0], width or self.native_size()[1]
        self.check_size(height, width, num_frames, num_inference_steps)
        if prompt_embeds is None:
            if not prompt:
                raise UnstillError("LaVie needs a prompt that says what happens, or prompt_embeds.")
            prompt_embeds = self.encode_prompt([prompt] if isinstance(prompt, str) else prompt)
        batch = len(prompt_embeds)
        contexts = [prompt_embeds]
        if guided:
            if negative_prompt_embeds is None:
                negative_prompt_embeds = self.encode_prompt(as_list(negative_prompt, batch, "negative prompts"))
            contexts.insert(0, negative_prompt_embeds)
        context = torch.cat([part.repeat_interleave(num_videos_per_prompt, 0) for part in contexts])
        context = context.to(self.unet.dtype)

        videos = batch * num_videos_per_prompt
        latents = self.begin(videos, num_frames, height, width, num_inference_steps, generator, latents)

        def predict(sample: Tensor, t: Tensor) -> Tensor:
            x = sample[:, :, 0] if num_frames == 1 else sample
            output = self.unet(torch.cat([x] * len(contexts)), t, context, return_dict=False)[0]
            output = output[:, :, None] if num_frames == 1 else output
            if not guided:
                return output
            unconditional, conditional = output.chunk(2)
            return unconditional + guidance_scale * (conditional - unconditional)

        latents = self.denoise(latents, predict, eta, generator, callback_on_step_end)
        return self.finish(latents, output_type, decode_chunk_size, return_dict)
