"""Pipelines of diffusers whose families have no file here, and on which no method works."""

from unstill.families.base import Family


FAMILY = Family(
    unsupported={
        "AllegroPipeline": (
            "counts the frames of its autoencoder in another way; use WanPipeline or CogVideoXPipeline."
        ),
        "MochiPipeline": "counts its noise levels upwards; use WanPipeline or HunyuanVideoPipeline.",
        "ModularPipeline": (
            "is made of blocks that methods do not know: they know those of WanModularPipeline, Wan22ModularPipeline, "
            "WanImage2VideoModularPipeline and Wan22Image2VideoModularPipeline; use one of these, or a supported "
            "pipeline that is not modular (docs/pipelines.md)."
        ),
    },
)
