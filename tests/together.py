"""
What else of diffusers and torch works in a pipeline together with methods: the table of docs/works_together.md.

    python -m tests.together                # writes the page: an hour or more; needs torchao (0.18 with torch 2.13)
    python -m tests.together WanPipeline    # prints one row

Each cell is a tiny pipeline of `tests/pipelines.py` with random weights, on a CPU. The feature is switched on, the
pipeline called without methods, with the two methods of `methods_of`, and without them again.
"""

import copy
import logging
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import torch

import unstill
from tests.pipelines import CASES, Case, _made, sample


PAGE = Path(__file__).parents[1] / "docs" / "works_together.md"
CPU = torch.device("cpu")
# Every kind of transformer; of the U-Nets, which take minutes each, Stable Video Diffusion, pico and AnimateDiff.
ROWS = (
    "StableVideoDiffusionPipeline",
    "PicoPipeline",
    "AnimateDiffPipeline",
    "AnimateDiff IP-Adapter",
    "AnimateDiffSparseControlNetPipeline",
    "AnimateDiffControlNetPipeline",
    "AnimateDiffPAGPipeline",
    "CogVideoXImageToVideoPipeline",
    "ConsisIDPipeline",
    "EasyAnimatePipeline",
    "EasyAnimateInpaintPipeline",
    "WanImageToVideoPipeline",
    "WanAnimatePipeline",
    "WanPipeline",
    "CogVideoXPipeline",
    "CosmosVideoToWorldPipeline",
    "Cosmos2VideoToWorldPipeline",
    "Cosmos2_5_PredictBasePipeline",
    "Wan 2.2 A14B",
    "Wan 2.2 5B",
    "SkyReelsV2ImageToVideoPipeline",
    "LTXImageToVideoPipeline",
    "LTXPipeline",
    "LTXConditionPipeline",
    "MochiPipeline",
    "LTX2Pipeline",
    "LTX2ImageToVideoPipeline",
    "LTX2ConditionPipeline",
    "AllegroPipeline",
    "SanaImageToVideoPipeline",
    "HunyuanVideo15ImageToVideoPipeline",
    "HunyuanVideo15Pipeline",
    "HunyuanVideoPipeline",
    "HunyuanVideoFramepackPipeline",
    "HunyuanSkyreelsImageToVideoPipeline",
    "SkyReelsV2Pipeline",
    "WanVACEPipeline",
    "SanaVideoPipeline",
    "CosmosTextToWorldPipeline",
    "LattePipeline",
    "MotifVideoImage2VideoPipeline",
    "MotifVideoPipeline",
    "Kandinsky5T2VPipeline",
    "Kandinsky5I2VPipeline",
    "HunyuanVideo latent_concat",
    "HunyuanVideo token_replace",
)


def denoiser_of(pipe: Any) -> Any:
    return getattr(pipe, "transformer", None) or pipe.unet


def lora(pipe: Any) -> None:
    from peft import LoraConfig

    torch.manual_seed(1)
    config = LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False)
    denoiser_of(pipe).add_adapter(config)


def fp8(pipe: Any) -> None:
    denoiser_of(pipe).enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)


def compiled(pipe: Any) -> None:
    denoiser_of(pipe).compile(backend="eager")


def group_offload(pipe: Any) -> None:
    denoiser_of(pipe).enable_group_offload(onload_device=CPU, offload_device=CPU, offload_type="leaf_level")


def model_offload(pipe: Any) -> None:
    pipe.enable_model_cpu_offload(device="cpu")


def int8(pipe: Any) -> None:
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    quantize_(denoiser_of(pipe), Int8WeightOnlyConfig())


def vae_tiling(pipe: Any) -> None:
    pipe.vae.enable_tiling()
    compression = next(value for key, value in vars(pipe).items() if "spatial" in key or key == "vae_scale_factor")
    for key in vars(pipe.vae):  # tiles that tiny videos are larger than
        if key.startswith(("tile_sample_min", "tile_sample_stride")) and "frames" not in key:
            setattr(pipe.vae, key, 2 * compression if "min" in key else compression)
        elif key.startswith("tile_latent_min"):
            setattr(pipe.vae, key, 2)


def first_block(pipe: Any) -> None:
    for blocks in denoiser_of(pipe).children():  # it needs a second block, and most tiny networks have one
        if isinstance(blocks, torch.nn.ModuleList) and len(blocks) == 1:
            blocks.append(copy.deepcopy(blocks[0]))
    diffusers.apply_first_block_cache(denoiser_of(pipe), diffusers.FirstBlockCacheConfig(threshold=0.2))


def taylor_seer(pipe: Any) -> None:
    denoiser_of(pipe).enable_cache(diffusers.TaylorSeerCacheConfig(cache_interval=2, disable_cache_before_step=1))


