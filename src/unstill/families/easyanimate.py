"""EasyAnimate (Xu et al., https://huggingface.co/papers/2405.18991)."""

from typing import Any

from unstill.families.base import Family, VideoAdapter


class EasyAnimate(VideoAdapter):
    """Text to video."""

    def compression(self, pipe: Any) -> tuple[int, int]:
        return pipe.vae_spatial_compression_ratio, pipe.vae_temporal_compression_ratio


FAMILY = Family(adapters={"EasyAnimatePipeline": EasyAnimate()})
