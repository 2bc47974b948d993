"""What a training step costs: its time against that of the network's forward and backward pass alone.

    python benchmarks/training_step.py                       # about 6 minutes on two idle cores
    python benchmarks/training_step.py --steps 4 --rounds 1  # about 1 minute

Three ways to the clips: latents from the cache; videos that the training process decodes and encodes itself; videos
that another process decodes and encodes ahead. Bare is the network's call, with the inputs of an encoded clip of the
same videos, and the gradient of its squared output: no optimizer, no noise to draw. All is float32, with one thread
per process; runs and bare passes alternate, since the machine may be slower one moment than the next. The first step
of a run is left out: it waits for the first clips.

Two clocks: processor time of the training process, which other programs hardly change and which leaves out what the
process that reads ahead does; and time on the wall, which means something only while two cores are idle.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import mean, median
from typing import Any, NamedTuple

import torch

from unstill.data import synthetic_world
from unstill.data.seeding import generator_for
from unstill.data.video import write_video
from unstill.models.registry import find, load
from unstill.training import parameters
from unstill.training.encoded_dataset import Encoder
from unstill.training.loss import batch_of
from unstill.training.recipe import Recipe
from unstill.training.setup import objective_of, opened, usual_clip
from unstill.training.trainer import train


WAYS: dict[str, dict[str, Any]] = {
    "latents from the cache": {"cache": True, "workers": 0},
    "videos, decoded and encoded by the training process": {"cache": False, "workers": 0},
    "videos, decoded and encoded ahead by one process": {"cache": False, "workers": 1},
}
UPSCALE = 4  # of the videos: what people train on is larger than what pico sees
REPEATS = 3


def recipe_of(model: str, videos: Path, steps: int, batch: int, **data: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "model": model,
            "data": {"videos": str(videos), "fps": 8, **data},
            "condition": {"maximum": 1.0, "condition_on_level": True},
            "train": {"steps": steps, "batch": batch, "learning_rate": 1e-4},
            "save": {"every": 10**6},
        }
    )


def write_videos(folder: Path, model: str, count: int) -> None:
    """Videos of twice the length of a clip, at twice its rate and `UPSCALE` times its size."""
    frames, _, (side, _) = usual_clip(load(model, device="cpu"), find(model))
    g = torch.Generator().manual_seed(0)
    for i in range(count):
        scene = synthetic_world.sample_scene(1, g, size=side)
        clip = synthetic_world.render(scene, synthetic_world.sample_motion(scene, g), 4 * frames, side)
        write_video(folder / f"{i:03d}.mp4", clip.video[0], 16, upscale=UPSCALE)


class Bare:
    """
    The forward and backward pass of the network on a batch of encoded clips.

    Attributes:
        arguments: of the network's call, as the trainer calls it.
        parts: seconds of processor time that the other parts of a step take: for one clip, or for all weights.
    """

    def __init__(self, recipe: Recipe) -> None:
        pipe, family, source = opened(recipe)
        for part in (pipe.vae, getattr(pipe, family.denoiser)):
            part.requires_grad_(False).eval()
        batch = recipe.train.batch
        encoder = Encoder(pipe, family)
        clips = [encoder(source.read(i % len(source)), generator_for("encode", i)) for i in range(batch)]
        self.network = getattr(pipe, family.denoiser)
        trained = parameters.select(self.network)
        self.network.train()
        calls: list[tuple[Any, ...]] = []
        with self.network.register_forward_pre_hook(lambda network, given: calls.append(given)):
            dropped, shape = family.dropped(pipe, clips[0]), clips[0]["latents"].shape
            objective = objective_of(recipe, pipe, family, dropped, shape)
            given = batch_of(clips, torch.device("cpu"))
            errors, _ = objective.errors(self.network, given, [generator_for("step", i) for i in range(batch)])
        errors.mean().backward()
        self.arguments = calls[0]
        optimizer = torch.optim.AdamW(trained.values(), 1e-9)
        average, sample = parameters.Average(trained, 0.9999), source.read(0)
        self.parts = {
            "decode a clip": seconds(lambda: source.read(0)).processor,
            "encode a clip": seconds(lambda: encoder(sample, generator_for(0))).processor,
            "norm of the gradient": seconds(lambda: torch.nn.utils.clip_grad_norm_(trained.values(), 1.0)).processor,
            "AdamW": seconds(optimizer.step).processor,
            "average": seconds(lambda: average.update(1)).processor,
        }
        self.network.zero_grad()

    def __call__(self) -> None:
        self.network(*self.arguments, return_dict=False)[0].square().mean().backward()
        self.network.zero_grad(set_to_none=True)


class Seconds(NamedTuple):
    """Of this process's processor, and on the wall."""

    processor: float
    wall: float


def now() -> Seconds:
    return Seconds(time.process_time(), time.perf_counter())


def median_of(times: Sequence[Seconds]) -> Seconds:
    """The medians of the differences between one time and the next."""
    pairs = list(pairwise(times))
    return Seconds(
        median(after.processor - before.processor for before, after in pairs),
        median(after.wall - before.wall for before, after in pairs),
    )


def seconds(call: Callable[[], Any]) -> Seconds:
    """The median time of a call, after one that warms up."""
    call()
    times = [now()]
    for _ in range(REPEATS):
        call()
        times.append(now())
    return median_of(times)


def step_time(recipe: Recipe, out: Path) -> tuple[Seconds, float]:
    """The median time of the steps of a run but the first, and the share of the run in which it waited for clips."""
    reported = []

    def report(stage: str, done: int, total: int, figures: str) -> None:
        if stage == "training":
            reported.append(now())

    result = train(recipe, out, report)
    assert result is not None
    return median_of(reported), result.waiting


def main(words: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="pico")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--clips", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args(words)
    torch.set_num_threads(1)
    found: dict[str, list[tuple[float, float, float]]] = {way: [] for way in WAYS}
    bare_times = []
    with tempfile.TemporaryDirectory() as name:
        videos = Path(name, "videos")
        write_videos(videos, chosen.model, chosen.clips)
        bare = Bare(recipe_of(chosen.model, videos, chosen.steps, chosen.batch))
        before = seconds(bare)
        for number in range(chosen.rounds):
            for way, data in WAYS.items():
                recipe = recipe_of(chosen.model, videos, chosen.steps, chosen.batch, **data)
                step, waiting = step_time(recipe, Path(name, f"{number} {way}"))
                after = seconds(bare)
                found[way].append(
                    (
                        2 * step.processor / (before.processor + after.processor),
                        2 * step.wall / (before.wall + after.wall),
                        waiting,
                    )
                )
                bare_times.append(after)
                before = after
    rows = []
    for way, rounds in found.items():
        processor, wall, waiting = zip(*rounds, strict=True)
        rows.append(
            {
                "clips": way,
                "step / bare, processor time": round(mean(processor), 3),
                "of each round": [round(ratio, 3) for ratio in processor],
                "step / bare, wall": round(mean(wall), 3),
                "of each round, wall": [round(ratio, 3) for ratio in wall],
                "waiting": round(mean(waiting), 4),
            }
        )
    result = {
        "bare, seconds of processor time": round(median(t.processor for t in bare_times), 3),
        "bare, seconds": round(median(t.wall for t in bare_times), 3),
        "parts, milliseconds of processor time": {part: round(1000 * s, 1) for part, s in bare.parts.items()},
        "load average": os.getloadavg()[0],
        "rows": rows,
    }
    print(json.dumps(result, indent=1))
    if chosen.json:
        chosen.json.write_text(json.dumps(result, indent=1) + "\n")
    return result


if __name__ == "__main__":
    main()