def broadcast(pipe: Any) -> None:
    config = diffusers.PyramidAttentionBroadcastConfig(
        spatial_attention_block_skip_range=2, current_timestep_callback=lambda: pipe._current_timestep
    )
    denoiser_of(pipe).enable_cache(config)


def faster_cache(pipe: Any) -> None:
    config = diffusers.FasterCacheConfig(
        spatial_attention_block_skip_range=2,
        unconditional_batch_skip_range=2,
        current_timestep_callback=lambda: pipe._current_timestep,
    )
    denoiser_of(pipe).enable_cache(config)


def mag_cache(pipe: Any) -> None:
    config = diffusers.MagCacheConfig(mag_ratios=torch.ones(4), num_inference_steps=4, retention_ratio=0.25)
    denoiser_of(pipe).enable_cache(config)


def nothing(pipe: Any) -> None: ...


FEATURES: dict[str, Callable[[Any], None]] = {
    "LoRA": lora,
    "fp8": fp8,
    "compile": compiled,
    "group offload": group_offload,
    "model offload": model_offload,
    "int8": int8,
    "VAE tiling": vae_tiling,
    "FirstBlockCache": first_block,
    "TaylorSeer": taylor_seer,
    "PAB": broadcast,
    "FasterCache": faster_cache,
    "MagCache": mag_cache,
    "guidance 1": nothing,
}


def methods_of(case: Case) -> tuple[Any, ...]:
    return unstill.EarlyStart(**case.level), unstill.ProgressiveNoise()


def cell(name: str, feature: str) -> str:
    """`yes`; `-`, where diffusers itself cannot do it here; or what went wrong."""
    case = CASES[name]
    torch.compiler.reset()
    changes: dict[str, Any] = {"num_inference_steps": 4} | (case.unguided if feature == "guidance 1" else {})
    if feature == "VAE tiling":
        changes["output_type"] = "pt"

    def call(pipe: Any) -> torch.Tensor:
        with torch.no_grad():
            return sample(case, pipe, **changes)

    try:
        pipe = _made(case.build)
        FEATURES[feature](pipe)
        plain = call(pipe)
        if not torch.equal(plain, call(pipe)):
            return "-"  # caches that keep state from call to call
    except Exception:
        return "-"
    try:
        with unstill.apply(pipe, *methods_of(case)):
            changed = call(pipe)
        again = call(pipe)
    except Exception as error:
        return f"{type(error).__name__}: {error}".splitlines()[0][:80]
    if not torch.isfinite(changed).all():
        return "not finite"
    if torch.equal(changed, plain):
        return "no effect"
    return "yes" if torch.equal(again, plain) else "leaves a trace"


def page(rows: dict[str, list[str]]) -> str:
    yes = sum(value == "yes" for row in rows.values() for value in row)
    cannot = sum(value == "-" for row in rows.values() for value in row)
    cells = sum(map(len, rows.values()))
    versions = f"diffusers {diffusers.__version__}, torch {torch.__version__.split('+')[0]}"
    lines = [
        "# What works together",
        "",
        "Made by `python -m tests.together`: pipelines of every kind of transformer, and of some U-Nets, tiny, with",
        f"random weights, on a CPU, four steps, {versions}. It shows that methods and a feature",
        "do not break each other, not what becomes of a video's quality.",
        "",
        "- **yes**: with the feature on, `EarlyStart` and `ProgressiveNoise` run, change the latents, leave them",
        "  finite, and are gone without a trace afterwards (bit-equal to before).",
        "- **-**: without any method, the feature fails on this class or its tiny network, or does not repeat its",
        "  own result.",
        "- Anything else is what went wrong.",
        "",
        f"{yes} of {cells} cells are yes, {cannot} are -, {cells - yes - cannot} are neither.",
        "",
        "LoRA: an adapter of peft on the denoiser. fp8: `enable_layerwise_casting`, stored as float8_e4m3fn.",
        "compile: the denoiser with `torch.compile`'s eager backend. Group offload: by leaves, from CPU to CPU.",
        "Model offload: `enable_model_cpu_offload`, from CPU to CPU. int8: the denoiser's weights, by torchao.",
        "VAE tiling: videos are decoded in tiles of two latent pixels. PAB: pyramid attention broadcast.",
        "Guidance 1: four steps without guidance.",
        "",
        f"| pipeline | {' | '.join(FEATURES)} |",
        "|---" * (len(FEATURES) + 1) + "|",
        *(f"| {name} | {' | '.join(value.replace('|', '/') for value in row)} |" for name, row in rows.items()),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    names = sys.argv[1:] or ROWS
    rows = {}
    for name in names:
        rows[name] = [cell(name, feature) for feature in FEATURES]
        print(name, *rows[name], sep=" | ", flush=True)
    if not sys.argv[1:]:
        PAGE.write_text(page(rows))


if __name__ == "__main__":
    main()
