"""
What methods cost per sampling step, per call and in memory, beside the plain pipeline, call by call in turns.

Stable Video Diffusion on 14 frames of latents; its denoiser and its image's encoder are stubs, so that only the
pipeline, the scheduler and the hooks are timed, between two calls of the denoiser, in CPU time. For comparison one of
the 22 residual blocks of the real U-Net is timed at full width: a step takes more than 22 times as long. Memory is
counted in every call of the denoiser, which is when a pipeline needs most, and the largest count is shown. Rows are
those of the batches that the denoiser is given, which is what further passes and repeats cost. What a bias adds inside
of one attention, and what ConditionAmplitude does to a clip of Wan's, which this pipeline has none of, is timed apart.
"""

import argparse
import gc
import json
import statistics
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import AutoencoderKLTemporalDecoder, EulerDiscreteScheduler, StableVideoDiffusionPipeline
from diffusers.models.resnet import SpatioTemporalResBlock
from PIL import Image
from torch.nn.functional import scaled_dot_product_attention
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

import unstill
from unstill.hooks import sampling
from unstill.hooks.attention_hooks import biased
from unstill.methods.condition_amplitude import amplify


class TemporalBasicTransformerBlock(torch.nn.Module):
    """One small attention over the frames, in a class of the name that ReferenceBias looks for."""

    def forward(self, rows: int, frames: int) -> torch.Tensor:
        tokens = torch.zeros(rows, 1, frames, 8)
        return scaled_dot_product_attention(tokens, tokens, tokens)


class Stub(torch.nn.Module):
    """In the place of the U-Net: half of its input, and a record of when it was called and what was alive then."""

    config = SimpleNamespace(in_channels=8, num_frames=14, addition_time_embed_dim=256)
    add_embedding = SimpleNamespace(linear_1=SimpleNamespace(in_features=768))
    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self) -> None:
        super().__init__()
        self.entered: list[float] = []
        self.left: list[float] = []
        self.weigh, self.alive, self.rows = False, [0, 0], 0
        self.block = TemporalBasicTransformerBlock()

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> tuple[torch.Tensor]:
        self.entered.append(time.thread_time())
        if self.weigh:
            latents = x.nbytes // 4  # of the input: guidance and the image each double it
            self.alive = max(self.alive, live_bytes(latents))
        self.rows += len(x)
        self.block(len(x), x.shape[1])
        output = x[:, :, :4].contiguous()
        self.left.append(time.thread_time())
        return (output,)


def live_bytes(latents: int) -> list[int]:
    """Bytes alive: in tensors of at least so many, and in smaller ones."""
    tensors = (x for x in gc.get_objects() if isinstance(x, torch.Tensor))
    sizes = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in tensors}.values()
    return [sum(size for size in sizes if size >= latents), sum(size for size in sizes if size < latents)]


