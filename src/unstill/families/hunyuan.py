"""HunyuanVideo (https://huggingface.co/papers/2412.03603), 1.5, and SkyReels V1, which has the same network."""

from typing import Any

import torch
from torch import Tensor

from unstill.data.images import Size, frame_picture
from unstill.data.sources import Sample
from unstill.errors import UnstillError
from unstill.families.base import Family
from unstill.families.model_card import Model
from unstill.families.reference_keys import ReferenceKeys
from unstill.families.training import Encoded, TrainingRole, check_clip_length, check_multiple
from unstill.families.vae_adapters import VideoAdapter


class HunyuanVideoText(VideoAdapter):
    """Text to video."""

    two_calls = True
    attends = ("transformer",)

    def reference_keys(self, pipe: Any, network: Any, x: torch.Tensor, shape: torch.Size) -> ReferenceKeys:
        return ReferenceKeys.of_patches(network, x, "after")


class HunyuanVideo(HunyuanVideoText):
    """
    The first latents hold a thousandth of the image. `latent_concat`: channels C, C with the image in frame 0, 1 of a
    mask; `token_replace`: the image takes the place of frame 0.
    """

    image_latents_from = "prepare_latents"
    last_setup_call = "set_timesteps"
    denoisers = ("transformer",)

    def conditioning_frames(self, pipe: Any) -> int:
        return int(pipe.transformer.config.image_condition_type == "token_replace")

    def first_scale(self, pipe: Any, image_latents: torch.Tensor | None) -> tuple[Any, Any]:
        assert image_latents is not None
        return 0.999, 0.001 * image_latents

    def image_latents(self, pipe: Any, result: Any, video: torch.Tensor) -> torch.Tensor:
        return result[1][:, :, :1]

    def condition_view(self, x: torch.Tensor, channels: int) -> torch.Tensor:
        return x[:, -channels - 1 : -1, :1] if x.shape[1] > channels else x[:, :, :1]


class HunyuanSkyreels(HunyuanVideoText):
    """Channels C, C with the image in frame 0."""

    image_latents_from = "prepare_latents"
    denoisers = ("transformer",)

    def image_latents(self, pipe: Any, result: Any, video: torch.Tensor) -> torch.Tensor:
        return result[1][:, :, :1]

    def condition_view(self, x: torch.Tensor, channels: int) -> torch.Tensor:
        return x[:, channels:, :1]


class HunyuanVideo15(HunyuanVideoText):
    """Channels C, C with the image in frame 0, 1 of a mask."""

    image_latents_from = last_setup_call = "prepare_cond_latents_and_mask"
    denoisers = ("transformer",)

    def image_latents(self, pipe: Any, result: Any, video: torch.Tensor) -> torch.Tensor:
        return result[0][:, :, :1]

    def condition_view(self, x: torch.Tensor, channels: int) -> torch.Tensor:
        return x[:, -channels - 1 : -1, :1]


class Framepack(VideoAdapter):
    """
    Samples a video in sections, each from noise. The image is in a separate input, before the frames sampled so far.
    """

    image_latents_from = "prepare_image_latents"
    last_setup_call = "set_timesteps"
    denoisers = ("transformer",)
    condition_input = "latents_clean"
    two_calls = True
    in_sections = True

    def image_latents(self, pipe: Any, result: Any, video: torch.Tensor) -> torch.Tensor:
        return result

    def condition_view(self, x: torch.Tensor, channels: int) -> torch.Tensor:
        return x[:, :, :1]


