"""The models this library knows by name."""

from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """
    One model by name.

    Attributes:
        name: what `load` and `--model` take.
        pipeline: the class of its pipeline.
        weights: a hub id, or `None` for weights that come with the package.
        licence: of the weights, in their owner's words.
        parameters: of the denoiser.
        needs: memory to run it in `dtype`, from figures of its authors or diffusers' documentation, else estimated.
        dtype: what the weights were made for.
        size: (height, width) it was trained for.
        frames, fps, steps: its usual clip and number of sampling steps.
        input: what a call needs.
        parts: pipeline components that live in their own repository: name -> (class, hub id).
        start: the noise level at which improved sampling begins unless asked otherwise: ("start" or "sigma", value).
        scheduler: settings that replace those of the loaded scheduler: (class, changed values).
        tiled: whether its autoencoder works tile by tile, without which a clip of that size takes far more memory.
        condition: whether its denoiser sees image latents, which the methods of the condition change.
        file: the one file in `weights` that holds the released checkpoint; `None` for a diffusers repository.
    """

    name: str
    pipeline: str
    weights: str | None
    licence: str
    parameters: str
    needs: str
    dtype: Literal["float32", "float16", "bfloat16"]
    size: tuple[int, int]
    frames: int
    fps: int
    steps: int
    input: Literal["image", "image and prompt", "prompt"]
    start: tuple[Literal["start", "sigma"], float]
    parts: tuple[tuple[str, str, str], ...] = ()
    scheduler: tuple[str, tuple[tuple[str, Any], ...]] | None = None
    variant: str | None = None
    file: str | None = None
    tiled: bool = False
    condition: bool = True


# As diffusers' documentation recommends: the first level is then the noise that a pipeline starts from. The authors'
# own code and I4VGen's begin below it instead ("leading": 961 of 1000 with 25 steps).
ANIMATEDIFF = (
    "DDIMScheduler",
    (("beta_schedule", "linear"), ("clip_sample", False), ("timestep_spacing", "linspace"), ("steps_offset", 1)),
)

