"""CogVideoX (Yang et al., https://huggingface.co/papers/2408.06072), and ConsisID, which is based on it."""

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from unstill.data.images import Size
from unstill.data.sources import Sample
from unstill.errors import UnstillError
from unstill.families.base import Family
from unstill.families.model_card import Model
from unstill.families.reference_keys import ReferenceKeys
from unstill.families.training import Encoded, TrainingRole, check_clip_length, check_multiple
from unstill.families.vae_adapters import VideoAdapter


OFS = 2.0  # an input of CogVideoX 1.5, for which its pipeline has this constant


class CogVideoXText(VideoAdapter):
    """Text to video."""

    frames_first = True
    attends = ("transformer",)
    usual_scheduler = ("CogVideoXDDIMScheduler", {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"})

    def reference_keys(self, pipe: Any, network: Any, x: torch.Tensor, shape: torch.Size) -> ReferenceKeys:
        return ReferenceKeys.of_patches(network, x, "before", frame_dim=1)


class CogVideoX(CogVideoXText):
    """The image is frame 0 of a second block of channels, whose other frames are zero."""

    image_latents_from = "prepare_latents"
    denoisers = ("transformer",)

    def image_latents(self, pipe: Any, result: Any, video: torch.Tensor) -> torch.Tensor:
        return result[1][:, :1].transpose(1, 2) * self.condition_scale(pipe)

    def condition_view(self, x: torch.Tensor, channels: int) -> torch.Tensor:
        return x[:, :1, channels:].transpose(1, 2)

    def condition_scale(self, pipe: Any) -> float:
        # invert_scale_latents: the image is divided by the factor that videos are multiplied by
        config = pipe.vae.config
        return config.scaling_factor**2 if config.invert_scale_latents else 1.0


class ConsisID(CogVideoX):
    """Like `CogVideoX`, but the image is scaled as videos are, whatever `invert_scale_latents` says."""

    def condition_scale(self, pipe: Any) -> float:
        return 1.0


class CogVideoXTraining(TrainingRole):
    """
    The image is frame 0 of a second block of channels, a dropped one is zeros. The patches of CogVideoX 1.5 are two
    latent frames long: as in its own training, copies of the first latent frame come before an odd number of them.
    """

    name = "cogvideox"
    denoiser = "transformer"
    has_tokens = False

    def check_clip(self, pipe: Any, frames: int, size: Size) -> None:
        config, space = pipe.transformer.config, pipe.vae_scale_factor_spatial
        check_multiple(pipe, size, space * config.patch_size)
        own = config.sample_height * space, config.sample_width * space
        if config.use_learned_positional_embeddings and size != own:
            raise UnstillError(
                f"data.size is {size[1]}x{size[0]}, but the learned positions of this model are for "
                f"{own[1]}x{own[0]}; give that."
            )
        if config.patch_size_t is not None and (size[0] > own[0] or size[1] > own[1]):
            raise UnstillError(
                f"data.size is {size[1]}x{size[0]}, but this model has positions for at most {own[1]}x{own[0]}; give "
                "less."
            )
        check_clip_length(pipe, frames, pipe.vae_scale_factor_temporal)

    def encode(self, pipe: Any, sample: Sample, latents: Tensor, frame: int) -> Encoded:
        adapter = CogVideoX()
        image = adapter.encode_video(pipe, sample.video[[frame]])[0]  # alone, as the pipeline does
        copies = -latents.shape[1] % (pipe.transformer.config.patch_size_t or 1)
        return {
            "latents": torch.cat([latents[:, :1].expand(-1, copies, -1, -1), latents], 1),
            "image": image / adapter.condition_scale(pipe),
            "text": pipe.encode_prompt([sample.caption], do_classifier_free_guidance=False)[0][0].float(),
        }

    def dropped(self, pipe: Any, like: Encoded) -> Encoded:
        return {"text": pipe.encode_prompt([""], do_classifier_free_guidance=False)[0][0].float()}

    def predict(self, model: Any, noisy: Tensor, timestep: Tensor, given: Encoded, image_noise: Tensor) -> Tensor:
        condition = torch.zeros_like(noisy)
        condition[:, :, :1] = given["image"][:, :, :1].to(noisy)
        x = torch.cat([noisy, condition], 1).transpose(1, 2)
        network = getattr(model, "module", model)  # `module`: of a network wrapped by DDP
        output = model(
            x,
            given["text"].to(noisy),
            timestep.long(),
            ofs=None if network.config.ofs_embed_dim is None else noisy.new_full((1,), OFS),
            image_rotary_emb=_rotary(network, noisy),
            return_dict=False,
        )[0]
        return output.transpose(1, 2)


def _rotary(network: Any, latents: Tensor) -> tuple[Tensor, Tensor] | None:
    """The pipeline's rotary position embeddings, for latents `(B, C, F, h, w)`."""
    from diffusers import CogVideoXImageToVideoPipeline

    if not network.config.use_rotary_positional_embeddings:
        return None
    pipe: Any = SimpleNamespace(vae_scale_factor_spatial=1, transformer=network)  # sizes are those of latents
    frames, height, width = latents.shape[2:]
    return CogVideoXImageToVideoPipeline._prepare_rotary_positional_embeddings(
        pipe, height, width, frames, latents.device
    )


FAMILY = Family(
    adapters={
        "CogVideoXPipeline": CogVideoXText(),
        "CogVideoXImageToVideoPipeline": CogVideoX(),
        "ConsisIDPipeline": ConsisID(),
    },
    image_inputs={
        "CogVideoXImageToVideoPipeline": "channels, frame 0",
        "ConsisIDPipeline": "channels, frame 0; tokens of the face",
    },
    image_modes={"CogVideoXPipeline": nullcontext},
    training={"CogVideoXImageToVideoPipeline": CogVideoXTraining()},
    models=(
        Model(
            name="cogvideox-5b-i2v",
            pipeline="CogVideoXImageToVideoPipeline",
            weights="zai-org/CogVideoX-5b-I2V",
            licence="CogVideoX License",
            parameters="5 B",
            needs="a GPU of 24 GB with --offload",
            dtype="bfloat16",
            size=(480, 720),
            frames=49,
            fps=8,
            steps=50,
            input="image and prompt",
            start=("start", 0.96),
            tiled=True,
        ),
        Model(
            name="cogvideox-2b",
            pipeline="CogVideoXPipeline",
            weights="zai-org/CogVideoX-2b",
            licence="Apache-2.0",
            parameters="1.7 B",
            needs="a GPU of 12 GB with --offload",
            dtype="float16",
            size=(480, 720),
            frames=49,
            fps=8,
            steps=50,
            input="prompt",
            start=("start", 0.96),
            tiled=True,
        ),
    ),
)
