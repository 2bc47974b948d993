"""
What the scores say of the embedded model started at lower and lower levels, until its videos break up; the floors of
`unstill.metrics.quick_scores` are chosen on the first set of scenes and checked on the second.

    python benchmarks/verdict.py --out tests/golden/metrics/verdict.json      # 60 videos, about 3 minutes of CPU

Besides these, the true renderings of the same scenes at motion levels 0.3, 0.7 and 1 are scored: motion that breaks
nothing up. Of the plain video there are two seeds ("200" and "200, another seed").
"""

import argparse
import json
from pathlib import Path

import torch
from torch import Tensor

from unstill.data import synthetic_world
from unstill.hooks import apply
from unstill.methods.early_start import EarlyStart
from unstill.metrics.quick_scores import kept, score_video, scores_verdict
from unstill.models.pico import PicoPipeline


SETS = {"chosen on": (501, 9_000), "checked on": (777, 31_000)}  # seeds of the scenes and of the noise
STARTS = (200, 20, 10, 5)
SCENES, STEPS, MOTION = 6, 12, 0.3


def scored(videos: list[Tensor], pictures: Tensor) -> list[dict[str, float]]:
    """Of videos (F, 3, H, W) and pictures (N, 3, H, W) in [0, 1]."""
    return [
        {key: round(value, 5) for key, value in score_video(eight_bits(video), eight_bits(picture)).items()}
        for video, picture in zip(videos, pictures, strict=True)
    ]


def eight_bits(values: Tensor) -> Tensor:
    return (values.clamp(0, 1) * 255).round().byte()


def of_scenes(pipe: PicoPipeline, scene_seed: int, noise_seed: int) -> dict[str, list[dict[str, float]]]:
    g = torch.Generator().manual_seed(scene_seed)
    scene = synthetic_world.sample_scene(SCENES, g)
    pictures = synthetic_world.render(scene, synthetic_world.sample_motion(scene, g), 2).video[:, 0]

    def sample(seed: int) -> list[Tensor]:
        return [
            pipe(
                picture[None],
                motion=MOTION,
                num_inference_steps=STEPS,
                generator=torch.Generator().manual_seed(seed + i),
                output_type="pt",
            ).frames[0]
            for i, picture in enumerate(pictures)
        ]

    made = {}
    for sigma in STARTS:
        with apply(pipe, *([EarlyStart(sigma=float(sigma))] if sigma < STARTS[0] else [])):
            made[str(sigma)] = scored(sample(noise_seed), pictures)
    made["200, another seed"] = scored(sample(noise_seed + 100), pictures)
    g = torch.Generator().manual_seed(5)
    for level in (0.3, 0.7, 1.0):
        true = synthetic_world.render(scene, synthetic_world.sample_motion(scene, g, level=level)).video
        made[f"true {level:g}"] = scored(list(true), pictures)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    pipe = PicoPipeline.embedded()
    pipe.set_progress_bar_config(disable=True)
    result = {name: of_scenes(pipe, *seeds) for name, seeds in SETS.items()}
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    for name, rows in result.items():
        for row, scores in rows.items():
            print(name, row, "kept", *(f"{kept(one):.2f}" for one in scores))
            if row not in ("200", "200, another seed") and not row.startswith("true"):
                print(*(scores_verdict(plain, one) for plain, one in zip(rows["200"], scores, strict=True)), sep="\n")


if __name__ == "__main__":
    main()
