"""
One of the papers' own models at full size with random weights: that it builds, what it needs, how long a step takes.

    python benchmarks/full_size.py --size 64x64 --frames 2                              # any machine with 24 GB
    python benchmarks/full_size.py --device cuda --dtype float16 --compile
    python benchmarks/full_size.py --checkpoint random.ckpt                             # as released, to convert
"""

import argparse
import json
import resource
import time
from pathlib import Path
from typing import Any

import torch

from unstill.models.checkpoint import load_weights
from unstill.models.convert import RELEASES, Release


def random_state(shapes: dict[str, torch.Tensor], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Pieces of one block of noise, small enough that activations stay finite; drawing billions takes minutes."""
    block = 0.02 * torch.randn(1 << 20, generator=torch.Generator().manual_seed(0))
    return {
        key: block.repeat(-(-value.numel() // len(block)))[: value.numel()].view(value.shape).to(dtype, copy=True)
        for key, value in shapes.items()
    }


def build(release: Release, dtype: torch.dtype) -> Any:
    modules = {name: part.on_meta() for name, part in release.parts.items()}
    for name, module in modules.items():
        load_weights({name: module}, {name: random_state(module.state_dict(), dtype)}, [], "")
    scheduler_class, config = release.scheduler
    return release.pipeline(**modules, tokenizer=None, scheduler=scheduler_class(**config))


def write_checkpoint(release: Release, path: Path, listed: Path, dtype: torch.dtype) -> None:
    """A file with the keys and shapes of `listed`, a list of released keys (see tests/golden/models)."""
    import gzip

    shapes = json.loads(gzip.decompress(listed.read_bytes()))
    empty = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    state = random_state(empty, dtype)
    rescale = release.scheduler[1].get("rescale", 0.7)
    state["scale_arr"] = torch.cat([torch.linspace(1, rescale, 400), torch.full((1000,), rescale)])
    torch.save({"state_dict": state}, path)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="dynamicrafter-512", choices=[n for n in RELEASES if n != "lavie"])
    parser.add_argument("--size", help="WIDTHxHEIGHT; by default the model's own")
    parser.add_argument("--frames", type=int)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "float16", "bfloat16"])
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--checkpoint", type=Path, help="write a checkpoint as released, and leave")
    arguments = parser.parse_args()
    release, dtype = RELEASES[arguments.model], getattr(torch, arguments.dtype)
    if arguments.checkpoint:
        listed = "statedict_vc512_full" if arguments.model.startswith("video") else "statedict_dc512_full"
        golden = Path(__file__).parents[1] / "tests" / "golden" / "models"
        write_checkpoint(release, arguments.checkpoint, golden / f"{listed}.json.gz", dtype)
        return

    began = time.perf_counter()
    pipe = build(release, dtype).to(arguments.device)
    pipe.set_progress_bar_config(disable=True)
    if arguments.compile:
        pipe.unet = torch.compile(pipe.unet)
    built = time.perf_counter() - began
    width, height = map(int, arguments.size.split("x")) if arguments.size else pipe.native_size()[::-1]
    stamps: list[float] = []

    def stamp(pipe: Any, step: int, t: Any, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        if arguments.device == "cuda":
            torch.cuda.synchronize()
        stamps.append(time.perf_counter())
        return tensors

    began = time.perf_counter()
    video = pipe(
        torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(1)),
        height=height,
        width=width,
        num_frames=arguments.frames,
        num_inference_steps=arguments.steps,
        generator=torch.Generator().manual_seed(0),
        output_type="pt",
        callback_on_step_end=stamp,
    ).frames
    print(
        json.dumps(
            {
                "model": arguments.model,
                "frames": list(video.shape),
                "finite": bool(video.isfinite().all()),
                "parameters": {
                    name: sum(p.numel() for p in part.parameters())
                    for name, part in pipe.components.items()
                    if isinstance(part, torch.nn.Module)
                },
                "seconds to build": round(built, 1),
                "seconds per step": [round(b - a, 2) for a, b in zip([began, *stamps], stamps, strict=False)],
                "peak memory, GB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 1),
                "peak on the GPU, GB": round(torch.cuda.max_memory_allocated() / 2**30, 1)
                if arguments.device == "cuda"
                else None,
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
