"""What stopping candidates early saves and costs, on the embedded model.

    python benchmarks/early_selection.py       # a few minutes on one core; writes docs/i4vgen/early.md and .json

Every prompt's candidates are made to the end once, and scored after several steps by the picture that the model
expects (its x0). Halving is then replayed on these scores: which candidate it would have chosen, how much worse that
one is, and how many picture-steps it would have made. Also measured: how well the reward reads rendered pictures.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from unstill.data import synthetic_world
from unstill.data.synthetic_drawing import SHAPES
from unstill.lab.bootstrap import Interval, weights
from unstill.models.pico import PicoPipeline
from unstill.text_to_video.candidates import Halving, ImageMode
from unstill.text_to_video.rewards import best, score
from unstill.text_to_video.world_reward import evidence, parse, world


LEVELS = (0.2, 0.3, 0.4, 0.5, 0.6)
SETTINGS = (
    Halving(at=(0.6,)),
    Halving(at=(0.4,)),
    Halving(at=(0.3, 0.6)),
    Halving(at=(0.2, 0.4)),
    Halving(at=(0.2, 0.4, 0.6)),
    Halving(at=(0.4,), keep=0.1),
)


def captions(count: int, seed: int = 91_000) -> list[str]:
    """Of scenes with a toy that no training run has seen."""
    generator = torch.Generator().manual_seed(seed)
    scene = synthetic_world.sample_scene(3 * count, generator)
    motion = synthetic_world.sample_motion(scene, generator)
    told = [synthetic_world.caption(scene, motion, i) for i in range(3 * count)]
    return [text for text in told if parse(text)[0]][:count]


def all_scores(mode: ImageMode, prompt: str, count: int, stops: list[int]) -> list[list[float]]:
    """Scores `(len(stops) + 1, count)`: after each stop of the expected pictures, at last of the finished ones."""
    samples, rows = mode.noise(count), []
    for since, until in zip([0, *stops], [*stops, None], strict=True):
        samples, expected = mode.advance(samples, since, until, lambda done: None)
        rows.append(score(world, prompt, mode.pictures(samples if until is None else expected)))
    return rows


def replay(halving: Halving, rows: list[list[float]], stops: list[int], steps: int) -> tuple[int, int]:
    """The candidate that halving would choose, and the picture-steps it would take."""
    alive, spent, since = list(range(len(rows[-1]))), 0, 0
    for stop in halving.stops(steps):
        spent += len(alive) * (stop - since)
        since, scores = stop, rows[stops.index(stop)]
        keep = max(1, int(np.ceil(len(alive) * halving.keep)))
        alive = sorted(sorted(alive, key=lambda i: -scores[i])[:keep])
    return alive[best([rows[-1][i] for i in alive])], spent + len(alive) * (steps - since)


def reading(count: int = 300) -> dict[str, float]:
    """How well the reward reads rendered pictures: the shape of a toy of known colour, the right one of 8 pictures."""
    generator = torch.Generator().manual_seed(92_000)
    scene = synthetic_world.sample_scene(count, generator)
    motion = synthetic_world.sample_motion(scene, generator)
    frames = (synthetic_world.render(scene, motion, frames=1).video[:, 0] * 255).round().byte()
    images = [Image.fromarray(frame.permute(1, 2, 0).contiguous().numpy()) for frame in frames]
    shapes, found, named = [], [], 0
    for i in range(count):
        told = synthetic_world.caption(scene, motion, i)
        toys, _ = parse(told)
        if not toys:
            continue
        named += 1
        others = [images[(i + step) % count] for step in range(8)]
        found.append(best(world(told, others)) == 0)
        pixels = torch.from_numpy(np.array(images[i].reduce(2))).permute(2, 0, 1) / 255
        for colour, shape in toys:
            shapes.append(SHAPES[int(evidence(pixels, colour).argmax())] == shape)
    return {"pictures": named, "toys": len(shapes), "shape": float(np.mean(shapes)), "one_of_8": float(np.mean(found))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("docs/i4vgen/early.json"))
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--candidates", type=int, default=16)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--guidance", type=float, default=2.0)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    pipe = PicoPipeline.embedded()
    pipe.set_progress_bar_config(disable=True)
    stops = Halving(at=LEVELS).stops(chosen.steps)
    runs, began = [], time.perf_counter()
    for i, prompt in enumerate(captions(chosen.prompts)):
        call = {"num_inference_steps": chosen.steps, "guidance_scale": chosen.guidance}
        generator = torch.Generator().manual_seed(i)
        mode = ImageMode(pipe, prompt, call, (pipe.size, pipe.size), chosen.candidates, generator)
        runs.append(all_scores(mode, prompt, chosen.candidates, stops))
        print(f"{i:3d} {runs[-1][-1][best(runs[-1][-1])]:.2f} {prompt}", flush=True)
    counts = weights(len(runs))
    rows = []
    for halving in SETTINGS:
        picks = [replay(halving, run, stops, chosen.steps) for run in runs]
        full = [best(run[-1]) for run in runs]
        same = np.array([pick == one for (pick, _), one in zip(picks, full, strict=True)], dtype=float)
        # 1: as good as the best of all; 0: as good as one at random
        kept = [(run[-1][pick] - np.mean(run[-1])) for (pick, _), run in zip(picks, runs, strict=True)]
        gain = [(run[-1][one] - np.mean(run[-1])) for one, run in zip(full, runs, strict=True)]
        spent = np.mean([steps for _, steps in picks]) / (chosen.candidates * chosen.steps)
        rows.append(
            {
                "at": halving.at,
                "keep": halving.keep,
                "saved": 1 - float(spent),
                "same": Interval.of(counts @ same / len(runs), len(runs), (0, 1)).as_dict(),
                "gain_kept": Interval.of(
                    (counts @ np.array(kept)) / (counts @ np.array(gain)), len(runs), (-np.inf, 1)
                ).as_dict(),
            }
        )
    made = {
        "prompts": len(runs),
        "candidates": chosen.candidates,
        "steps": chosen.steps,
        "guidance": chosen.guidance,
        "reading": reading(),
        "best": float(np.mean([max(run[-1]) for run in runs])),
        "mean": float(np.mean([np.mean(run[-1]) for run in runs])),
        "rows": rows,
        "seconds": round(time.perf_counter() - began),
    }
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    chosen.out.write_text(json.dumps(made, indent=1) + "\n")
    chosen.out.with_suffix(".md").write_text(table(made))


def table(made: dict) -> str:
    read = made["reading"]
    lines = [
        "# Stopping candidates early, measured",
        "",
        f"`python benchmarks/early_selection.py`: the embedded model, {made['prompts']} captions, "
        f"{made['candidates']} candidates each, {made['steps']} steps, guidance {made['guidance']:g}, reward `world`; "
        f"95 % intervals over captions. The best candidate scores {made['best']:.2f} on average, one at random "
        f"{made['mean']:.2f}.",
        "",
        "| compared after | kept each time | picture-steps saved | same choice | of the gain of choosing, kept |",
        "|---|---|---|---|---|",
    ]
    for row in made["rows"]:
        cells = [
            ", ".join(f"{share:.0%}" for share in row["at"]),
            f"{row['keep']:.0%}",
            f"{row['saved']:.0%}",
            *(
                f"{row[key]['value']:.0%} ({row[key]['low']:.0%} to {row[key]['high']:.0%})"
                for key in ("same", "gain_kept")
            ),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        f"The reward itself, on {read['pictures']} rendered pictures: of {read['toys']} "
        f"toys it reads {read['shape']:.0%} of the shapes right when it knows the colour, and it finds the picture "
        f"that a caption is of among 8 in {read['one_of_8']:.0%} of the cases.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
