"""The scheduler configurations that process, grid and oracle tests run over."""

from collections.abc import Callable
from typing import Any, NamedTuple

import diffusers
from diffusers.utils import is_scipy_available


LATENT_VP: dict[str, Any] = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
ZERO_SNR: dict[str, Any] = {
    **LATENT_VP,
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "timestep_spacing": "trailing",
}
SVD: dict[str, Any] = {
    **LATENT_VP,
    "prediction_type": "v_prediction",
    "timestep_type": "continuous",
    "timestep_spacing": "leading",
    "interpolation_type": "linear",
    "use_karras_sigmas": True,
    "sigma_min": 0.002,
    "sigma_max": 700.0,
    "steps_offset": 1,
}
FLOW: dict[str, Any] = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
LTX: dict[str, Any] = {
    "use_dynamic_shifting": True,
    "base_shift": 0.95,
    "max_shift": 2.05,
    "base_image_seq_len": 1024,
    "max_image_seq_len": 4096,
    "shift_terminal": 0.1,
}
# What the Cosmos 2 pipeline writes into the configuration of its scheduler, which has no such arguments.
COSMOS2: dict[str, Any] = {"sigma_max": 80.0, "sigma_min": 0.002, "sigma_data": 1.0, "final_sigmas_type": "sigma_min"}
# The clipping that diffusers switches on by default is for pixels; latent-video configurations switch it off.
NO_CLIP: dict[str, Any] = {"clip_sample": False}


class Case(NamedTuple):
    cls: str
    kind: str
    config: dict[str, Any]
    schedule: dict[str, Any] = {}  # more arguments of set_timesteps
    registered: dict[str, Any] = {}  # written into the configuration afterwards

    def build(self, steps: int = 10) -> Any:
        scheduler = self.fresh()
        scheduler.set_timesteps(steps, **self.schedule)
        return scheduler

    def fresh(self) -> Any:
        factory: Callable[..., Any] = getattr(diffusers, self.cls)
        scheduler = factory(**self.config)
        scheduler.register_to_config(**self.registered)
        return scheduler


