"""Does the embedded model move as much as it is asked to? Plainly and from an early start, by two measures.

    python benchmarks/pico_motion.py --out docs/pico        # 100 videos, 5 minutes on one idle core

Writes motion.json, motion.md and motion.png. Motion is read as travel, the path of the toys' centres, which flicker
cannot raise, and as optical flow (DIS), both in the units of the request. Intervals are 95 %, bootstrap over pictures;
slopes and offsets are those of the line through all videos, resampled by picture.
"""

import json
from pathlib import Path
from typing import Any

import matplotlib


matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from pico_videos import (
    MEASURES,
    SEED,
    HeldOut,
    animated,
    held_out_scenes,
    interval,
    measures,
    opened,
    parser_of,
    read_options,
)

import unstill
from unstill.data import synthetic_world
from unstill.lab.bootstrap import Interval, weights
from unstill.lab.interval_text import between, signed


LEVELS = (0.1, 0.2, 0.4, 0.7, 1.0)
STARTS: dict[str, tuple[unstill.Method, ...]] = {
    "plain": (),
    "early start, sigma 10": (unstill.EarlyStart(sigma=10.0),),
}
TRUE = "true clips"
COLOURS = ("#264653", "#e76f51")


def line(asked: np.ndarray, read: np.ndarray) -> dict[str, Interval]:
    """Least squares read = offset + slope * asked of (pictures, levels), resampled by picture."""
    pictures = len(read)
    drawn = weights(pictures) / pictures
    means = drawn @ read  # (draws, levels)
    x = asked - asked.mean()
    slope = (means - means.mean(1, keepdims=True)) @ x / (x @ x)
    offset = means.mean(1) - slope * asked.mean()
    return {"slope": Interval.of(slope, pictures), "offset": Interval.of(offset, pictures)}


def reference(scenes: HeldOut) -> np.ndarray:
    """(levels, pictures, measures) of true clips of these scenes whose exact motion is the level.

    It is what a perfect model would read. One motion per scene is drawn and scaled to each level.
    """
    drawn = synthetic_world.sample_motion(scenes.scene, torch.Generator().manual_seed(SEED + 2), level=0.5)
    table = []
    for level in LEVELS:
        motion = drawn
        for _ in range(3):  # toys that bounce make the score not quite proportional to the speed
            score = synthetic_world.render(scenes.scene, motion, size=32).motion
            motion = motion.scaled(level / score.clamp(min=0.02))
        clips = synthetic_world.render(scenes.scene, motion)
        found = [measures(video, scenes, i) for i, video in enumerate(clips.video)]
        table.append([[one[name] for name in MEASURES] for one in found])
    return np.array(table)


def page(result: dict[str, Any]) -> str:
    lines = [
        "# Does the embedded model move as much as it is asked to?",
        "",
        f"`{result['command']}`: {result['scenes']} pictures that no training run has seen,",
        f"{result['sampled']},",
        "the same noise in every row. *Travel* is the path of the toys' centres, *flow* mean optical flow (DIS), both",
        "in units of the request: as asked would be slope 1, offset 0. In brackets 95 % intervals over pictures; toys",
        "may move less than the picture does on average, so that travel varies more between pictures than flow.",
        "",
        "| start | asked | travel | flow | outline | colour | background error | first-frame error |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        cells = [between(Interval(**row[name])) for name in MEASURES]
        lines.append(f"| {row['start']} | {row['asked']:g} | {' | '.join(cells)} |")
    lines += [
        "",
        "*True clips* are clips that the world renders of the same pictures with exactly the motion asked for: what a",
        "perfect model would read. Their travel is too small, because a toy that is lost (its outline is found with",
        "an IoU below 0.6, behind another toy for example) counts as standing, and their flow too large, because of",
        "the estimator. Judge a row by its distance from theirs.",
        "",
        "| start | measure | slope | offset | more than plain, mean over levels |",
        "|---|---|---|---|---|",
    ]
    for start, fits in result["lines"].items():
        for name, fit in fits.items():
            more = signed(Interval(**fit["more"])) if fit["more"] else ""
            cells = [between(Interval(**fit[key])) for key in ("slope", "offset")]
            lines.append(f"| {start} | {name} | {' | '.join(cells)} | {more} |")
    return "\n".join([*lines, "", "![requested and measured motion](motion.png)", "", tried()])


def tried() -> str:
    """What is on the page but not measured by this script."""
    path = Path(__file__).with_name("pico_motion.words.md")
    return path.read_text("utf-8")


def plot(result: dict[str, Any], path: Path) -> None:
    figure, axes = plt.subplots(1, 2, figsize=(8.5, 3.6), sharey=True, constrained_layout=True)
    for axis, name in zip(axes, ("travel", "flow"), strict=True):
        for start, colour in zip((*STARTS, TRUE), (*COLOURS, "0.5"), strict=True):
            rows = [row for row in result["rows"] if row["start"] == start]
            middle = np.array([row[name]["value"] for row in rows])
            ends = np.array([[row[name]["low"], row[name]["high"]] for row in rows]).T
            error = np.abs(ends - middle)
            axis.errorbar(LEVELS, middle, error, label=start, color=colour, marker="o", markersize=4, capsize=2)
        axis.plot([0, 1], [0, 1], color="0.7", linestyle="--", label="as requested")
        axis.set(xlabel="requested motion", title=name)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set(ylabel="measured motion")
    axes[0].legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    options = read_options(parser_of(__doc__, scenes=10))
    pipe, name = opened(options)
    scenes = held_out_scenes(options.scenes)
    found: dict[str, np.ndarray] = {}  # start: (levels, pictures, measures)
    rows: list[dict[str, Any]] = []
    for start, methods in STARTS.items():
        table = []
        for level in LEVELS:
            videos = animated(pipe, scenes.images, options.work, name, methods, motion=level)
            read = [measures(video, scenes, i) for i, video in enumerate(videos)]
            table.append([[one[key] for key in MEASURES] for one in read])
        found[start] = np.array(table)
    found[TRUE] = reference(scenes)
    for start, figures in found.items():
        for level, one in zip(LEVELS, figures, strict=True):
            means = {key: interval(one[:, k]).as_dict() for k, key in enumerate(MEASURES)}
            rows.append({"start": start, "asked": level, **means})
            print(start, level, {key: round(value["value"], 3) for key, value in means.items()}, flush=True)
    lines: dict[str, Any] = {}
    for start, table in found.items():
        lines[start] = {}
        for k, key in enumerate(("travel", "flow")):
            fit: dict[str, Any] = {
                name: one.as_dict() for name, one in line(np.array(LEVELS), table[..., k].T).items()
            }
            more = (
                interval((table - found["plain"])[..., k].mean(0)).as_dict() if start not in ("plain", TRUE) else None
            )
            lines[start][key] = fit | {"more": more}
    result = {
        "command": options.command,
        "sampled": options.sampled,
        "scenes": options.scenes,
        "rows": rows,
        "lines": lines,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "motion.json").write_text(json.dumps(result, indent=1) + "\n")
    (options.out / "motion.md").write_text(page(result))
    plot(result, options.out / "motion.png")
    print(page(result))


if __name__ == "__main__":
    main()
