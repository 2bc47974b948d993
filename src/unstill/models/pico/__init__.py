"""pico: a small image-to-video diffusion model that comes with the package, trained on the synthetic world."""

from unstill.models.pico.autoencoder import PicoAutoencoder
from unstill.models.pico.pipeline import PicoPipeline, edm_scheduler, motion_bucket, vp_scheduler
from unstill.models.pico.unet import PicoUNet


__all__ = ["PicoAutoencoder", "PicoPipeline", "PicoUNet", "edm_scheduler", "motion_bucket", "vp_scheduler"]
