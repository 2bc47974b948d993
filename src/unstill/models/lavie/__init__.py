"""LaVie's text-to-video."""

from unstill.models.lavie.unet import LaVieUNet


__all__ = ["LaVieUNet"]
