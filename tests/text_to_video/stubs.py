"""Real pipelines around components that are formulas: what the golden data of I4VGen was made with."""

from types import SimpleNamespace
from typing import Any

import diffusers
import torch
from diffusers.configuration_utils import FrozenDict

from tests.methods.sampler import animatediff_ddim
from unstill.models.lavie import LaViePipeline


PROMPT = torch.tensor([0.3, -0.2, 0.1, 0.4]).expand(1, 77, 4)
CALL = {
    "height": 64,
    "width": 64,
    "num_frames": 8,
    "prompt_embeds": PROMPT,
    "negative_prompt_embeds": torch.zeros(1, 77, 4),
}


class Network(torch.nn.Module):
    """Network C of the golden data, without guidance. It counts the calls, and the pictures in them."""

    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self) -> None:
        super().__init__()
        self.config = FrozenDict(
            in_channels=4, out_channels=4, sample_size=(8, 8), block_out_channels=(4,), time_cond_proj_dim=None
        )
        self.calls: list[tuple[int, int]] = []

    def forward(
        self, sample: torch.Tensor, t: Any, encoder_hidden_states: torch.Tensor, return_dict: bool = True, **_: Any
    ) -> Any:
        z = sample[:, :, None] if sample.ndim == 4 else sample
        self.calls.append((len(z), z.shape[2]))
        rows = encoder_hidden_states.mean(1)[:: len(encoder_hidden_states) // len(z)]
        m = 0.6 * z + 0.2 * z.mean(2, keepdim=True) + 0.1 * z.roll(1, 2) + 0.06 * z.roll(1, 4) + 0.04 * z.roll(1, 1)
        eps = 0.9 * m + 0.1 * torch.tanh(2 * m) + 0.02 * torch.sin(torch.as_tensor(t) / 50)
        eps = (eps + 0.05 * rows[:, :, None, None, None]).reshape(sample.shape)
        return SimpleNamespace(sample=eps) if return_dict else (eps,)


class Decoder(torch.nn.Module):
    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self) -> None:
        super().__init__()
        self.config = FrozenDict(scaling_factor=0.18215, block_out_channels=(4,) * 4, latent_channels=4)

    def decode(self, latents: torch.Tensor) -> Any:
        return SimpleNamespace(sample=torch.tanh(latents[:, :3] * 0.18215))


def animatediff() -> Any:
    parts = {"text_encoder": None, "tokenizer": None, "motion_adapter": None}
    return _quiet(diffusers.AnimateDiffPipeline(vae=Decoder(), unet=Network(), scheduler=animatediff_ddim(), **parts))


def lavie() -> Any:
    scheduler = diffusers.DDPMScheduler(
        beta_start=0.0001, beta_end=0.02, clip_sample=False, timestep_spacing="leading"
    )
    return _quiet(LaViePipeline(vae=Decoder(), unet=Network(), text_encoder=None, tokenizer=None, scheduler=scheduler))


def _quiet(pipe: Any) -> Any:
    pipe.set_progress_bar_config(disable=True)
    return pipe


def reward(prompt: str, images: Any) -> list[float]:
    """That of the golden data."""
    pixels = [torch.tensor(image.get_flattened_data(), dtype=torch.float64) / 255 for image in images]
    return [float(one[:, 0].mean() - 0.5 * one[:, 1].mean()) for one in pixels]
