"""VideoCrafter1's image-to-video pipeline (https://huggingface.co/papers/2310.19512)."""

from typing import Any

import torch
from torch import Tensor

from unstill.models.dynamicrafter.pipeline import DynamiCrafterPipeline
from unstill.models.pipeline_io import Generators, Images, StepCallback, VideoPipelineOutput


class VideoCrafterPipeline(DynamiCrafterPipeline):
    """Animates an image, which conditions the network only by tokens of the image encoder, like a text."""

    @torch.no_grad()
    def __call__(  # type: ignore[override]
        self,
        image: Images,
        prompt: str | list[str] = "",
        negative_prompt: str | list[str] = "",
        height: int | None = None,
        width: int | None = None,
        num_frames: int | None = None,
        num_inference_steps: int = 50,
        guidance_scale: float = 12.0,
        fps: int = 8,
        eta: float = 1.0,
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
        """As in `DynamiCrafterPipeline`; `fps` are frames per second, and lower values move more."""
        return super().__call__(
            image,
            prompt,
            negative_prompt,
            height=height,
            width=width,
            num_frames=num_frames,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            guidance_rescale=0.0,
            fps=fps,
            eta=eta,
            num_videos_per_prompt=num_videos_per_prompt,
            generator=generator,
            latents=latents,
            prompt_embeds=prompt_embeds,
            negative_prompt_embeds=negative_prompt_embeds,
            decode_chunk_size=decode_chunk_size,
            output_type=output_type,
            callback_on_step_end=callback_on_step_end,
            return_dict=return_dict,
        )