class HunyuanVideo15Training(TrainingRole):
    """
    HunyuanVideo 1.5: the image is frame 0 of a second block of channels, beside a mask of it, and tokens of SigLIP.
    Two text encoders, each with a mask. The image is never dropped: guidance drops the text alone, and the network
    takes absent tokens for a whole batch only.
    """

    name = "hunyuanvideo-1.5"
    denoiser = "transformer"
    blank_latents = False

    def of(self, pipe: Any) -> TrainingRole:
        if pipe.transformer.config.use_meanflow:
            raise UnstillError(
                "This HunyuanVideo 1.5 was distilled to few steps (use_meanflow), for which there is no loss here; "
                "train the model that is not distilled, such as hunyuanvideo-1.5-i2v."
            )
        return self

    def check_clip(self, pipe: Any, frames: int, size: Size) -> None:
        space, time = HunyuanVideo15().compression(pipe)
        check_multiple(pipe, size, space * pipe.transformer.config.patch_size)
        check_clip_length(pipe, frames, time)

    def unread(self, model: Any) -> tuple[str, ...]:
        last = f"transformer_blocks.{len(model.transformer_blocks) - 1}"  # only the video goes on from there
        parts = ("attn.add_q_proj", "attn.norm_added_q", "attn.to_add_out", "norm2_context", "ff_context")
        return tuple(f"{last}.{part}." for part in parts)

    def encode(self, pipe: Any, sample: Sample, latents: Tensor, frame: int) -> Encoded:
        image = sample.video[frame]
        tokens = pipe.encode_image(frame_picture(image), 1, pipe._execution_device, torch.float32)
        return {
            "latents": latents,
            "image": HunyuanVideo15().encode_video(pipe, image[None])[0],  # alone, as the pipeline does
            "tokens": tokens[0],
            **_both_texts(pipe, sample.caption),
        }

    def dropped(self, pipe: Any, like: Encoded) -> Encoded:
        return _both_texts(pipe, "")

    def predict(self, model: Any, noisy: Tensor, timestep: Tensor, given: Encoded, image_noise: Tensor) -> Tensor:
        condition, mask = torch.zeros_like(noisy), torch.zeros_like(noisy[:, :1])
        condition[:, :, :1] = given["image"][:, :, :1].to(noisy)
        mask[:, :, :1] = 1
        dtype = getattr(model, "module", model).dtype  # text_2 and tokens are normalised first, in that of the weights
        return model(
            torch.cat([noisy, condition, mask], 1),
            timestep,
            encoder_hidden_states=given["text"].to(noisy),
            encoder_attention_mask=given["text_mask"],
            encoder_hidden_states_2=given["text_2"].to(dtype),
            encoder_attention_mask_2=given["text_mask_2"],
            image_embeds=given["tokens"].to(dtype),
            return_dict=False,
        )[0]


def _both_texts(pipe: Any, caption: str) -> Encoded:
    names = ("text", "text_mask", "text_2", "text_mask_2")
    made = pipe.encode_prompt([caption], dtype=torch.float32)
    return {name: value[0].float() for name, value in zip(names, made, strict=True)}


FAMILY = Family(
    adapters={
        "HunyuanVideoPipeline": HunyuanVideoText(),
        "HunyuanVideoImageToVideoPipeline": HunyuanVideo(),
        "HunyuanSkyreelsImageToVideoPipeline": HunyuanSkyreels(),
        "HunyuanVideoFramepackPipeline": Framepack(),
        "HunyuanVideo15Pipeline": HunyuanVideoText(),
        "HunyuanVideo15ImageToVideoPipeline": HunyuanVideo15(),
    },
    image_inputs={
        "HunyuanVideoImageToVideoPipeline": "channels, frame 0, or with token_replace frame 0; MLLM",
        "HunyuanSkyreelsImageToVideoPipeline": "channels, frame 0",
        "HunyuanVideoFramepackPipeline": "an input of its own; SigLIP",
        "HunyuanVideo15ImageToVideoPipeline": "channels, frame 0; SigLIP",
    },
    training={"HunyuanVideo15ImageToVideoPipeline": HunyuanVideo15Training()},
    models=(
        Model(
            name="hunyuanvideo-i2v",
            pipeline="HunyuanVideoImageToVideoPipeline",
            weights="hunyuanvideo-community/HunyuanVideo-I2V",
            licence="Tencent Hunyuan Community License (not for the EU, the UK and South Korea)",
            parameters="13 B",
            needs="a GPU of 60 GB with --offload",
            dtype="bfloat16",
            size=(720, 1280),
            frames=129,
            fps=24,
            steps=50,
            input="image and prompt",
            start=("start", 0.96),
            tiled=True,
        ),
        Model(
            name="hunyuanvideo",
            pipeline="HunyuanVideoPipeline",
            weights="hunyuanvideo-community/HunyuanVideo",
            licence="Tencent Hunyuan Community License (not for the EU, the UK and South Korea)",
            parameters="13 B",
            needs="a GPU of 60 GB with --offload",
            dtype="bfloat16",
            size=(720, 1280),
            frames=129,
            fps=24,
            steps=50,
            input="prompt",
            start=("start", 0.96),
            tiled=True,
        ),
        Model(
            name="hunyuanvideo-1.5-i2v",
            pipeline="HunyuanVideo15ImageToVideoPipeline",
            weights="hunyuanvideo-community/HunyuanVideo-1.5-Diffusers-480p_i2v",
            licence="Tencent Hunyuan Community License (not for the EU, the UK and South Korea)",
            parameters="8.3 B",
            needs="a GPU of 24 GB with --offload",
            dtype="bfloat16",
            size=(480, 832),
            frames=121,
            fps=24,
            steps=50,
            input="image and prompt",
            start=("start", 0.96),
            tiled=True,
        ),
    ),
)
