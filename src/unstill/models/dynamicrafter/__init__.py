"""DynamiCrafter and VideoCrafter1's image-to-video: one U-Net, two pipelines."""

from unstill.models.dynamicrafter.resampler import ImageResampler
from unstill.models.dynamicrafter.unet import DynamiCrafterUNet


__all__ = ["DynamiCrafterUNet", "ImageResampler"]
