"""What every method does to the embedded model, on the same images and noise.

    python benchmarks/methods_on_pico.py --out docs/methods/measured.json     # about 10 minutes on one core

Motion is read by an optical-flow estimator (DIS) in the units of the requested level; fidelity by weight-free proxies
and by the first frame's error. Every figure has a 95 % interval over images; "more than plain" is paired.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
from pico_report import flow, held_out, interval, show
from torch import Tensor

import unstill
from unstill.data import synthetic_world
from unstill.metrics import first_frame_error, proxy_colour_fidelity, proxy_edge_fidelity
from unstill.models.pico import PicoPipeline
from unstill.models.pico.pipeline import WEIGHTS


def settings(statistics: unstill.LatentStatistics) -> dict[str, tuple]:
    """Name to methods. Where a method has a level, the one that suits a variance-exploding model of sigma 200."""
    return {
        "plain": (),
        "EarlyStart(sigma=20)": (unstill.EarlyStart(sigma=20.0),),
        "EarlyStart(sigma=6)": (unstill.EarlyStart(sigma=6.0),),
        "AnalyticInit(sigma=20)": (unstill.AnalyticInit(sigma=20.0, statistics=statistics),),
        "AnalyticInit(sigma=6)": (unstill.AnalyticInit(sigma=6.0, statistics=statistics),),
        "ImageStart(sigma=6)": (unstill.ImageStart(sigma=6.0),),
        "NoiseRectification()": (unstill.NoiseRectification(),),
        "FrameInit()": (unstill.FrameInit(),),
        "ProgressiveNoise()": (unstill.ProgressiveNoise(),),
        "ConditioningAugmentation(level=0.05)": (unstill.ConditioningAugmentation(level=0.05),),
        "AnalyticInit(sigma=6), NoiseRectification()": (
            unstill.AnalyticInit(sigma=6.0, statistics=statistics),
            unstill.NoiseRectification(),
        ),
    }


def measure(pipe: PicoPipeline, images: Tensor, methods: tuple, motion: float) -> dict[str, list[float]]:
    figures: dict[str, list[float]] = {"motion": [], "first_frame": [], "colour": [], "detail": [], "seconds": []}
    for i, image in enumerate(images):
        began = time.process_time()
        with unstill.apply(pipe, *methods):
            g = torch.Generator().manual_seed(i)
            video = pipe(image[None], motion=motion, generator=g, output_type="pt").frames[0]
        figures["seconds"].append(time.process_time() - began)
        figures["motion"].append(flow(video))
        figures["first_frame"].append(first_frame_error(video, image))
        figures["colour"].append(proxy_colour_fidelity(video, image))
        figures["detail"].append(proxy_edge_fidelity(video, image))
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("docs/methods/measured.json"))
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--motion", type=float, default=0.6)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    pipe = PicoPipeline.embedded()
    pipe.set_progress_bar_config(disable=True)
    scene, motion = held_out(chosen.images)
    images = synthetic_world.render(scene, motion, frames=1).video[:, 0]
    statistics = unstill.LatentStatistics.load(WEIGHTS / "statistics.safetensors")
    rows, plain = [], None
    for name, methods in settings(statistics).items():
        figures = measure(pipe, images, methods, chosen.motion)
        plain = plain or figures
        row: dict[str, object] = {"methods": name} | {k: interval(v) for k, v in figures.items()}
        row["more_motion"] = interval([a - b for a, b in zip(figures["motion"], plain["motion"], strict=True)])
        rows.append(row)
        print(f"{name:45s} motion {show(interval(figures['motion']))}", flush=True)
    chosen.out.write_text(json.dumps({"images": len(images), "requested": chosen.motion, "rows": rows}, indent=1))
    chosen.out.with_suffix(".md").write_text(table(rows, len(images), chosen.motion))


def table(rows: list[dict], images: int, motion: float) -> str:
    """The same in Markdown."""

    def cell(value: dict[str, float], form: Callable[[float], str]) -> str:
        return f"{form(value['mean'])} ± {form(value['half_width'])}"

    lines = [
        "# Measured on the embedded model",
        "",
        f"`python benchmarks/methods_on_pico.py`: {images} pictures of the synthetic world, requested motion "
        f"{motion:g}, 25 steps, the same noise for every row. 95 % intervals over pictures.",
        "",
        "| methods | motion | more than plain | first frame off by | colour (proxy) | detail (proxy) | CPU seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [
            cell(row["motion"], "{:.3f}".format),
            cell(row["more_motion"], "{:+.3f}".format).replace("± +", "± "),
            cell(row["first_frame"], "{:.3f}".format),
            cell(row["colour"], "{:.2f}".format),
            cell(row["detail"], "{:.2f}".format),
            f"{row['seconds']['mean']:.1f}",
        ]
        lines.append(f"| {row['methods']} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
