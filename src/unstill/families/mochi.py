"""Mochi 1 (https://huggingface.co/genmo/mochi-1-preview)."""

from typing import Any

from unstill.families.base import Family
from unstill.families.vae_adapters import VideoAdapter


class Mochi(VideoAdapter):
    """
    Text to video. The network predicts x0 - eps and counts time from noise (0) to data (1), and so does the scheduler.
    Its levels are linear-quadratic ones, which the pipeline gives the scheduler (`sigma_schedule.linear_quadratic`).
    """

    last_setup_call = "set_timesteps"
    inverted = True
    usual_scheduler = ("FlowMatchEulerDiscreteScheduler", {"invert_sigmas": True})

    def compression(self, pipe: Any) -> tuple[int, int]:
        return pipe.vae_spatial_scale_factor, pipe.vae_temporal_scale_factor


FAMILY = Family(adapters={"MochiPipeline": Mochi()})
