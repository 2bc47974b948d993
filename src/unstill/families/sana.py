"""Sana Video (https://huggingface.co/papers/2509.24695)."""

from unstill.families.base import Family, FirstFrameAdapter, VideoAdapter


FAMILY = Family(
    adapters={
        "SanaVideoPipeline": VideoAdapter(),
        "SanaImageToVideoPipeline": FirstFrameAdapter(),
    },
)
