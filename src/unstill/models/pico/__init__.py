"""pico: a small image-to-video diffusion model that comes with the package, trained on the synthetic world."""

from unstill.models.pico.autoencoder import PicoAutoencoder
from unstill.models.pico.pipeline import PicoPipeline, motion_bucket
from unstill.models.pico.schedulers import edm_scheduler, euler_scheduler, vp_scheduler
from unstill.models.pico.transformer import PicoTransformer


__all__ = [
    "PicoAutoencoder",
    "PicoPipeline",
    "PicoTransformer",
    "edm_scheduler",
    "euler_scheduler",
    "motion_bucket",
    "vp_scheduler",
]