MODELS: tuple[Model, ...] = (
    Model(
        name="pico",
        pipeline="PicoPipeline",
        weights=None,
        licence="Apache-2.0",
        parameters="16 M",
        needs="any CPU",
        dtype="float32",
        size=(96, 96),
        frames=16,
        fps=8,
        steps=25,
        input="image",
        start=("sigma", 20.0),
    ),
    Model(
        name="svd",
        pipeline="StableVideoDiffusionPipeline",
        weights="stabilityai/stable-video-diffusion-img2vid",
        licence="Stability AI Community License",
        parameters="1.5 B",
        needs="a GPU of 16 GB with --offload",
        dtype="float16",
        size=(576, 1024),
        frames=14,
        fps=7,
        steps=25,
        input="image",
        start=("sigma", 100.0),
        variant="fp16",
    ),
    Model(
        name="svd-xt",
        pipeline="StableVideoDiffusionPipeline",
        weights="stabilityai/stable-video-diffusion-img2vid-xt",
        licence="Stability AI Community License",
        parameters="1.5 B",
        needs="a GPU of 16 GB with --offload",
        dtype="float16",
        size=(576, 1024),
        frames=25,
        fps=7,
        steps=25,
        input="image",
        start=("sigma", 100.0),
        variant="fp16",
    ),
    Model(
        name="dynamicrafter-256",
        pipeline="DynamiCrafterPipeline",
        weights="Doubiiu/DynamiCrafter",
        file="model.ckpt",
        licence="research, non-commercial (their repository)",
        parameters="1.4 B",
        needs="a GPU of 12 GB",
        dtype="float16",
        size=(256, 256),
        frames=16,
        fps=8,
        steps=50,
        input="image and prompt",
        start=("start", 0.96),
    ),
    Model(
        name="dynamicrafter-512",
        pipeline="DynamiCrafterPipeline",
        weights="Doubiiu/DynamiCrafter_512",
        file="model.ckpt",
        licence="research, non-commercial (their repository)",
        parameters="1.4 B",
        needs="a GPU of 16 GB",
        dtype="float16",
        size=(320, 512),
        frames=16,
        fps=8,
        steps=50,
        input="image and prompt",
        start=("start", 0.96),
    ),
    Model(
        name="dynamicrafter-1024",
        pipeline="DynamiCrafterPipeline",
        weights="Doubiiu/DynamiCrafter_1024",
        file="model.ckpt",
        licence="research, non-commercial (their repository)",
        parameters="1.4 B",
        needs="a GPU of 24 GB",
        dtype="float16",
        size=(576, 1024),
        frames=16,
        fps=8,
        steps=50,
        input="image and prompt",
        start=("start", 0.96),
    ),
    Model(
        name="videocrafter-512",
        pipeline="VideoCrafterPipeline",
        weights="VideoCrafter/Image2Video-512",
        file="model.ckpt",
        licence="research, non-commercial (their repository)",
        parameters="1.4 B",
        needs="a GPU of 16 GB",
        dtype="float16",
        size=(320, 512),
        frames=16,
        fps=8,
        steps=50,
        input="image and prompt",
        start=("start", 0.96),
        condition=False,
    ),
    Model(
        name="lavie",
        pipeline="LaViePipeline",
        weights="YaohuiW/LaVie",
        file="lavie_base.pt",
        licence="research and free commercial use (their repository)",
        parameters="0.9 B",
        needs="a GPU of 12 GB",
        dtype="float16",
        size=(320, 512),
        frames=16,
        fps=8,
        steps=50,
        input="prompt",
        start=("start", 0.96),
        condition=False,
    ),
    Model(
        name="animatediff",
        pipeline="AnimateDiffPipeline",
        weights="stable-diffusion-v1-5/stable-diffusion-v1-5",
        licence="CreativeML Open RAIL-M (base), Apache-2.0 (motion module)",
        parameters="1.3 B",
        needs="a GPU of 8 GB with --offload",
        dtype="float16",
        size=(512, 512),
        frames=16,
        fps=8,
        steps=25,
        input="prompt",
        start=("start", 0.96),
        condition=False,
        parts=(("motion_adapter", "MotionAdapter", "guoyww/animatediff-motion-adapter-v1-5-2"),),
        scheduler=ANIMATEDIFF,
    ),
    Model(
        name="animatediff-sparsectrl",
        pipeline="AnimateDiffSparseControlNetPipeline",
        weights="stable-diffusion-v1-5/stable-diffusion-v1-5",
        licence="CreativeML Open RAIL-M (base), Apache-2.0 (others)",
        parameters="1.3 B",
        needs="a GPU of 12 GB with --offload",
        dtype="float16",
        size=(512, 512),
        frames=16,
        fps=8,
        steps=25,
        input="image and prompt",
        start=("start", 0.96),
        condition=False,
        parts=(
            ("motion_adapter", "MotionAdapter", "guoyww/animatediff-motion-adapter-v1-5-3"),
            ("controlnet", "SparseControlNetModel", "guoyww/animatediff-sparsectrl-rgb"),
        ),
        scheduler=ANIMATEDIFF,
    ),
    Model(
        name="animatediff-sdxl",
        pipeline="AnimateDiffSDXLPipeline",
        weights="stabilityai/stable-diffusion-xl-base-1.0",
        licence="CreativeML Open RAIL++-M (base), Apache-2.0 (motion module)",
        parameters="2.8 B",
        needs="a GPU of 24 GB with --offload",
        dtype="float16",
        size=(1024, 1024),
        frames=16,
        fps=8,
        steps=20,
        input="prompt",
        start=("start", 0.96),
        condition=False,
        variant="fp16",
        parts=(("motion_adapter", "MotionAdapter", "guoyww/animatediff-motion-adapter-sdxl-beta"),),
        scheduler=ANIMATEDIFF,
    ),
    Model(
        name="pia",
        pipeline="PIAPipeline",
        weights="SG161222/Realistic_Vision_V6.0_B1_noVAE",
        licence="CreativeML Open RAIL-M (base), Apache-2.0 (motion module)",
        parameters="1.3 B",
        needs="a GPU of 8 GB with --offload",
        dtype="float16",
        size=(512, 512),
        frames=16,
        fps=8,
        steps=25,
        input="image and prompt",
        start=("start", 0.96),
        parts=(("motion_adapter", "MotionAdapter", "openmmlab/PIA-condition-adapter"),),
        scheduler=("DDIMScheduler", (("beta_schedule", "linear"), ("clip_sample", False))),
    ),
    Model(
        name="i2vgen-xl",
        pipeline="I2VGenXLPipeline",
        weights="ali-vilab/i2vgen-xl",
        licence="MIT; research, non-commercial (their model card)",
        parameters="1.4 B",
        needs="a GPU of 16 GB with --offload",
        dtype="float16",
        size=(704, 1280),
        frames=16,
        fps=8,
        steps=50,
        input="image and prompt",
        start=("start", 0.96),
        variant="fp16",
    ),
    Model(
        name="modelscope",
        pipeline="TextToVideoSDPipeline",
        weights="ali-vilab/text-to-video-ms-1.7b",
        licence="CC BY-NC 4.0",
        parameters="1.4 B",
        needs="a GPU of 8 GB with --offload",
        dtype="float16",
        size=(256, 256),
        frames=16,
        fps=8,
        steps=25,
        input="prompt",
        start=("start", 0.96),
        condition=False,
        variant="fp16",
    ),
    Model(
        name="cogvideox-5b-i2v",
        pipeline="CogVideoXImageToVideoPipeline",
        weights="zai-org/CogVideoX-5b-I2V",
        licence="CogVideoX License",
        parameters="5 B",
        needs="a GPU of 24 GB with --offload",
        dtype="bfloat16",
        size=(480, 720),
        frames=49,
        fps=8,
        steps=50,
        input="image and prompt",
        start=("start", 0.96),
        tiled=True,
    ),
    Model(
        name="wan2.1-i2v-14b-480p",
        pipeline="WanImageToVideoPipeline",
        weights="Wan-AI/Wan2.1-I2V-14B-480P-Diffusers",
        licence="Apache-2.0",
        parameters="14 B",
        needs="a GPU of 40 GB with --offload",
        dtype="bfloat16",
        size=(480, 832),
        frames=81,
        fps=16,
        steps=50,
        input="image and prompt",
        start=("start", 0.96),
    ),
    Model(
        name="ltx-video",
        pipeline="LTXImageToVideoPipeline",
        weights="Lightricks/LTX-Video",
        licence="RAIL-M of LTX-Video 0.9; commercial use only from 0.9.5",
        parameters="1.9 B",
        needs="a GPU of 16 GB with --offload",
        dtype="bfloat16",
        size=(480, 704),
        frames=97,
        fps=24,
        steps=50,
        input="image and prompt",
        start=("start", 0.96),
        condition=False,
    ),
    Model(
        name="hunyuanvideo-i2v",
        pipeline="HunyuanVideoImageToVideoPipeline",
        weights="hunyuanvideo-community/HunyuanVideo-I2V",
        licence="Tencent Hunyuan Community License (not for the EU, the UK and South Korea)",
        parameters="13 B",
        needs="a GPU of 60 GB with --offload",
        dtype="bfloat16",
        size=(720, 1280),
        frames=129,
        fps=24,
        steps=50,
        input="image and prompt",
        start=("start", 0.96),
        tiled=True,
    ),
)
