"""A pipeline reduced to its skeleton, with a formula in place of the network, to check methods number by number."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import diffusers
import torch

from unstill.hooks import Adapter


class Output(NamedTuple):
    frames: torch.Tensor


class Sampler:
    """
    Calls `network(x, t)` with the sample itself, `(B, C, F, H, W)`; latents are never decoded. `noises` are what it
    draws for its calls, one after the other; without them it draws from the generator.
    """

    def __init__(
        self,
        scheduler: Any,
        network: Callable[[torch.Tensor, float], torch.Tensor],
        image_latents: torch.Tensor,
        noises: Iterator[torch.Tensor] | None = None,
        frames: int = 8,
    ) -> None:
        self.scheduler = scheduler
        self.network = network
        self.image_latents = image_latents
        self.noises = noises
        self.frames = frames
        self.visited: list[torch.Tensor] = []

    @property
    def components(self) -> dict[str, Any]:
        """As of a pipeline; the network is a formula, and none of them."""
        return {"scheduler": self.scheduler}

    def encode_image(self) -> torch.Tensor:
        return self.image_latents

    def prepare_latents(self, latents: torch.Tensor | None, generator: Any) -> torch.Tensor:
        if latents is None and self.noises is not None:
            latents = next(self.noises)
        if latents is None:
            batch, channels, _, *size = self.image_latents.shape
            latents = torch.randn(batch, channels, self.frames, *size, generator=generator)
        return latents * getattr(self.scheduler, "init_noise_sigma", 1.0)

    def __call__(
        self,
        num_inference_steps: int = 25,
        latents: torch.Tensor | None = None,
        generator: torch.Generator | None = None,
        output_type: str = "latent",
        **schedule: Any,
    ) -> Output:
        self.visited = []
        self.scheduler.set_timesteps(**(schedule or {"num_inference_steps": num_inference_steps}))
        self.encode_image()
        x = self.prepare_latents(latents, generator)
        for t in self.scheduler.timesteps:
            self.visited.append(x)
            if hasattr(self.scheduler, "scale_model_input"):
                self.scheduler.scale_model_input(x, t)
            x = self.scheduler.step(self.network(x, t.item()), t, x, return_dict=False)[0]
        self.visited.append(x)
        return Output(x)


class SamplerAdapter(Adapter):
    image_latents_from = "encode_image"
    denoisers = ()

    def image_latents(self, pipe: Any, result: Any, video: torch.Tensor) -> torch.Tensor:
        return result


def animatediff_ddim(**config: Any) -> Any:
    """The "AnimateDiff DDIM" of the golden data."""
    linear = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "linear", "steps_offset": 1}
    return diffusers.DDIMScheduler(**linear, clip_sample=False, **config)


def network_c(z: torch.Tensor, t: float, guidance: float) -> torch.Tensor:
    """Network C of the golden data, guided."""
    m = 0.6 * z + 0.2 * z.mean(2, keepdim=True) + 0.1 * z.roll(1, 2) + 0.06 * z.roll(1, 4) + 0.04 * z.roll(1, 1)
    prompt = torch.tensor([0.3, -0.2, 0.1, 0.4]).view(1, 4, 1, 1, 1)
    eps = 0.9 * m + 0.1 * torch.tanh(2 * m) + 0.02 * torch.sin(torch.tensor(t / 50))
    return eps + guidance * 0.05 * prompt
