"""
What methods cost and whether they stay finite on a GPU: one command of at most eight minutes, one JSON file.

    python benchmarks/gpu.py --out gpu.json           # a GPU with 24 GB or more
    python benchmarks/gpu.py --small --device cpu     # tiny networks, to see that the script runs

Needs torch, diffusers (with transformers) and this library. Weights are random: times and finiteness, no videos. The
networks have the released sizes of Stable Video Diffusion, Wan 2.1 1.3B and DynamiCrafter 512; the encoders of images
and texts are left out. A part that fails is reported as its error; parts that no time was left for are listed.
"""

import argparse
import functools
import json
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import unstill


class CountReads(TorchDispatchMode):
    """Counts reads of single values, which are what synchronises a device; stands in on a CPU."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def synchronisations(device: torch.device, call: Callable[[], Any]) -> int:
    """Synchronising operations during `call`."""
    if device.type != "cuda":
        with CountReads() as reads:
            call()
        return reads.count
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            call()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in seen)


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def made(device: torch.device, dtype: torch.dtype, network: Callable[[], Any]) -> Any:
    """The network with diffusers' own initial weights, drawn on the device."""
    torch.manual_seed(0)
    with torch.device(device):
        module = network()
    return module.eval().to(dtype)


def svd(device: torch.device, dtype: torch.dtype, small: bool) -> tuple[Any, dict[str, Any]]:
    """Pipeline and call: 14 frames of 1024x576."""
    config: dict[str, Any] = {}
    if small:
        config = {
            "block_out_channels": (32, 64),
            "down_block_types": ("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
            "up_block_types": ("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
            "num_attention_heads": (1, 2),
            "addition_time_embed_dim": 32,
            "projection_class_embeddings_input_dim": 96,
            "cross_attention_dim": 32,
            "layers_per_block": 1,
        }
    height, width, frames = (64, 64, 4) if small else (576, 1024, 14)
    pipe = diffusers.StableVideoDiffusionPipeline(
        vae=made(
            device,
            dtype,
            lambda: diffusers.AutoencoderKLTemporalDecoder(
                block_out_channels=(32,) * 4, down_block_types=("DownEncoderBlock2D",) * 4, force_upcast=False
            ),
        ),
        image_encoder=None,
        feature_extractor=None,
        unet=made(device, dtype, lambda: diffusers.UNetSpatioTemporalConditionModel(**config)),
        scheduler=diffusers.EulerDiscreteScheduler(
            beta_schedule="scaled_linear",
            beta_start=0.00085,
            beta_end=0.012,
            prediction_type="v_prediction",
            timestep_type="continuous",
            timestep_spacing="leading",
            steps_offset=1,
            use_karras_sigmas=True,
            sigma_min=0.002,
            sigma_max=700.0,
        ),
    )
    width_of_context = pipe.unet.config.cross_attention_dim
    pipe._encode_image = lambda *_, **__: torch.randn(2, 1, width_of_context, device=device, dtype=pipe.unet.dtype)
    pipe._encode_vae_image = lambda *_, **__: torch.randn(
        2, 4, height // 8, width // 8, device=device, dtype=pipe.unet.dtype
    )
    image = torch.rand(1, 3, height, width, device=device)
    return pipe, {"image": image, "height": height, "width": width, "num_frames": frames}


def wan(device: torch.device, dtype: torch.dtype, small: bool) -> tuple[Any, dict[str, Any]]:
    """Pipeline and call: 81 frames of 832x480."""
    config: dict[str, Any] = {"num_attention_heads": 12, "attention_head_dim": 128, "ffn_dim": 8960, "num_layers": 30}
    height, width, frames = 480, 832, 81
    if small:
        config = {"num_attention_heads": 2, "attention_head_dim": 12, "ffn_dim": 32, "num_layers": 2, "text_dim": 16}
        height, width, frames = 32, 32, 9
    pipe = diffusers.WanPipeline(
        tokenizer=None,
        text_encoder=None,
        vae=made(device, dtype, lambda: diffusers.AutoencoderKLWan(base_dim=8, dim_mult=[1, 1, 1, 1])),
        transformer=made(device, dtype, lambda: diffusers.WanTransformer3DModel(**config)),
        scheduler=diffusers.UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        ),
    )
    text = torch.randn(1, 512, pipe.transformer.config.text_dim, device=device, dtype=dtype)
    return pipe, {
        "prompt_embeds": text,
        "guidance_scale": 1.0,
        "height": height,
        "width": width,
        "num_frames": frames,
    }


def methods_for(name: str, shape: tuple[int, ...]) -> dict[str, tuple[Any, ...]]:
    """Every method that works on the pipeline, by name; `shape` of its latents: C, F, H, W."""
    level = {"sigma": 100.0} if name == "svd" else {"start": 0.9}
    measured = unstill.LatentStatistics().update(torch.randn(2, *shape, generator=torch.Generator().manual_seed(0)))
    methods: dict[str, tuple[Any, ...]] = {
        "apply(pipe)": (),
        "EarlyStart": (unstill.EarlyStart(**level),),
        "AnalyticInit": (unstill.AnalyticInit(**level, statistics=measured),),
        "ImageStart": (unstill.ImageStart(**level),),
        "FrameInit": (unstill.FrameInit(),),
        "FreeInit": (unstill.FreeInit(iterations=2),),
        "ProgressiveNoise": (unstill.ProgressiveNoise(),),
        "NoiseRectification": (unstill.NoiseRectification(),),
        "NIVSDS": (unstill.NIVSDS(),),
    }
    if name == "svd":  # Wan's text-to-video denoiser sees no image
        methods["ConditioningAugmentation"] = (unstill.ConditioningAugmentation(),)
    return methods


def run_call(
    pipe: Any, call: dict[str, Any], methods: tuple[Any, ...] | None, steps: int, name: str
) -> dict[str, Any]:
    """One call: milliseconds a step (median), the type of its latents, whether all of them are finite."""
    device, stamps = pipe.device, []

    def stamp(*_: Any) -> dict[str, Any]:
        wait(device)
        stamps.append(time.perf_counter())
        return {}

    def sample() -> torch.Tensor:
        more = {
            "num_inference_steps": steps,
            "generator": torch.Generator(device).manual_seed(0),
            "output_type": "latent",
            "callback_on_step_end": stamp,
        }
        if methods and isinstance(methods[0], unstill.FreeInit):  # a loop around the pipeline
            return unstill.free_init(pipe, methods[0], **call, **more).frames
        return pipe(**call, **more).frames

    if methods is None or any(isinstance(method, unstill.FreeInit) for method in methods):
        latents = sample()
    else:
        image = None
        if name == "wan":  # its text-to-video pipeline encodes no image
            image = torch.randn(1, 16, 1, call["height"] // 8, call["width"] // 8, device=device)
        with unstill.apply(pipe, *methods, image=image):
            latents = sample()
    gaps = [1e3 * (after - before) for before, after in zip(stamps, stamps[1:], strict=False)]
    return {
        "ms a step": round(statistics.median(gaps), 2) if gaps else None,
        "type": str(latents.dtype).removeprefix("torch."),
        "finite": bool(torch.isfinite(latents).all()),
    }


def attempt(work: Callable[[], Any]) -> Any:
    """The result, or the error in words: one part that fails leaves the others."""
    try:
        return work()
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"[:300]}


def methods_on(name: str, device: torch.device, small: bool, steps: int, until: float) -> dict[str, Any]:
    """Overhead and synchronisations in one half-precision type, finiteness in both."""
    own, other = (torch.float16, torch.bfloat16) if name == "svd" else (torch.bfloat16, torch.float16)
    pipe, call = (svd if name == "svd" else wan)(device, own, small)
    pipe.set_progress_bar_config(disable=True)
    height, width = call["height"] // 8, call["width"] // 8
    frames = call["num_frames"]
    shape = (4, frames, height, width) if name == "svd" else (16, (frames - 1) // 4 + 1, height, width)
    costs: dict[str, Any] = {}
    run_call(pipe, call, None, 2, name)  # warms up
    cases: dict[str, Any] = {"plain": None, **methods_for(name, shape), "plain again": None}
    for label, methods in cases.items():
        if time.monotonic() > until:
            costs[label] = "no time left"
            continue

        def measure(methods: Any = methods) -> dict[str, Any]:
            first: dict[str, Any] = run_call(pipe, call, methods, steps, name)
            first["synchronisations a call of 2 steps"] = synchronisations(
                device, lambda: run_call(pipe, call, methods, 2, name)
            )
            return first

        costs[label] = attempt(measure)
    pipe.to(other)
    if "prompt_embeds" in call:
        call["prompt_embeds"] = call["prompt_embeds"].to(other)
    for label, methods in cases.items():
        if label != "plain again" and isinstance(costs[label], dict) and time.monotonic() < until:
            second = attempt(functools.partial(run_call, pipe, call, methods, 2, name))
            costs[label][f"finite in {str(other).removeprefix('torch.')}"] = second.get("finite", second)
    return costs


def dynamicrafter(device: torch.device, small: bool) -> dict[str, Any]:
    """Milliseconds of one guided step of DynamiCrafter 512's network, 16 frames of 40x64, batch 2."""
    from unstill.models.dynamicrafter import DynamiCrafterUNet

    config: dict[str, Any] = {}
    if small:
        config = {"block_out_channels": (32, 32), "layers_per_block": 1, "attention_levels": 1}
        config |= {"attention_head_dim": 16, "cross_attention_dim": 32, "text_tokens": 4, "image_tokens": 2}
    network = made(device, torch.float32, lambda: DynamiCrafterUNet(**config))
    frames, height, width = (2, 8, 8) if small else (16, 40, 64)
    settings = network.config
    tokens = settings.text_tokens + frames * settings.image_tokens
    sample = torch.randn(2, settings.in_channels, frames, height, width, device=device)
    context = torch.randn(2, tokens, settings.cross_attention_dim, device=device)
    half = torch.bfloat16 if device.type == "cpu" else torch.float16

    def timed(step: Callable[[], Any]) -> dict[str, Any]:
        began = time.perf_counter()
        with torch.inference_mode():
            step()
            wait(device)
            first, taken = time.perf_counter() - began, []
            for _ in range(2 if small else 10):
                began = time.perf_counter()
                output = step()
                wait(device)
                taken.append(1e3 * (time.perf_counter() - began))
        return {
            "ms": round(statistics.median(taken), 2),
            "first call, s": round(first, 1),
            "finite": bool(torch.isfinite(output[0]).all()),
        }

    def autocast() -> Any:
        with torch.autocast(device.type, half):
            return network(sample, 500, context, 24, return_dict=False)

    milliseconds = {"float32 under autocast": attempt(lambda: timed(autocast))}
    network.to(half)
    x, words = sample.to(half), context.to(half)
    milliseconds["half, eager"] = attempt(lambda: timed(lambda: network(x, 500, words, 24, return_dict=False)))
    compiled = torch.compile(network, backend="eager" if small else "inductor")
    milliseconds["half, compiled"] = attempt(lambda: timed(lambda: compiled(x, 500, words, 24, return_dict=False)))
    return milliseconds


def pico_training(device: torch.device, small: bool) -> dict[str, Any]:
    """Clips a second of the embedded model's training."""
    from pico_speed import training

    return {str(batch): training(device, 1 if small else 20, batch) for batch in ((2,) if small else (16, 64, 256))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--small", action="store_true", help="tiny networks, a minute on a CPU")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=450.0, help="parts are not begun after this time")
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    options = parser.parse_args()
    device, began = torch.device(options.device), time.monotonic()
    results: dict[str, Any] = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU",
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "small": options.small,
    }
    share = lambda part: began + part * options.seconds  # noqa: E731
    parts: dict[str, Callable[[], Any]] = {
        "svd 14x576x1024": lambda: methods_on("svd", device, options.small, options.steps, share(0.4)),
        "pico training, clips a second by batch": lambda: pico_training(device, options.small),
        "dynamicrafter-512 step": lambda: dynamicrafter(device, options.small),
        "wan 1.3B 81x480x832": lambda: methods_on("wan", device, options.small, options.steps, share(1.0)),
    }
    for name, part in parts.items():
        results[name] = attempt(part) if time.monotonic() < share(1.0) else "no time left"
        if device.type == "cuda":
            results[name + ", peak GiB"] = round(torch.cuda.max_memory_allocated() / 2**30, 1)
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        results["seconds"] = round(time.monotonic() - began, 1)
        options.out.write_text(json.dumps(results, indent=2) + "\n")  # what is known so far outlives a broken run
    print(options.out.read_text(), end="")


if __name__ == "__main__":
    main()
