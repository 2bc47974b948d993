"""Schedulers for pico: its default, and those of the larger models that are sampled in other coordinates."""

from diffusers import DDIMScheduler, EDMDPMSolverMultistepScheduler, EulerDiscreteScheduler


SIGMA_MAX, SIGMA_MIN = 200.0, 0.02


def edm_scheduler() -> EDMDPMSolverMultistepScheduler:
    """
    The default: DPM-Solver++(2M) in the coordinates of EDM, Karras levels from 200 to 0.02, v-prediction.

    With `sigma_data` 1, EDM's preconditioning is v-prediction on x / sqrt(1 + sigma^2).
    """
    return EDMDPMSolverMultistepScheduler(
        sigma_min=SIGMA_MIN, sigma_max=SIGMA_MAX, sigma_data=1.0, prediction_type="v_prediction"
    )


def euler_scheduler() -> EulerDiscreteScheduler:
    """The scheduler of Stable Video Diffusion, Euler, on the same levels; it needs about twice the steps."""
    return EulerDiscreteScheduler(
        prediction_type="v_prediction",
        timestep_type="continuous",
        timestep_spacing="leading",
        use_karras_sigmas=True,
        sigma_min=SIGMA_MIN,
        sigma_max=SIGMA_MAX,
    )


def vp_scheduler() -> DDIMScheduler:
    """The variance-preserving scheduler of DynamiCrafter; in these coordinates the network predicts v, too."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        clip_sample=False,
    )
