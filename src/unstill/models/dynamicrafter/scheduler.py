"""The scheduler of DynamiCrafter and VideoCrafter1: DDIM with the rescaling of videos used in their training."""

from typing import Literal

import torch
from diffusers import DDIMScheduler, SchedulerMixin  # noqa: F401  (diffusers loads the classes of this module by it)
from diffusers.configuration_utils import register_to_config
from diffusers.schedulers.scheduling_ddim import DDIMSchedulerOutput
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor


class DynamiCrafterScheduler(DDIMScheduler):
    """
    DDIM with dynamic rescale: training noised s(t) x0, where s falls from 1 to `rescale` over the first
    `rescale_steps` training steps, so that x0 is multiplied by s(next t) / s(t) in every step.

    It steps exactly to the next of its `timesteps`, whatever their spacing, and ends at the first level of training.

    Args:
        rescale: 0.7 for DynamiCrafter 512 and VideoCrafter1, 0.3 for DynamiCrafter 1024, 1 (none) for 256.
        rescale_last: whether the last step leads to s = 1, as VideoCrafter's sampler does; DynamiCrafter's stays at
            s of the last timestep.
    """

    @register_to_config
    def __init__(
        self,
        num_train_timesteps: int = 1000,
        beta_start: float = 0.00085,
        beta_end: float = 0.012,
        beta_schedule: str = "scaled_linear",
        prediction_type: Literal["epsilon", "v_prediction"] = "v_prediction",
        timestep_spacing: Literal["leading", "trailing", "linspace"] = "trailing",
        steps_offset: int = 0,
        rescale_betas_zero_snr: bool = True,
        rescale: float = 0.7,
        rescale_steps: int = 400,
        rescale_last: bool = False,
    ) -> None:
        super().__init__(
            num_train_timesteps=num_train_timesteps,
            beta_start=beta_start,
            beta_end=beta_end,
            beta_schedule=beta_schedule,
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=steps_offset,
            prediction_type=prediction_type,
            timestep_spacing=timestep_spacing,
            rescale_betas_zero_snr=rescale_betas_zero_snr,
        )
        self._seen: Tensor | None = None
        self._following: dict[int, int] = {}

    def scale(self, t: int) -> float:
        """s(t)."""
        last = self.config.rescale_steps - 1
        return 1 + (self.config.rescale - 1) * min(t, last) / last

    def step(
        self,
        model_output: Tensor,
        timestep: int | Tensor,
        sample: Tensor,
        eta: float = 0.0,
        use_clipped_model_output: bool = False,
        generator: torch.Generator | None = None,
        variance_noise: Tensor | None = None,
        return_dict: bool = True,
    ) -> DDIMSchedulerOutput | tuple[Tensor, Tensor]:
        """As in `DDIMScheduler`; `pred_original_sample` is rescaled already. Float32 inside."""
        t = int(timestep)
        after = self._next(t)
        abar, abar_after = self.alphas_cumprod[t].item(), self.alphas_cumprod[max(after, 0)].item()
        output, x = model_output.float(), sample.float()
        if self.config.prediction_type == "v_prediction":
            x0 = abar**0.5 * x - (1 - abar) ** 0.5 * output
            eps = abar**0.5 * output + (1 - abar) ** 0.5 * x
        else:
            x0 = (x - (1 - abar) ** 0.5 * output) / abar**0.5
            eps = output
        if after >= 0:
            x0 = x0 * (self.scale(after) / self.scale(t))
        elif self.config.rescale_last:
            x0 = x0 / self.scale(t)

        std = eta * ((1 - abar_after) / (1 - abar) * (1 - abar / abar_after)) ** 0.5
        previous = abar_after**0.5 * x0 + (1 - abar_after - std**2) ** 0.5 * eps
        if eta:
            if variance_noise is None:
                variance_noise = randn_tensor(x.shape, generator=generator, device=x.device, dtype=sample.dtype)
            previous = previous + std * variance_noise
        previous, x0 = previous.to(sample.dtype), x0.to(sample.dtype)
        return DDIMSchedulerOutput(previous, x0) if return_dict else (previous, x0)

    def _next(self, t: int) -> int:
        """The timestep after `t`, -1 after the last one. The list is read back from the device when it changes."""
        if self._seen is not self.timesteps:
            self._seen = self.timesteps
            visited = self.timesteps.tolist()
            self._following = dict(zip(visited, [*visited[1:], -1], strict=True))
        return self._following[t]