def pipeline(height: int, width: int) -> Any:
    vision = CLIPVisionConfig(
        hidden_size=8,
        intermediate_size=8,
        projection_dim=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        patch_size=112,
    )
    pipe = StableVideoDiffusionPipeline(
        vae=AutoencoderKLTemporalDecoder(
            block_out_channels=[32] * 4, down_block_types=["DownEncoderBlock2D"] * 4, layers_per_block=1
        ),
        image_encoder=CLIPVisionModelWithProjection(vision),
        unet=Stub(),
        scheduler=EulerDiscreteScheduler(
            beta_schedule="scaled_linear",
            prediction_type="v_prediction",
            timestep_type="continuous",
            use_karras_sigmas=True,
            sigma_min=0.002,
            sigma_max=700.0,
        ),
        feature_extractor=CLIPImageProcessor(),
    )
    pipe.set_progress_bar_config(disable=True)
    pipe._encode_vae_image = lambda *args, **kwargs: torch.zeros(2, 4, height // 8, width // 8)
    return pipe


def measure(pipe: Any, call: dict[str, Any], methods: tuple[Any, ...] | None, weigh: bool) -> dict[str, Any]:
    """Milliseconds from the call to the first step and between two steps, `live_bytes` at the most, and rows."""
    stub = pipe.unet
    stub.entered, stub.left, stub.weigh, stub.alive = [], [], weigh, [0, 0]
    stub.rows = 0
    gc.collect()
    began = time.thread_time()
    if methods is None:
        pipe(**call, generator=torch.Generator().manual_seed(0))
    else:
        with sampling(pipe, *methods) as sampler:
            sampler(**call, generator=torch.Generator().manual_seed(0))
    gaps = [after - before for before, after in zip(stub.left, stub.entered[1:], strict=False)]
    return {
        "call": 1e3 * (stub.entered[0] - began),
        "step": 1e3 * statistics.median(gaps),
        "bytes": stub.alive,
        "rows": stub.rows,
    }


def timed(function: Callable[[], Any], times: int = 5) -> float:
    """Milliseconds of CPU time of a call, the best of a few."""
    taken = []
    for _ in range(times):
        began = time.thread_time()
        function()
        taken.append(1e3 * (time.thread_time() - began))
    return round(min(taken), 2)


def residual_block(frames: int, height: int, width: int) -> float:
    """Milliseconds of one residual block of the real U-Net under guidance, the better of two."""
    block = SpatioTemporalResBlock(in_channels=320, out_channels=320, temb_channels=1280, eps=1e-5)
    x, emb = torch.randn(2 * frames, 320, height, width), torch.randn(2 * frames, 1280)
    indicator = torch.zeros(2, frames)
    taken = []
    for _ in range(2):
        began = time.thread_time()
        with torch.no_grad():
            block(x, emb, image_only_indicator=indicator)
        taken.append(1e3 * (time.thread_time() - began))
    return min(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--size", default="512x320", help="WIDTHxHEIGHT of the video")
    parser.add_argument("--only", nargs="+", help="some of the methods, by the names of the rows")
    options = parser.parse_args()
    torch.set_num_threads(1)

    width, height = (int(side) for side in options.size.split("x"))
    frames, latent = 14, (height // 8, width // 8)
    pipe = pipeline(height, width)
    size = {"image": Image.new("RGB", (width, height)), "height": height, "width": width, "num_frames": frames}
    call = {**size, "num_inference_steps": options.steps, "output_type": "latent"}
    measured = unstill.LatentStatistics().update(torch.randn(2, 4, frames, *latent))
    cases: dict[str, tuple[Any, ...]] = {
        "apply(pipe)": (),
        "EarlyStart": (unstill.EarlyStart(sigma=100.0),),
        "AnalyticInit": (unstill.AnalyticInit(sigma=100.0, statistics=measured),),
        "ImageStart": (unstill.ImageStart(sigma=100.0),),
        "FrameInit": (unstill.FrameInit(),),
        "FreeInit": (unstill.FreeInit(iterations=2),),
        "ProgressiveNoise": (unstill.ProgressiveNoise(),),
        "NoiseRectification": (unstill.NoiseRectification(period=(0, 1)),),
        "NIVSDS": (unstill.NIVSDS(),),
        "ConditioningAugmentation": (unstill.ConditioningAugmentation(),),
        "ConditioningAugmentation t2": (unstill.ConditioningAugmentation(schedule="t2"),),
        "LowPassGuidance": (unstill.LowPassGuidance(until=1.0),),
        "ReferenceBias": (unstill.ReferenceBias(steps=1.0),),
        "ImageGuidance": (unstill.ImageGuidance(),),
        "RecompressImage": (unstill.RecompressImage(),),
        "PredictAndPerturb": (unstill.PredictAndPerturb(),),
    }
    cases = {name: methods for name, methods in cases.items() if options.only is None or name in options.only}
    extra: dict[str, dict[str, list[float]]] = {
        name: {"call": [], "step": [], "bytes": [], "rows": []} for name in cases
    }
    plain: list[float] = []
    for round_ in range(options.rounds + 1):  # the first one warms up, and weighs
        for name, methods in cases.items():
            alone, hooked = (measure(pipe, call, chosen, weigh=round_ == 0) for chosen in (None, methods))
            if round_ == 0:
                extra[name]["bytes"] = [more - own for more, own in zip(hooked["bytes"], alone["bytes"], strict=True)]
                extra[name]["rows"] = [alone["rows"], hooked["rows"]]
                continue
            plain.append(alone["step"])
            for key in ("call", "step"):
                extra[name][key].append(hooked[key] - alone[key])

    block = residual_block(frames, *latent)
    tensor = 4 * 4 * frames * latent[0] * latent[1]
    rows = {
        name: {
            "milliseconds per step": round(statistics.median(found["step"]), 3),
            "share of a step, at most": round(statistics.median(found["step"]) / (22 * block), 6),
            "milliseconds per call": round(statistics.median(found["call"]), 1),
            "latent-sized tensors": round(found["bytes"][0] / tensor, 2),
            "KiB beside": round(found["bytes"][1] / 1024),
            "rows of the network, plain and with it": found["rows"],
        }
        for name, found in extra.items()
    }
    query = torch.randn(2 * latent[0] * latent[1], 5, frames, 64)
    bias = torch.full((len(query),), -0.6)
    tokens = torch.randn(1, 2, 4096, 128)  # two heads of a transformer's attention over time and space
    clip = torch.randn(1, 16, 21, 60, 104)  # of Wan at 832x480
    beside = {
        "an attention over the frames at full width, milliseconds: plain, biased": [
            timed(lambda: scaled_dot_product_attention(query, query, query)),
            timed(lambda: biased(query, query, query, slice(0, 1), bias)),
        ],
        "an attention of 4,096 tokens and 2 heads of 128, milliseconds: plain, biased": [
            timed(lambda: scaled_dot_product_attention(tokens, tokens, tokens)),
            timed(lambda: biased(tokens, tokens, tokens, slice(0, 256), bias[:1])),
        ],
        "ConditionAmplitude on a clip of Wan at 832x480, milliseconds per call": timed(lambda: amplify(clip, 1.15)),
        "plain pipeline without network, milliseconds per step": round(statistics.median(plain), 3),
        "one of 22 residual blocks, milliseconds": round(block, 1),
    }
    print(json.dumps({"size": options.size, "frames": frames, **beside, "methods": rows}, indent=2))


if __name__ == "__main__":
    main()
