"""How much of the time a training run really trains: against the bare forward and backward pass.

    python benchmarks/training_step.py                      # about 4 minutes on one idle core
    python benchmarks/training_step.py --steps 3 --clips 16

Three ways to the clips: latents from the cache, and videos decoded and encoded as they are needed, by the training
process itself or by one that reads ahead. Bare is the same network on one batch that is there, without an optimizer.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from unstill.data import synthetic_world
from unstill.data.sources import generator_for
from unstill.data.video import write_video
from unstill.families.registry import training_for
from unstill.forward_process import ForwardProcess
from unstill.models.registry import load
from unstill.training.condition_noise import plan_of
from unstill.training.loss import ConditionDropout, Objective
from unstill.training.noise_sampling import schedule_of
from unstill.training.recipe import Recipe
from unstill.training.trainer import train


def recipe(videos: str, steps: int, batch: int, **data: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "model": "pico",
            "data": {"videos": videos, "fps": 8, **data},
            "condition": {"maximum": 1.0, "condition_on_level": True},
            "train": {"steps": steps, "batch": batch, "learning_rate": 1e-4},
            "save": {"every": 10**6},
        }
    )


def bare(steps: int, batch: int) -> float:
    """Clips per second of forward and backward passes on one batch."""
    pipe: Any = load("pico", device="cpu")
    family = training_for(pipe)
    shape = (batch, 6, 8, 16, 16)
    g = torch.Generator().manual_seed(0)
    clips = {
        "latents": torch.randn(shape, generator=g),
        "image": torch.randn(batch, 6, 1, 16, 16, generator=g),
        "text": torch.zeros(batch, 12, 32),
        "fps": torch.full((batch,), 8.0),
        "motion": torch.full((batch,), 50.0),
    }
    nothing = {"text": torch.zeros(12, 32)}
    plan = plan_of("pico", parameters={"maximum": 1.0}, condition_on_level=True)
    objective = Objective(family, schedule_of(ForwardProcess.of(pipe.scheduler)), plan, ConditionDropout(), nothing)
    network = pipe.transformer.train()
    began = 0.0
    for step in range(steps + 1):
        if step == 1:  # the first one warms up
            began = time.perf_counter()
        errors, _ = objective.errors(network, clips, [generator_for(step, i) for i in range(batch)])
        errors.mean().backward()
        network.zero_grad(set_to_none=True)
    return steps * batch / (time.perf_counter() - began)


def folder_of_videos(folder: Path, count: int) -> None:
    g = torch.Generator().manual_seed(0)
    scene = synthetic_world.sample_scene(count, g, size=96)
    for i, video in enumerate(synthetic_world.render(scene, synthetic_world.sample_motion(scene, g), 16, 96).video):
        write_video(folder / f"{i:03d}.mp4", video, 8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--clips", type=int, default=64)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        folder_of_videos(work / "videos", chosen.clips)
        for about, data in (
            ("latents from the cache", {"cache": True, "workers": 0}),
            ("videos, read by the training process", {"cache": False, "workers": 0}),
            ("videos, read ahead by one process", {"cache": False, "workers": 1}),
        ):
            chosen_recipe = recipe(str(work / "videos"), chosen.steps, chosen.batch, **data)
            # Before and after: the machine may be slower one moment than the next.
            before = bare(max(3, chosen.steps // 4), chosen.batch)
            result = train(chosen_recipe, work / about.replace(" ", "-"), lambda *_: None)
            assert result is not None
            after = bare(max(3, chosen.steps // 4), chosen.batch)
            row = {
                "clips": about,
                "clips_per_second": round(result.clips_per_second, 2),
                "bare": round((before + after) / 2, 2),
                "share_of_bare": round(2 * result.clips_per_second / (before + after), 3),
                "waiting": round(result.waiting, 4),
            }
            rows.append(row)
            print(json.dumps(row), flush=True)
    if chosen.json:
        chosen.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
