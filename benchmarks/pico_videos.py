"""Pictures that no training run has seen, videos of them by the embedded model, and what is measured of a video.

Used by the other benchmarks of the embedded model. Videos are kept in a folder, so that a stopped command continues.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import unstill
from unstill.data import synthetic_world
from unstill.hooks import sampling
from unstill.lab.bootstrap import Interval, weights
from unstill.lab.fingerprint import model_fingerprint
from unstill.lab.toys import measure_toys, toy_masks
from unstill.methods.base import Method
from unstill.metrics import motion_score
from unstill.models.call_arguments import parameters
from unstill.models.pico import PicoPipeline


SEED = 77_000
"""Of the held-out scenes. Training draws its scenes from hashes of small numbers, so that it never draws these."""
DRAWN = 128
MEASURES = ("travel", "flow", "outline", "colour", "background_error", "first_frame_error")


@dataclass(frozen=True, eq=False)
class HeldOut:
    """
    Attributes:
        scene, motion: of the world; N of either.
        images: (N, 3, 96, 96) in [0, 1], the first frames.
        masks: per scene, see `toy_masks`.
        rates: (N,) mean travel per mean motion score of the clips that the world makes of this scene.
    """

    scene: synthetic_world.Scene
    motion: synthetic_world.Motion
    images: Tensor
    masks: list[Tensor]
    rates: Tensor

    def __len__(self) -> int:
        return len(self.images)


def held_out_scenes(n: int, motions: int = 24) -> HeldOut:
    """The first `n` held-out scenes with toys; `motions`: how many of each scene `rates` are taken from."""
    g = torch.Generator().manual_seed(SEED)
    scene = synthetic_world.sample_scene(DRAWN, g)  # the same scenes whatever n
    motion = synthetic_world.sample_motion(scene, g)
    chosen = torch.nonzero(scene.present.sum(1) > 0)[:n, 0]
    scene, motion = scene[chosen], motion[chosen]
    images = synthetic_world.render(scene, motion, 1).video[:, 0]
    many = scene[torch.arange(n).repeat_interleave(motions)]
    moved = synthetic_world.sample_motion(many, torch.Generator().manual_seed(SEED + 1))
    clips = synthetic_world.render(many, moved, size=32)
    rates = travelled(many, moved).view(n, motions).mean(1) / clips.score.view(n, motions).mean(1)
    masks = [toy_masks(scene[i : i + 1], synthetic_world.SIZE) for i in range(n)]
    return HeldOut(scene, motion, images, masks, rates)


def travelled(scene: synthetic_world.Scene, motion: synthetic_world.Motion) -> Tensor:
    """(N,) exact travel of the toys, picture sides per frame, as `unstill.lab.toys` measures it."""
    centres, _ = synthetic_world.paths(scene, motion)
    steps = (centres[:, 1:] - centres[:, :-1]).norm(dim=-1).mean(1)
    return (steps * scene.present).sum(1) / scene.present.sum(1)


def flow(video: Tensor) -> float:
    """Motion of a clip (F, 3, H, W) in [0, 1] as optical flow (DIS) sees it, in the units of the requested level."""
    pixels = motion_score(video, flow="dis", size=(256, 256), reduction="mean")
    return float(pixels) / 256 / synthetic_world.SCORE_UNIT


def measures(video: Tensor, scenes: HeldOut, i: int) -> dict[str, float]:
    """
    What is measured of a video (F, 3, 96, 96) in [0, 1] of picture `i`.

    Returns:
        `travel` and `flow` in the units of the requested motion level, so that either should equal it; the others as
        in `unstill.lab.toys`; `first_frame_error`, mean absolute difference of frame 0 from the picture.
    """
    toys = measure_toys(video, scenes.images[i], scenes.masks[i])
    assert toys is not None
    found = {
        "travel": toys.travel / 100 / float(scenes.rates[i]) / synthetic_world.SCORE_UNIT,
        "flow": flow(video),
        "outline": toys.outline,
        "colour": toys.colour,
        "background_error": toys.background_error,
        "first_frame_error": float((video[0] - scenes.images[i]).abs().mean()),
    }
    return {name: round(value, 5) for name, value in found.items()}


def kept(folder: Path, key: Any, make: Callable[[], Tensor]) -> Tensor:
    """A video (F, 3, H, W) in [0, 1]: the one kept under `key` in `folder`, or `make()`, kept."""
    name = hashlib.sha256(json.dumps(key, default=str).encode()).hexdigest()[:20]
    path = folder / f"{name}.safetensors"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        video = (make().clamp(0, 1) * 255).round().byte().contiguous()
        part = folder / f"{name}.part"
        save_file({"video": video}, part, {"key": json.dumps(key, default=str)})
        part.replace(path)
    return load_file(path)["video"].float() / 255


def animated(
    pipe: PicoPipeline,
    images: Tensor,
    folder: Path,
    model: str,
    methods: Sequence[Method] = (),
    **call: Any,
) -> list[Tensor]:
    """A video (F, 3, 96, 96) per picture (N, 3, 96, 96), with the noise of seed i; `model`: its name in the keys."""

    def make(i: int) -> Tensor:
        with sampling(pipe, *methods) as sampler:
            generator = torch.Generator().manual_seed(i)
            return sampler(images[i : i + 1], generator=generator, output_type="pt", **call).frames[0]

    defaults = {name: parameters(type(pipe))[name].default for name in ("num_inference_steps", "guidance_scale")}
    call = defaults | call
    scheduler = [type(pipe.scheduler).__name__, *sorted(pipe.scheduler.config.items())]
    pictures = [hashlib.sha256(image.numpy().tobytes()).hexdigest() for image in images]
    named = [model, scheduler, [repr(method) for method in methods], sorted(call.items())]
    return [kept(folder, [*named, picture, i], lambda i=i: make(i)) for i, picture in enumerate(pictures)]


def interval(values: Sequence[float] | np.ndarray) -> Interval:
    """Mean and 95 % bootstrap interval over pictures; of differences it is the paired one."""
    x = np.asarray(values, dtype=np.float64)
    drawn = weights(len(x))
    return Interval.of(drawn @ x / len(x), len(x))


def parser_of(about: str | None, *, scenes: int) -> argparse.ArgumentParser:
    """What all of these benchmarks take."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--scenes", type=int, default=scenes)
    parser.add_argument("--work", type=Path, default=Path("runs/pico-videos"), help="videos are kept here")
    parser.add_argument(
        "--bfloat16", action="store_true", help="the denoiser in bfloat16, for processors that have it"
    )
    return parser


def read_options(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The options, and in `command` and `sampled` how a page says that its figures were made."""
    options = parser.parse_args()
    precision = " --bfloat16" if options.bfloat16 else ""
    out = f"--out {options.out} --scenes {options.scenes}{precision}"
    options.command = f"python benchmarks/{Path(sys.argv[0]).name} {out}"
    options.sampled = "the default scheduler and steps" + (", the denoiser in bfloat16" if precision else "")
    return options


def opened(options: argparse.Namespace, model: str = "pico") -> tuple[PicoPipeline, str]:
    """An embedded model, and its name in the keys of kept videos."""
    torch.set_num_threads(1)
    pipe: Any = unstill.load(model, device="cpu")
    pipe.set_progress_bar_config(disable=True)
    if options.bfloat16:
        pipe.transformer.to(torch.bfloat16)
    return pipe, f"{model_fingerprint(model)} {pipe.transformer.dtype}"
