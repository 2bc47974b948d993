"""What every method does to the embedded model, on the same images and noise.

    python benchmarks/methods_on_pico.py --out docs/methods        # 208 videos, 12 minutes on one idle core

No motion level is asked for, the default of the pipeline. Motion is read by an optical-flow estimator (DIS) and as
travel of the toys, in the units of the motion level;
fidelity by weight-free proxies, by the toys' outlines and by the first frame's error. Every figure has a 95 % interval
over pictures (normal approximation); "more than plain" is paired. Writes measured.json and measured.md.
"""

import json
import time
from collections.abc import Callable

import numpy as np
import torch
from pico_videos import HeldOut, held_out_scenes, measures, opened, parser_of, read_options

import unstill
from unstill.hooks import sampling
from unstill.metrics import proxy_colour_fidelity, proxy_edge_fidelity
from unstill.models.pico import PicoPipeline
from unstill.models.pico.pipeline import WEIGHTS


def settings(statistics: unstill.LatentStatistics) -> dict[str, tuple]:
    """Name to methods. Where a method has a level, the one that suits a variance-exploding model of sigma 200."""
    return {
        "plain": (),
        "EarlyStart(sigma=20)": (unstill.EarlyStart(sigma=20.0),),
        "EarlyStart(sigma=14)": (unstill.EarlyStart(sigma=14.0),),
        "EarlyStart(sigma=10)": (unstill.EarlyStart(sigma=10.0),),
        "AnalyticInit(sigma=20)": (unstill.AnalyticInit(sigma=20.0, statistics=statistics),),
        "AnalyticInit(sigma=14)": (unstill.AnalyticInit(sigma=14.0, statistics=statistics),),
        "AnalyticInit(sigma=10)": (unstill.AnalyticInit(sigma=10.0, statistics=statistics),),
        "ImageStart(sigma=10)": (unstill.ImageStart(sigma=10.0),),
        "NoiseRectification()": (unstill.NoiseRectification(),),
        "FrameInit()": (unstill.FrameInit(),),
        "ProgressiveNoise()": (unstill.ProgressiveNoise(),),
        "ConditioningAugmentation(level=0.05)": (unstill.ConditioningAugmentation(level=0.05),),
        "AnalyticInit(sigma=10), NoiseRectification()": (
            unstill.AnalyticInit(sigma=10.0, statistics=statistics),
            unstill.NoiseRectification(),
        ),
    }


FIGURES = ("motion", "travel", "outline", "first_frame", "colour", "detail", "seconds")


def interval(values: list[float]) -> dict[str, float]:
    x = np.array(values)
    return {"mean": float(x.mean()), "half_width": float(1.96 * x.std(ddof=1) / len(x) ** 0.5)}


def measure(pipe: PicoPipeline, scenes: HeldOut, methods: tuple[unstill.Method, ...]) -> dict[str, list[float]]:
    figures: dict[str, list[float]] = {name: [] for name in FIGURES}
    for i, image in enumerate(scenes.images):
        began = time.process_time()
        with sampling(pipe, *methods) as sampler:
            generator = torch.Generator().manual_seed(i)
            video = sampler(image[None], motion=None, generator=generator, output_type="pt").frames[0]
        figures["seconds"].append(time.process_time() - began)
        toys = measures(video, scenes, i)
        figures["motion"].append(toys["flow"])
        figures["travel"].append(toys["travel"])
        figures["outline"].append(toys["outline"])
        figures["first_frame"].append(toys["first_frame_error"])
        figures["colour"].append(proxy_colour_fidelity(video, image))
        figures["detail"].append(proxy_edge_fidelity(video, image))
    return figures


def main() -> None:
    options = read_options(parser_of(__doc__, scenes=16))
    pipe, _ = opened(options)
    scenes = held_out_scenes(options.scenes)
    statistics = unstill.LatentStatistics.load(WEIGHTS / "statistics.safetensors")
    rows, plain = [], None
    for name, methods in settings(statistics).items():
        figures = measure(pipe, scenes, methods)
        plain = plain or figures
        row: dict[str, object] = {"methods": name} | {k: interval(v) for k, v in figures.items()}
        for key in ("motion", "travel"):
            row[f"more_{key}"] = interval([a - b for a, b in zip(figures[key], plain[key], strict=True)])
        rows.append(row)
        print(name, {key: round(float(np.mean(values)), 3) for key, values in figures.items()}, flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    result = {"images": len(scenes), "rows": rows}
    (options.out / "measured.json").write_text(json.dumps(result, indent=1) + "\n")
    (options.out / "measured.md").write_text(table(rows, options.command, options.sampled, len(scenes)))


def table(rows: list[dict], command: str, sampled: str, pictures: int) -> str:
    """The same in Markdown."""

    def cell(value: dict[str, float], form: Callable[[float], str]) -> str:
        return f"{form(value['mean'])} ± {form(value['half_width'])}".replace("± +", "± ")

    lines = [
        "# Measured on the embedded model",
        "",
        f"`{command}`: {pictures} pictures that no training run has seen, no motion level asked for, {sampled}, the",
        "same noise for every row. *Motion* is optical flow (DIS), *travel* the path of the toys' centres, both in",
        "units of the motion level ([motion](../pico/motion.md)); *outline* is the IoU with the toy's outline in the",
        "picture. Flow also rises with flicker: read it with travel and outline. 95 % intervals over pictures.",
        "",
        "| methods | motion | more than plain | travel | more than plain | outline | first frame off by | "
        "colour (proxy) | detail (proxy) | CPU seconds |",
        "|" + "---|" * 10,
    ]
    plus, three, two = "{:+.3f}".format, "{:.3f}".format, "{:.2f}".format
    columns = (
        ("motion", three),
        ("more_motion", plus),
        ("travel", three),
        ("more_travel", plus),
        ("outline", two),
        ("first_frame", three),
        ("colour", two),
        ("detail", two),
    )
    for row in rows:
        cells = [cell(row[name], form) for name, form in columns]
        lines.append(f"| {row['methods']} | {' | '.join(cells)} | {row['seconds']['mean']:.1f} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