CASES: dict[str, Case] = {
    "ddim": Case("DDIMScheduler", "vp", LATENT_VP | NO_CLIP),
    "ddim-offset": Case("DDIMScheduler", "vp", LATENT_VP | NO_CLIP | {"steps_offset": 1, "set_alpha_to_one": False}),
    "ddim-linspace": Case("DDIMScheduler", "vp", LATENT_VP | NO_CLIP | {"timestep_spacing": "linspace"}),
    "ddim-trailing": Case("DDIMScheduler", "vp", LATENT_VP | NO_CLIP | {"timestep_spacing": "trailing"}),
    "ddim-v-zsnr": Case("DDIMScheduler", "vp", ZERO_SNR | NO_CLIP),
    "ddim-sample": Case("DDIMScheduler", "vp", LATENT_VP | NO_CLIP | {"prediction_type": "sample"}),
    "ddim-parallel": Case("DDIMParallelScheduler", "vp", LATENT_VP | NO_CLIP),
    "ddpm": Case("DDPMScheduler", "vp", LATENT_VP | NO_CLIP),
    "ddpm-trailing": Case("DDPMScheduler", "vp", LATENT_VP | NO_CLIP | {"timestep_spacing": "trailing"}),
    "pndm": Case("PNDMScheduler", "vp", LATENT_VP | {"skip_prk_steps": True, "set_alpha_to_one": True}),
    "pndm-v": Case(
        "PNDMScheduler",
        "vp",
        LATENT_VP | {"skip_prk_steps": True, "set_alpha_to_one": True, "prediction_type": "v_prediction"},
    ),
    "lcm": Case("LCMScheduler", "vp", LATENT_VP),
    "tcd": Case("TCDScheduler", "vp", LATENT_VP),
    "cogvideox-ddim": Case("CogVideoXDDIMScheduler", "vp", ZERO_SNR | NO_CLIP | {"snr_shift_scale": 3.0}),
    "cogvideox-dpm": Case("CogVideoXDPMScheduler", "vp", ZERO_SNR | NO_CLIP | {"snr_shift_scale": 1.0}),
    "dpm++": Case("DPMSolverMultistepScheduler", "vp_sigma", LATENT_VP),
    "dpm++karras-v": Case(
        "DPMSolverMultistepScheduler",
        "vp_sigma",
        LATENT_VP | {"use_karras_sigmas": True, "prediction_type": "v_prediction"},
    ),
    "dpm++sde": Case("DPMSolverMultistepScheduler", "vp_sigma", LATENT_VP | {"algorithm_type": "sde-dpmsolver++"}),
    "dpm++zsnr": Case("DPMSolverMultistepScheduler", "vp_sigma", ZERO_SNR),
    "dpm++lu": Case("DPMSolverMultistepScheduler", "vp_sigma", LATENT_VP | {"use_lu_lambdas": True}),
    "dpm++single": Case("DPMSolverSinglestepScheduler", "vp_sigma", LATENT_VP | {"lower_order_final": True}),
    "deis": Case("DEISMultistepScheduler", "vp_sigma", LATENT_VP),
    "unipc": Case("UniPCMultistepScheduler", "vp_sigma", LATENT_VP),
    "unipc-exponential": Case("UniPCMultistepScheduler", "vp_sigma", LATENT_VP | {"use_exponential_sigmas": True}),
    "unipc-zsnr": Case("UniPCMultistepScheduler", "vp_sigma", ZERO_SNR),
    "sasolver": Case("SASolverScheduler", "vp_sigma", LATENT_VP),
    "euler": Case("EulerDiscreteScheduler", "ve", LATENT_VP),
    "euler-trailing": Case("EulerDiscreteScheduler", "ve", LATENT_VP | {"timestep_spacing": "trailing"}),
    "euler-karras-v": Case(
        "EulerDiscreteScheduler", "ve", LATENT_VP | {"use_karras_sigmas": True, "prediction_type": "v_prediction"}
    ),
    "euler-sample": Case("EulerDiscreteScheduler", "ve", LATENT_VP | {"prediction_type": "sample"}),
    "euler-svd": Case("EulerDiscreteScheduler", "ve", SVD),
    "euler-ancestral": Case("EulerAncestralDiscreteScheduler", "ve", LATENT_VP),
    "heun": Case("HeunDiscreteScheduler", "ve", LATENT_VP),
    "heun-karras": Case("HeunDiscreteScheduler", "ve", LATENT_VP | {"use_karras_sigmas": True}),
    "kdpm2": Case("KDPM2DiscreteScheduler", "ve", LATENT_VP),
    "kdpm2-ancestral": Case("KDPM2AncestralDiscreteScheduler", "ve", LATENT_VP),
    "edm": Case("EDMEulerScheduler", "edm", {"prediction_type": "epsilon"}),
    "edm-v": Case("EDMEulerScheduler", "edm", {"prediction_type": "v_prediction", "sigma_data": 1.0}),
    "edm-exponential": Case("EDMEulerScheduler", "edm", {"sigma_schedule": "exponential"}),
    "edm-dpm++": Case("EDMDPMSolverMultistepScheduler", "edm", {}),
    "flow": Case("FlowMatchEulerDiscreteScheduler", "flow", {"shift": 5.0}),
    "flow-ltx": Case("FlowMatchEulerDiscreteScheduler", "flow", LTX, {"mu": 1.2}),
    "flow-karras": Case("FlowMatchEulerDiscreteScheduler", "flow", {"use_karras_sigmas": True, "shift": 3.0}),
    "flow-heun": Case("FlowMatchHeunDiscreteScheduler", "flow", {"shift": 3.0}),
    "flow-lcm": Case("FlowMatchLCMScheduler", "flow", {"shift": 3.0}),
    "flow-ltx-rf": Case("LTXEulerAncestralRFScheduler", "flow", {}, {}, {"shift": 3.0}),
    "cosmos2": Case("FlowMatchEulerDiscreteScheduler", "ve", {"use_karras_sigmas": True}, {}, COSMOS2),
    "unipc-flow": Case("UniPCMultistepScheduler", "flow", FLOW),
    "dpm++flow": Case("DPMSolverMultistepScheduler", "flow", FLOW),
    "dpm++single-flow": Case("DPMSolverSinglestepScheduler", "flow", FLOW | {"lower_order_final": True}),
    "deis-flow": Case("DEISMultistepScheduler", "flow", FLOW),
    "sasolver-flow": Case("SASolverScheduler", "flow", FLOW),
}
if is_scipy_available():  # an optional dependency of diffusers
    CASES |= {
        "lms": Case("LMSDiscreteScheduler", "ve", LATENT_VP),
        "euler-beta": Case("EulerDiscreteScheduler", "ve", LATENT_VP | {"use_beta_sigmas": True}),
        "flow-beta": Case("FlowMatchEulerDiscreteScheduler", "flow", {"use_beta_sigmas": True}),
    }
