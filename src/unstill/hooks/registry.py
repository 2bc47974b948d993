"""Which adapter belongs to which pipeline class: one row each."""

import difflib
from typing import Any

from unstill.errors import UnstillError
from unstill.hooks.adapter import Adapter, FrameAdapter, VideoAdapter
from unstill.hooks.image_vae import PIA, DynamiCrafter, FoldedFrames, I2VGenXL, Latte, Pico, StableVideoDiffusion
from unstill.hooks.video_vae import (
    LTX,
    LTX2,
    CogVideoX,
    CogVideoXText,
    Cosmos,
    Cosmos1,
    Cosmos1Text,
    Cosmos25,
    HeldFrame,
    HunyuanSkyreels,
    HunyuanVideo,
    HunyuanVideo15,
    Kandinsky,
    KandinskyText,
    ModularWan,
    ModularWanText,
    MotifVideo,
    MotifVideoText,
    Wan,
    WanText,
)


ADAPTERS: dict[str, Adapter] = {
    "AnimateDiffControlNetPipeline": FrameAdapter(),
    "AnimateDiffPAGPipeline": FrameAdapter(),
    "AnimateDiffPipeline": FrameAdapter(),
    "AnimateDiffSDXLPipeline": FrameAdapter(),
    "AnimateDiffSparseControlNetPipeline": FrameAdapter(),
    "CogVideoXImageToVideoPipeline": CogVideoX(),
    "CogVideoXPipeline": CogVideoXText(),
    "Cosmos2_5_PredictBasePipeline": Cosmos25(),
    "Cosmos2VideoToWorldPipeline": Cosmos(),
    "CosmosTextToWorldPipeline": Cosmos1Text(),
    "CosmosVideoToWorldPipeline": Cosmos1(),
    "DynamiCrafterPipeline": DynamiCrafter(),
    "HunyuanSkyreelsImageToVideoPipeline": HunyuanSkyreels(),
    "HunyuanVideo15ImageToVideoPipeline": HunyuanVideo15(),
    "HunyuanVideo15Pipeline": VideoAdapter(),
    "HunyuanVideoImageToVideoPipeline": HunyuanVideo(),
    "HunyuanVideoPipeline": VideoAdapter(),
    "I2VGenXLPipeline": I2VGenXL(),
    "Kandinsky5I2VPipeline": Kandinsky(),
    "Kandinsky5T2VPipeline": KandinskyText(),
    "LattePipeline": Latte(),
    "LaViePipeline": FrameAdapter(),
    "LTX2ImageToVideoPipeline": LTX2(),
    "LTXImageToVideoPipeline": LTX(),
    "MotifVideoImage2VideoPipeline": MotifVideo(),
    "MotifVideoPipeline": MotifVideoText(),
    "PIAPipeline": PIA(),
    "PicoPipeline": Pico(),
    "SanaImageToVideoPipeline": HeldFrame(),
    "SanaVideoPipeline": VideoAdapter(),
    "SkyReelsV2ImageToVideoPipeline": Wan(),
    "SkyReelsV2Pipeline": WanText(),
    "StableVideoDiffusionPipeline": StableVideoDiffusion(),
    "TextToVideoSDPipeline": FoldedFrames(),
    "VideoCrafterPipeline": FrameAdapter(),  # it sees its image as tokens only
    "Wan22Image2VideoModularPipeline": ModularWan(),
    "Wan22ModularPipeline": ModularWanText(),
    "WanImage2VideoModularPipeline": ModularWan(),
    "WanImageToVideoPipeline": Wan(),
    "WanModularPipeline": ModularWanText(),
    "WanPipeline": WanText(),
    "WanVACEPipeline": WanText(),
}

# Pipelines, and base classes of them, on which no method works.
UNSUPPORTED: dict[str, str] = {
    "AllegroPipeline": "counts the frames of its autoencoder in another way; use WanPipeline or CogVideoXPipeline.",
    "HunyuanVideoFramepackPipeline": (
        "samples a video in sections, and methods act on whole videos; use HunyuanVideoImageToVideoPipeline."
    ),
    "LTXConditionPipeline": "noises every token to a level of its own; use LTXImageToVideoPipeline.",
    "LTX2ConditionPipeline": "steps its latents as a list of tokens; use LTX2ImageToVideoPipeline.",
    "LTXPipeline": "steps its latents as a list of tokens; use LTXImageToVideoPipeline.",
    "LTX2Pipeline": "steps its latents as a list of tokens; use LTX2ImageToVideoPipeline.",
    "MochiPipeline": "counts its noise levels upwards; use WanPipeline or HunyuanVideoPipeline.",
    "ModularPipeline": (
        "is made of blocks that methods do not know: they know those of WanModularPipeline, Wan22ModularPipeline, "
        "WanImage2VideoModularPipeline and Wan22Image2VideoModularPipeline; use one of these, or a supported pipeline "
        "that is not modular (docs/pipelines.md)."
    ),
    "SkyReelsV2DiffusionForcingImageToVideoPipeline": (
        "samples every latent frame with a scheduler of its own, and methods act on whole videos; use "
        "SkyReelsV2ImageToVideoPipeline."
    ),
    "WanAnimatePipeline": (
        "samples a video in segments, and methods act on whole videos; use WanImageToVideoPipeline."
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
    name = type(pipe).__name__
    nearest = difflib.get_close_matches(name, ADAPTERS, n=1, cutoff=0.0)[0]
    raise UnstillError(
        f"{name} is not a supported pipeline; the supported one of the nearest name is {nearest}, and all of them are "
        f"{', '.join(ADAPTERS)}."
    )
