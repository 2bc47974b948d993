"""Writes the example workflows beside this file, in ComfyUI's API format, which its page opens as well."""

import json
from pathlib import Path
from typing import Any


PROMPT = "The boat drifts to the left, waves roll, the camera stays still."


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def common(steps: int, scheduler: str, start: dict[str, float], guider: dict[str, Any], fps: float) -> dict[str, Any]:
    """Everything but the model, its conditioning and its VAE."""
    return {
        "image": node("LoadImage", image="example.png"),
        "schedule": node("BasicScheduler", model=["model", 0], scheduler=scheduler, steps=steps, denoise=1.0),
        "start": node("UnstillEarlyStart", sigmas=["schedule", 0], **start),
        "noise": node("RandomNoise", noise_seed=0),
        "sampler": node("KSamplerSelect", sampler_name="euler"),
        "guider": guider,
        "sample": node(
            "SamplerCustomAdvanced",
            noise=["noise", 0],
            guider=["guider", 0],
            sampler=["sampler", 0],
            sigmas=["start", 0],
            latent_image=["conditioning", 2],
        ),
        "frames": node("VAEDecode", samples=["sample", 0], vae=["vae", 0]),
        "score": node("UnstillMotionScore", images=["frames", 0], fps=fps),
        "video": node("CreateVideo", images=["frames", 0], fps=fps),
        "save": node("SaveVideo", video=["video", 0], filename_prefix="unstill", format="auto", codec="auto"),
    }


def cfg(scale: float, model: str = "model") -> dict[str, Any]:
    return node("CFGGuider", model=[model, 0], positive=["conditioning", 0], negative=["conditioning", 1], cfg=scale)


def prompts() -> dict[str, Any]:
    return {
        "positive": node("CLIPTextEncode", text=PROMPT, clip=["text", 0]),
        "negative": node("CLIPTextEncode", text="static, frozen, blurry", clip=["text", 0]),
    }


def unet(name: str) -> dict[str, Any]:
    return node("UNETLoader", unet_name=name, weight_dtype="default")


def wan_21() -> dict[str, Any]:
    return {
        **common(20, "simple", {"start": 0.9, "sigma": 0.0}, cfg(5.0), 16.0),
        **prompts(),
        "loaded": unet("wan2.1_i2v_480p_14B_fp16.safetensors"),
        "biased": node("UnstillReferenceBias", model=["loaded", 0], gamma=0.6, until=0.2),
        "model": node("ModelSamplingSD3", model=["biased", 0], shift=8.0),
        "text": node("CLIPLoader", clip_name="umt5_xxl_fp8_e4m3fn_scaled.safetensors", type="wan"),
        "vae": node("VAELoader", vae_name="wan_2.1_vae.safetensors"),
        "conditioning": wan_conditioning(),
    }


def wan_conditioning() -> dict[str, Any]:
    size = {"width": 832, "height": 480, "length": 81, "batch_size": 1}
    given = {"positive": ["positive", 0], "negative": ["negative", 0], "vae": ["vae", 0]}
    return node("WanImageToVideo", start_image=["image", 0], **given, **size)


def wan_22() -> dict[str, Any]:
    """Two experts: the early start comes before the schedule is split, so that both know the same levels."""
    made = wan_21()
    made["loaded"] = unet("wan2.2_i2v_high_noise_14B_fp8_scaled.safetensors")
    made["loaded_low"] = unet("wan2.2_i2v_low_noise_14B_fp8_scaled.safetensors")
    made["model_low"] = node("ModelSamplingSD3", model=["loaded_low", 0], shift=8.0)
    made["split"] = node("SplitSigmas", sigmas=["start", 0], step=10)
    made["sample_high"] = node("SamplerCustomAdvanced", **{**made["sample"]["inputs"], "sigmas": ["split", 0]})
    made["guider_low"] = cfg(5.0, "model_low")
    made["no_noise"] = node("DisableNoise")
    made["sample"]["inputs"].update(
        noise=["no_noise", 0], guider=["guider_low", 0], sigmas=["split", 1], latent_image=["sample_high", 0]
    )
    return made


