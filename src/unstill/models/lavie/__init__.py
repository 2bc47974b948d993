"""LaVie's text-to-video."""

from unstill.models.lavie.pipeline import LaViePipeline
from unstill.models.lavie.unet import LaVieUNet


__all__ = ["LaViePipeline", "LaVieUNet"]
