"""DynamiCrafter and VideoCrafter1's image-to-video: one U-Net, two pipelines."""

from unstill.models.dynamicrafter.pipeline import DynamiCrafterPipeline
from unstill.models.dynamicrafter.resampler import ImageResampler
from unstill.models.dynamicrafter.scheduler import DynamiCrafterScheduler
from unstill.models.dynamicrafter.unet import DynamiCrafterUNet
from unstill.models.dynamicrafter.videocrafter import VideoCrafterPipeline


__all__ = [
    "DynamiCrafterPipeline",
    "DynamiCrafterScheduler",
    "DynamiCrafterUNet",
    "ImageResampler",
    "VideoCrafterPipeline",
]
