"""DynamiCrafter (Xing et al., https://huggingface.co/papers/2310.12190) and VideoCrafter1, by the same authors."""

from typing import Any

import torch
from torch import Tensor

from unstill.data.sources import Sample
from unstill.families.base import Family
from unstill.families.model_card import Model
from unstill.families.reference_keys import ReferenceKeys
from unstill.families.training import Encoded, TrainingRole
from unstill.families.vae_adapters import FrameAdapter


class DynamiCrafter(FrameAdapter):
    """Image latents are repeated over the frames and concatenated to the channels, with and without guidance."""

    image_latents_from = last_setup_call = "prepare_image_latents"
    denoisers = ("unet",)
    condition_input = "sample"
    attends = ("unet",)
    temporal_attention = "TemporalTransformer"
    usual_scheduler = ("DDIMScheduler", {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"})

    def image_latents(self, pipe: Any, result: Any, video: torch.Tensor) -> torch.Tensor:
        return result[:, :, :1]

    def condition_view(self, x: torch.Tensor, channels: int) -> torch.Tensor:
        return x[:, channels:]

    def reference_keys(self, pipe: Any, network: Any, x: torch.Tensor, shape: torch.Size) -> ReferenceKeys:
        return ReferenceKeys(shape[2], 1, temporal=True)


class DynamiCrafterTraining(TrainingRole):
    """Image latents are never dropped; a dropped image has the tokens of mid-grey."""

    name = "dynamicrafter"
    blank_latents = False

    def encode(self, pipe: Any, sample: Sample, latents: Tensor, frame: int) -> Encoded:
        pixels = (sample.video[[frame]] * 2 - 1).to(pipe._execution_device)
        encoded = {
            "latents": latents,
            "tokens": pipe.encode_image(pixels, len(sample.video))[0].float(),
            "text": pipe.encode_prompt([sample.caption])[0].float(),
            "fps": torch.tensor(sample.fps),
        }
        if pipe.unet.config.in_channels > pipe.unet.config.out_channels:
            encoded["image"] = latents[:, [frame]]
        return encoded

    def dropped(self, pipe: Any, like: Encoded) -> Encoded:
        size = pipe.image_encoder.config.image_size
        grey = torch.zeros(1, 3, size, size, device=pipe._execution_device)
        frames = like["latents"].shape[1]
        return {"text": pipe.encode_prompt([""])[0].float(), "tokens": pipe.encode_image(grey, frames)[0].float()}

    def predict(self, model: Any, noisy: Tensor, timestep: Tensor, given: Encoded, image_noise: Tensor) -> Tensor:
        if "image" in given:
            image = given["image"].expand(-1, -1, noisy.shape[2], -1, -1)
            noisy = torch.cat([noisy, image.to(noisy)], 1)
        context = torch.cat([given["text"], given["tokens"]], 1).to(noisy)
        return model(noisy, timestep.long(), context, given["fps"], return_dict=False)[0]


class VideoCrafterTraining(DynamiCrafterTraining):
    """The image conditions the network only by its tokens."""

    name = "videocrafter"
    has_latents = False


FAMILY = Family(
    adapters={
        "DynamiCrafterPipeline": DynamiCrafter(),
        "VideoCrafterPipeline": FrameAdapter(),  # the image conditions it only by tokens
    },
    image_inputs={
        "DynamiCrafterPipeline": "channels, every frame; tokens",
        "VideoCrafterPipeline": "tokens",
    },
    training={
        "DynamiCrafterPipeline": DynamiCrafterTraining(),
        "VideoCrafterPipeline": VideoCrafterTraining(),
    },
    models=(
        Model(
            name="dynamicrafter-256",
            pipeline="DynamiCrafterPipeline",
            weights="Doubiiu/DynamiCrafter",
            file="model.ckpt",
            licence="research, non-commercial (their repository)",
            parameters="1.4 B",
            needs="a GPU of 12 GB",
            dtype="float16",
            size=(256, 256),
            frames=16,
            max_frames=16,
            fps=8,
            steps=50,
            input="image and prompt",
            start=("start", 0.96),
        ),
        Model(
            name="dynamicrafter-512",
            pipeline="DynamiCrafterPipeline",
            weights="Doubiiu/DynamiCrafter_512",
            file="model.ckpt",
            licence="research, non-commercial (their repository)",
            parameters="1.4 B",
            needs="a GPU of 16 GB",
            dtype="float16",
            size=(320, 512),
            frames=16,
            max_frames=16,
            fps=8,
            steps=50,
            input="image and prompt",
            start=("start", 0.96),
        ),
        Model(
            name="dynamicrafter-1024",
            pipeline="DynamiCrafterPipeline",
            weights="Doubiiu/DynamiCrafter_1024",
            file="model.ckpt",
            licence="research, non-commercial (their repository)",
            parameters="1.4 B",
            needs="a GPU of 24 GB",
            dtype="float16",
            size=(576, 1024),
            frames=16,
            max_frames=16,
            fps=8,
            steps=50,
            input="image and prompt",
            start=("start", 0.96),
        ),
        Model(
            name="videocrafter-512",
            pipeline="VideoCrafterPipeline",
            weights="VideoCrafter/Image2Video-512",
            file="model.ckpt",
            licence="research, non-commercial (their repository)",
            parameters="1.4 B",
            needs="a GPU of 16 GB",
            dtype="float16",
            size=(320, 512),
            frames=16,
            fps=8,
            steps=50,
            input="image and prompt",
            start=("start", 0.96),
        ),
    ),
    module="unstill.models.dynamicrafter",
)
