"""
Makes image-to-video diffusion move, and stay true to the image: published methods on unmodified diffusers pipelines.

The public names are imported when they are first used, so that `import unstill` costs next to nothing.
"""

from importlib import import_module
from typing import Any


__version__ = "0.1.0"

_HOMES = {
    "Animation": "animation_result",
    "AnalyticInit": "methods.analytic_init",
    "ConditioningAugmentation": "methods.conditioning_augmentation",
    "EarlyStart": "methods.early_start",
    "ForwardProcess": "forward_process",
    "FrameInit": "methods.frame_init",
    "FreeInit": "methods.free_init",
    "ImageStart": "methods.image_start",
    "LatentStatistics": "latent_statistics",
    "Method": "methods.base",
    "NIVSDS": "methods.ni_vsds",
    "NoiseRectification": "methods.noise_rectification",
    "ProgressiveNoise": "methods.progressive_noise",
    "TimeNoise": "methods.time_noise",
    "UnstillError": "errors",
    "animate": "animation",
    "apply": "hooks",
    "compare": "lab.comparison",
    "diagnose": "lab.diagnosis",
    "evaluate": "metrics.evaluate",
    "free_init": "hooks",
    "i4vgen": "text_to_video.pipeline",
    "load": "models.registry",
}
_MODULES = (
    "data",
    "forward_process",
    "hooks",
    "lab",
    "latent_statistics",
    "methods",
    "metrics",
    "models",
    "text_to_video",
    "training",
)

__all__ = ["__version__", *_HOMES, *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    elif name in _MODULES:
        value = import_module(f".{name}", __name__)
    elif name[:1].isupper() and (method := _method(name)) is not None:
        return method
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def _method(name: str) -> Any:
    """A method class that is not listed above: one whose file was added to `unstill.methods`."""
    from unstill.methods.registry import method_classes

    return next((cls for cls in method_classes().values() if cls.__name__ == name), None)


def __dir__() -> list[str]:
    return sorted(__all__)