def ltx() -> dict[str, Any]:
    made = {
        **common(30, "simple", {"start": 0.95, "sigma": 0.0}, cfg(3.0), 25.0),
        **prompts(),
        "loaded": node("CheckpointLoaderSimple", ckpt_name="ltx-video-2b-v0.9.5.safetensors"),
        "model": node("UnstillConditionNoise", model=["loaded", 0], schedule="t2", strength=0.15, seed=0),
        "text": node("CLIPLoader", clip_name="t5xxl_fp16.safetensors", type="ltxv"),
        "vae": node("VAELoader", vae_name="ltx-video-vae.safetensors"),
        "conditioning": node(
            "LTXVImgToVideo",
            positive=["rated", 0],
            negative=["rated", 1],
            vae=["loaded", 2],
            image=["image", 0],
            width=768,
            height=512,
            length=97,
            batch_size=1,
            strength=1.0,
        ),
        "rated": node("LTXVConditioning", positive=["positive", 0], negative=["negative", 0], frame_rate=25.0),
    }
    made["schedule"] = node(
        "LTXVScheduler", steps=30, max_shift=2.05, base_shift=0.95, stretch=True, terminal=0.1,
        latent=["conditioning", 2],
    )  # fmt: skip
    made["frames"]["inputs"]["vae"] = ["loaded", 2]
    del made["vae"]
    return made


def svd() -> dict[str, Any]:
    made = {
        **common(25, "karras", {"start": 1.0, "sigma": 100.0}, cfg(2.5), 7.0),
        "loaded": node("ImageOnlyCheckpointLoader", ckpt_name="svd_xt.safetensors"),
        "model": node("VideoLinearCFGGuidance", model=["loaded", 0], min_cfg=1.0),
        "conditioning": node(
            "SVD_img2vid_Conditioning",
            clip_vision=["loaded", 1],
            init_image=["image", 0],
            vae=["loaded", 2],
            width=1024,
            height=576,
            video_frames=25,
            motion_bucket_id=127,
            fps=6,
            augmentation_level=0.0,
        ),
    }
    made["frames"]["inputs"]["vae"] = ["loaded", 2]
    return made


def hunyuan_video() -> dict[str, Any]:
    guider = node("BasicGuider", model=["model", 0], conditioning=["guided", 0])
    made = {
        **common(20, "simple", {"start": 0.95, "sigma": 0.0}, guider, 24.0),
        "positive": prompts()["positive"],
        "loaded": unet("hunyuan_video_image_to_video_720p_bf16.safetensors"),
        "model": node("ModelSamplingSD3", model=["loaded", 0], shift=7.0),
        "text": node(
            "DualCLIPLoader",
            clip_name1="clip_l.safetensors",
            clip_name2="llava_llama3_fp8_scaled.safetensors",
            type="hunyuan_video",
        ),
        "vae": node("VAELoader", vae_name="hunyuan_video_vae_bf16.safetensors"),
        "conditioning": node(
            "HunyuanImageToVideo",
            positive=["positive", 0],
            vae=["vae", 0],
            width=848,
            height=480,
            length=53,
            batch_size=1,
            guidance_type="v1 (concat)",
            start_image=["image", 0],
        ),
        "guided": node("FluxGuidance", conditioning=["conditioning", 0], guidance=6.0),
    }
    made["sample"]["inputs"]["latent_image"] = ["conditioning", 1]
    return made


WORKFLOWS = {made.__name__: made for made in (wan_21, wan_22, ltx, svd, hunyuan_video)}


if __name__ == "__main__":
    for name, made in WORKFLOWS.items():
        Path(__file__).with_name(f"{name}.json").write_text(json.dumps(made(), indent=1) + "\n", "utf-8")
