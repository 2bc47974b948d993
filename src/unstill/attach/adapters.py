"""Which adapter belongs to which pipeline class: one row each."""

from typing import Any

from unstill.attach.adapter import Adapter, FrameAdapter
from unstill.attach.frame_adapters import PIA, DynamiCrafter, FoldedFrames, I2VGenXL, Pico, StableVideoDiffusion
from unstill.attach.video_adapters import (
    LTX,
    LTX2,
    CogVideoX,
    CogVideoXText,
    Cosmos,
    Cosmos1,
    Cosmos25,
    HeldFrame,
    HunyuanVideo,
    HunyuanVideo15,
    ModularWan,
    ModularWanText,
    Wan,
    WanText,
)
from unstill.errors import UnstillError


ADAPTERS: dict[str, Adapter] = {
    "AnimateDiffControlNetPipeline": FrameAdapter(),
    "AnimateDiffPAGPipeline": FrameAdapter(),
    "AnimateDiffPipeline": FrameAdapter(),
    "AnimateDiffSDXLPipeline": FrameAdapter(),
    "AnimateDiffSparseControlNetPipeline": FrameAdapter(),
    "CogVideoXImageToVideoPipeline": CogVideoX(),
    "CogVideoXPipeline": CogVideoXText(),
    "Cosmos2VideoToWorldPipeline": Cosmos(),
    "Cosmos2_5_PredictBasePipeline": Cosmos25(),
    "CosmosVideoToWorldPipeline": Cosmos1(),
    "DynamiCrafterPipeline": DynamiCrafter(),
    "HunyuanVideo15ImageToVideoPipeline": HunyuanVideo15(),
    "HunyuanVideoImageToVideoPipeline": HunyuanVideo(),
    "I2VGenXLPipeline": I2VGenXL(),
    "LaViePipeline": FrameAdapter(),
    "LTX2ImageToVideoPipeline": LTX2(),
    "LTXImageToVideoPipeline": LTX(),
    "PIAPipeline": PIA(),
    "PicoPipeline": Pico(),
    "SanaImageToVideoPipeline": HeldFrame(),
    "SkyReelsV2ImageToVideoPipeline": Wan(),
    "StableVideoDiffusionPipeline": StableVideoDiffusion(),
    "TextToVideoSDPipeline": FoldedFrames(),
    "VideoCrafterPipeline": FrameAdapter(),  # it sees its image as tokens only
    "Wan22Image2VideoModularPipeline": ModularWan(),
    "Wan22ModularPipeline": ModularWanText(),
    "WanImage2VideoModularPipeline": ModularWan(),
    "WanImageToVideoPipeline": Wan(),
    "WanModularPipeline": ModularWanText(),
    "WanPipeline": WanText(),
}

# Pipelines, and base classes of them, on which no method works.
UNSUPPORTED: dict[str, str] = {
    "ModularPipeline": (
        "is made of blocks that methods do not know (they know those of Wan); build the pipeline of the same name "
        "without Modular, such as LTXImageToVideoPipeline, from its components."
    ),
    "SkyReelsV2DiffusionForcingImageToVideoPipeline": (
        "samples every latent frame with a scheduler of its own, and methods act on whole videos; use "
        "SkyReelsV2ImageToVideoPipeline."
    ),
    "Wan22VaceModularPipeline": "shows its image to a network of its own; use Wan22Image2VideoModularPipeline.",
}


def adapter_for(pipe: Any) -> Adapter:
    """The adapter of the pipeline's class, or of the nearest one it inherits from; without one `UnstillError`."""
    for cls in type(pipe).__mro__:
        if cls.__name__ in ADAPTERS:
            return ADAPTERS[cls.__name__]
        if cls.__name__ in UNSUPPORTED:
            raise UnstillError(f"{type(pipe).__name__} {UNSUPPORTED[cls.__name__]}")
    raise UnstillError(f"{type(pipe).__name__} is not a supported pipeline; supported are {', '.join(ADAPTERS)}.")
