"""
Makes image-to-video diffusion move, and stay true to the image: published methods on unmodified diffusers pipelines.

The public names are imported when they are first used, so that `import unstill` costs next to nothing.
"""

from typing import TYPE_CHECKING


__version__ = "0.1.0"

if TYPE_CHECKING:
    from unstill import data as data
    from unstill import families as families
    from unstill import forward_process as forward_process
    from unstill import hooks as hooks
    from unstill import lab as lab
    from unstill import latent_statistics as latent_statistics
    from unstill import methods as methods
    from unstill import metrics as metrics
    from unstill import models as models
    from unstill import text_to_video as text_to_video
    from unstill import training as training
    from unstill.animation import animate as animate
    from unstill.animation_batch import animate_all as animate_all
    from unstill.animation_result import Animation as Animation
    from unstill.errors import UnstillError as UnstillError
    from unstill.forward_process import ForwardProcess as ForwardProcess
    from unstill.hooks.apply import apply as apply
    from unstill.hooks.free_init import free_init as free_init
    from unstill.lab.comparison import compare as compare
    from unstill.lab.diagnosis import diagnose as diagnose
    from unstill.lab.verification import verify as verify
    from unstill.latent_statistics import LatentStatistics as LatentStatistics
    from unstill.methods.analytic_init import AnalyticInit as AnalyticInit
    from unstill.methods.base import Method as Method
    from unstill.methods.condition_amplitude import ConditionAmplitude as ConditionAmplitude
    from unstill.methods.conditioning_augmentation import ConditioningAugmentation as ConditioningAugmentation
    from unstill.methods.early_start import EarlyStart as EarlyStart
    from unstill.methods.frame_init import FrameInit as FrameInit
    from unstill.methods.free_init import FreeInit as FreeInit
    from unstill.methods.image_guidance import ImageGuidance as ImageGuidance
    from unstill.methods.image_start import ImageStart as ImageStart
    from unstill.methods.low_pass_guidance import LowPassGuidance as LowPassGuidance
    from unstill.methods.ni_vsds import NIVSDS as NIVSDS
    from unstill.methods.noise_rectification import NoiseRectification as NoiseRectification
    from unstill.methods.predict_and_perturb import PredictAndPerturb as PredictAndPerturb
    from unstill.methods.prediction_and_residual import PredictionAndResidual as PredictionAndResidual
    from unstill.methods.progressive_noise import ProgressiveNoise as ProgressiveNoise
    from unstill.methods.recompress_image import RecompressImage as RecompressImage
    from unstill.methods.reference_bias import ReferenceBias as ReferenceBias
    from unstill.methods.time_noise import TimeNoise as TimeNoise
    from unstill.metrics.evaluate import evaluate as evaluate
    from unstill.models.registry import load as load
    from unstill.text_to_video.pipeline import i4vgen as i4vgen
else:
    from unstill._lazy import lazy_exports

    def _added_method(name):
        """A method class that is not listed above: one whose file was added to `unstill.methods`."""
        from unstill.methods.registry import method_classes

        return next((cls for cls in method_classes().values() if cls.__name__ == name), None)

    __all__, __getattr__, __dir__ = lazy_exports(__name__, fallback=_added_method)
    __all__ += ["__version__"]
