"""The page and the plot of `time_noise_on_pico.py`."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib


matplotlib.use("Agg")
import matplotlib.pyplot as plt

from unstill.lab.bootstrap import Interval
from unstill.lab.interval_text import between, signed


MEASURES = ("travel", "flow", "outline", "colour", "first_frame_error")
NAIVE, TIME_NOISE, RESIDUAL = "clean image (naive)", "TimeNoise", "prediction and residual"
CONTROL = "clean image, trained on"
DIFFERENCES = {
    NAIVE: "Difference to naive fine-tuning, paired by picture:",
    CONTROL: "Difference to its control, paired by picture:",
}
VIDEO_COLUMNS = ("travel", "flow", "outline", "colour", "first-frame error")


def page(found: dict[str, Any], words: str) -> str:
    s, arms = found["settings"], found["arms"]
    precision = "bfloat16 (autocast)" if s["bfloat16"] else "float32"
    lines = [
        "# TimeNoise and others measured on the embedded model",
        "",
        f"`{found['command']}`:",
        f"a LoRA of rank 16 on {s['clips']} clips that hardly move, as by the recipe `pico-still`: {s['steps']} steps",
        f"of 4 clips, AdamW, learning rate 1e-3, {precision}, one seed. No motion level and no caption is given, in",
        f"training and here. The arm *{RESIDUAL}* makes two passes per clip and so has 2 clips a step. Two passes",
        f"have to be learned: before it, all weights were trained on clips of every speed, {s['base_steps']} steps of",
        f"4 clips. Its control, *{CONTROL}*, was fine-tuned from weights that were trained before as usual,",
        "for as many passes (8 clips a step). The others start from the weights of the package. Brackets: 95 %",
        "bootstrap intervals over pictures or clips.",
        "",
        words.strip(),
        "",
        "## Videos",
        "",
        f"{s['scenes']} pictures that no training has seen, the same noise in every row, the default scheduler and",
        "steps, without guidance. The measures are those of [a model that stands still](../pico/still.md).",
        "",
        _header(VIDEO_COLUMNS),
        *(_row(arm, [by[m] for m in MEASURES]) for arm, by in arms.items()),
        "",
    ]
    for other, about in DIFFERENCES.items():
        gained = found["differences"].get(other, {})
        if gained:
            lines += [about, "", _header(VIDEO_COLUMNS)]
            lines += [_row(arm, [by[m] for m in MEASURES], signed) for arm, by in gained.items()] + [""]
    columns = [f"sigma {x:g}" for x in found["sigmas"]]
    lines += [
        "## What is kept of the motion that the noisy clip tells",
        "",
        f"One-step predictions of {s['probes']} lively clips: R2 against the clip standing still (1: the truth, 0: a",
        "static copy of the image). What is missing to the best possible prediction, which knows the image and the",
        "motions of the world, is lost; a network that copies its image loses it even where the noisy clip tells all.",
        "",
        _header(columns),
        *(_row(arm, by["explained"]) for arm, by in arms.items()),
        _row("*best possible*", arms[NAIVE]["best"]),
        "",
    ]
    for other, about in DIFFERENCES.items():
        gained = found["differences"].get(other, {})
        if gained:
            lines += [about.replace("picture", "clip"), "", _header(columns)]
            lines += [_row(arm, by["explained"], signed) for arm, by in gained.items()] + [""]
    lines += [
        "## How far the training has come",
        "",
        f"RMS error of one-step predictions of {s['probes']} slow clips like those of the fine-tuning (latents have",
        "deviation 1): an arm that is behind here has had less of the fine-tuning, whatever its videos do.",
        "",
        _header(columns),
        *(_row(arm, by["slow_error"]) for arm, by in arms.items()),
        "",
        "![explained motion by noise level, and travel of the videos](time_noise_measured.png)",
    ]
    return "\n".join(lines) + "\n"


def _header(columns: Sequence[str]) -> str:
    return f"| fine-tuned with | {' | '.join(columns)} |\n" + "|---" * (1 + len(columns)) + "|"


def _row(name: str, values: list[dict[str, Any]], text: Callable[[Interval], str] = between) -> str:
    return f"| {name} | {' | '.join(text(Interval(**value)) for value in values)} |"


def plot(found: dict[str, Any], path: Path) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.4), layout="constrained")
    colours = dict(zip(found["arms"], ("0.6", "k", "C0", "C1", "C2", "0.8", "C4", "C5", "C3"), strict=False))
    for place, (arm, by) in enumerate(found["arms"].items()):
        y = by["explained"]
        values, low, high = ([level[k] for level in y] for k in ("value", "low", "high"))
        left.plot(found["sigmas"], values, label=arm, color=colours[arm])
        left.fill_between(found["sigmas"], low, high, alpha=0.1, linewidth=0, color=colours[arm])
        travel = by["travel"]
        off = [[travel["value"] - travel["low"]], [travel["high"] - travel["value"]]]
        right.errorbar([travel["value"]], [-place], xerr=off, fmt="o", color=colours[arm])
    best = [level["value"] for level in found["arms"][NAIVE]["best"]]
    left.plot(found["sigmas"], best, "k--", label="best possible")
    left.set_xscale("log")
    left.set(xlabel="sigma", title="explained motion of lively clips")
    right.set(title="travel of the videos", xlabel="units of the motion level", xlim=(0, None))
    right.set_yticks([-i for i in range(len(found["arms"]))], list(found["arms"]))
    for axis in (left, right):
        axis.grid(alpha=0.25)
    left.legend(frameon=False, fontsize="small")
    figure.savefig(path, dpi=80)
    plt.close(figure)
