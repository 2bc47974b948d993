"""Pipelines of diffusers on which no method works and whose family has no file."""

from unstill.families.base import Family


VIDEO = "starts from a video that it noises itself, and methods decide the first latents; use "
CONTROL = "follows a control video, with which no method was tried; use "
SECTIONS = "samples a video in sections, and methods act on whole videos; use "
FRAMES = "samples every latent frame with a scheduler of its own, and methods act on whole videos; use "
TOKENS = "steps its latents as a list of tokens, beside those of other pictures or videos; use "
CHANGES = "samples no video, but changes one; use methods on "
ZERO = "makes its frames from one picture halfway through the sampling; use "

FAMILY = Family(
    unsupported={
        "AnimateDiffVideoToVideoControlNetPipeline": VIDEO + "AnimateDiffControlNetPipeline.",
        "AnimateDiffVideoToVideoPipeline": VIDEO + "AnimateDiffPipeline.",
        "AnyFlowFARPipeline": SECTIONS + "WanImageToVideoPipeline.",
        "AnyFlowPipeline": "steps from level to level with a flow map, not along a velocity; use WanPipeline.",
        "ChronoEditPipeline": "edits an image, and its video is a means; use WanImageToVideoPipeline.",
        "CogVideoXFunControlPipeline": CONTROL + "CogVideoXPipeline.",
        "CogVideoXVideoToVideoPipeline": VIDEO + "CogVideoXPipeline.",
        "Cosmos2_5_TransferPipeline": CONTROL + "Cosmos2_5_PredictBasePipeline.",
        "Cosmos3OmniPipeline": "samples video, sound and actions with one network; use Cosmos2_5_PredictBasePipeline.",
        "EasyAnimateControlPipeline": CONTROL + "EasyAnimatePipeline.",
        "HeliosPipeline": SECTIONS + "WanImageToVideoPipeline.",
        "HeliosPyramidPipeline": SECTIONS + "WanImageToVideoPipeline.",
        "Kandinsky6SRPipeline": CHANGES + "Kandinsky5I2VPipeline.",
        "Kandinsky6TI2VAPipeline": (
            "has a network of video and sound that no method was tried on; use Kandinsky5I2VPipeline."
        ),
        "LTX2DFRPipeline": TOKENS + "LTX2ImageToVideoPipeline.",
        "LTX2DFRTemporalRefinePipeline": TOKENS + "LTX2ImageToVideoPipeline.",
        "LTX2HDRPipeline": TOKENS + "LTX2ImageToVideoPipeline.",
        "LTX2InContextPipeline": TOKENS + "LTX2ImageToVideoPipeline.",
        "LTX2LatentUpsamplePipeline": CHANGES + "LTX2ImageToVideoPipeline.",
        "LTX2VideoDiffusionDecodePipeline": (
            "decodes the latents of a video, and samples none; use methods on LTX2ImageToVideoPipeline."
        ),
        "LTXI2VLongMultiPromptPipeline": SECTIONS + "LTXImageToVideoPipeline.",
        "LTXLatentUpsamplePipeline": CHANGES + "LTXImageToVideoPipeline.",
        "LucyEditPipeline": "edits a video, which it shows its network; use WanPipeline.",
        "ModularPipeline": (
            "is made of blocks that methods do not know: they know those of WanModularPipeline, Wan22ModularPipeline, "
            "WanImage2VideoModularPipeline and Wan22Image2VideoModularPipeline; use one of these, or a supported "
            "pipeline that is not modular (docs/pipelines.md)."
        ),
        "SanaWMPipeline": "noises every token to a level of its own; use SanaImageToVideoPipeline.",
        "SkyReelsV2DiffusionForcingPipeline": FRAMES + "SkyReelsV2Pipeline.",
        "SkyReelsV2DiffusionForcingVideoToVideoPipeline": FRAMES + "SkyReelsV2Pipeline.",
        "TextToVideoZeroPipeline": ZERO + "AnimateDiffPipeline.",
        "TextToVideoZeroSDXLPipeline": ZERO + "AnimateDiffSDXLPipeline.",
        "VideoToVideoSDPipeline": VIDEO + "TextToVideoSDPipeline.",
        "WanVideoToVideoPipeline": VIDEO + "WanPipeline.",
    },
)
