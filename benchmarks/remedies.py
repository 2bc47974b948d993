"""
Which remedy for which complaint: every method at several strengths, and pairs of them, on the embedded model that
stands still.

    python benchmarks/remedies.py --pictures 12 --out remedies --docs docs

Every picture is a comparison of its own in `--out` (sweep `remedies`), so that the same command continues where it was
stopped, and the page can be written of the pictures that are finished (`--pages`). Plain sampling in more steps is the
baseline of what costs more calls. With real models: `unstill compare --sweep remedies --model MODEL`.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import unstill
from unstill.data.files import replacing
from unstill.errors import UnstillError
from unstill.lab.aggregate import Row, summarise_cells
from unstill.lab.comparison_plots import plots_of
from unstill.lab.equal_calls import count_rows
from unstill.lab.interval_text import between, signed
from unstill.lab.method_grid import PLAIN, expand, split
from unstill.lab.sweeps import SWEEPS
from unstill.methods.parsing import parse_method
from unstill.models import registry


MODEL = "pico-still"
MOTION = 0.3  # asked for, with the pipeline's guidance on it; without guidance on the image
MORE_STEPS = 24  # costs about as much as predict-and-perturb with three repeats in 15 steps
JUDGED = ("travel", "outline", "toy_colour", "first_frame_error", "coherence")
COLUMNS = (
    ("travel", "travel"),
    ("outline", "outline"),
    ("toy_colour", "colour"),
    ("first_frame_error", "first frame off by"),
    ("coherence", "coherence"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--pictures", type=int, default=32)
    parser.add_argument("--out", type=Path, default=Path("remedies"))
    parser.add_argument("--docs", type=Path, help="folder of the documentation to write into")
    parser.add_argument("--pages", action="store_true", help="only write the page, of the finished pictures")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    if not chosen.pages:
        for i in range(chosen.pictures):
            sample_picture(chosen.out, i)
            print(f"{i + 1} of {chosen.pictures}", file=sys.stderr, flush=True)
    cells, pictures = finished(chosen.out, chosen.pictures)
    if not cells:
        raise UnstillError(f"{chosen.out} holds no finished picture; leave out --pages.")
    made = page(cells, pictures, calls(MODEL))
    if chosen.docs is None:
        print(made[0])
        return
    for name, text in zip(("lab/remedies.md", "lab/remedies-front.svg", "remedies.json"), made, strict=True):
        with replacing(chosen.docs / name) as part:
            part.write_text(text, encoding="utf-8")


def sample_picture(out: Path, i: int) -> None:
    """All settings on picture i of the synthetic world, with noise of seed i; and plain in more steps."""
    shared: dict[str, Any] = {"model": MODEL, "count": 1, "seed": i, "motion": MOTION, "guidance": 1.0}
    unstill.compare(sweep="remedies", out=out / str(i), **shared)
    more = {f"plain, {MORE_STEPS} steps": ()}
    unstill.compare(more, out=out / f"{i}-more-steps", steps=MORE_STEPS, **shared)


def finished(out: Path, pictures: int) -> tuple[list[dict[str, Any]], int]:
    """The cells of all pictures that have every setting, in the order of the sweep, and the number of pictures."""
    order = [PLAIN, *(name for text in SWEEPS["remedies"].settings for name in expand(text))]
    order.append(f"plain, {MORE_STEPS} steps")
    found = []
    for i in range(pictures):
        cells: dict[str, dict[str, Any]] = {}
        for folder in (out / str(i), out / f"{i}-more-steps"):
            for file in folder.glob("done/*.json"):
                cell = json.loads(file.read_text("utf-8"))
                if folder.name == str(i) or cell["setting"] != PLAIN:
                    cells[cell["setting"]] = cell | {"image": f"world {i}", "seed": 0, "motion_asked": None}
        if all(name in cells for name in order):
            found.append([cells[name] for name in order])
    return [one for column in zip(*found, strict=True) for one in column], len(found)


def calls(model: str) -> dict[str, int]:
    """Rows that the network computes for one video in every setting."""
    pipe: Any = registry.load(model)
    pipe.set_progress_bar_config(disable=True)
    image = torch.full((1, 3, pipe.size, pipe.size), 0.5)
    call = {"image": image, "motion": MOTION, "guidance_scale": 1.0}
    defaults = registry.defaults_of(model)
    found = {
        name: count_rows(pipe, call, [parse_method(one, defaults) for one in split(name)])
        for text in (PLAIN, *SWEEPS["remedies"].settings)
        for name in expand(text)
    }
    return found | {f"plain, {MORE_STEPS} steps": count_rows(pipe, call | {"num_inference_steps": MORE_STEPS})}


def page(cells: Sequence[dict[str, Any]], pictures: int, cost: dict[str, int]) -> tuple[str, str, str]:
    """The page, its plot and its JSON."""
    rows = [row for row in summarise_cells(list(cells)) if row.means]
    plain = rows[0]
    front = on_front([row for row in rows if cost[row.setting] <= cost[PLAIN]])
    moved = sorted((r for r in rows if sure(r, "travel") > 0), key=lambda r: -r.gains["travel"].value)
    calmed = sorted((r for r in rows if sure(r, "travel") < 0), key=lambda r: r.gains["travel"].value)
    closer = [row for row in rows if sure(row, "first_frame_error") < 0 or sure(row, "outline") > 0]
    unsure = [row for row in rows if row.gains and not any(sure(row, name) for name in JUDGED)]
    idle = [row for row in unsure if within(row, "travel", 0.1) and within(row, "outline", 0.03)]
    undecided = [row for row in unsure if row not in idle]
    lines = [
        "# Which remedy for which complaint",
        "",
        f"`python benchmarks/remedies.py --pictures {pictures} --docs docs`: {MODEL}, the embedded model after a "
        f"fine-tuning on clips that hardly move, {pictures} pictures of the synthetic world, 15 steps, motion "
        f"{MOTION:g} asked for, `guidance_scale=1`, the same noise in every row of a picture. In brackets 95 % "
        "bootstrap intervals over pictures; differences from plain are paired by picture. *Travel* is the path of the "
        "toys' centres, % of the picture's side per frame, which flicker cannot raise; *outline* how much of their "
        "shape they keep. A small model: what holds for it is a hypothesis for large ones.",
        "",
        f"Of {len(rows) - 1} settings some come out by chance: a difference counts here when its interval excludes 0, "
        "and nothing was corrected for their number.",
        "",
        "## It stands still",
        "",
        *listed(moved, cost, ("travel", "outline", "first_frame_error")),
        "",
        "## It moves too much",
        "",
        *listed(calmed, cost, ("travel", "outline", "first_frame_error")),
        "",
        "## It loses its image, or its objects",
        "",
        "Settings that keep the first frame or the outline better than plain:",
        "",
        *listed(closer, cost, ("first_frame_error", "outline", "travel")),
        "",
        "## What does nothing here",
        "",
        "No measure differs from plain's, and travel within 0.1, outline within 0.03: " + quoted(idle) + ".",
        "",
        f"Undecided, for {pictures} pictures are too few to tell them from plain: " + quoted(undecided) + ".",
        "",
        "`ConditionAmplitude` is not in the table: it acts on the clip of image latents that Wan sees, and pico sees "
        "none. What ReferenceBias does depends on how the model reads its image: pico has it in the channels of every "
        "frame as well, which a bias on the first frame's tokens leaves alone.",
        "",
        "## At equal cost",
        "",
        f"No setting of at most {cost[PLAIN]} calls of the network, plain's number, has both more travel and more "
        "outline than one of these: " + ", ".join(f"`{name}`" for name in front) + ".",
        "",
        f"What costs more is to be compared with plain in as many steps: `plain, {MORE_STEPS} steps` is in the table. "
        "The plot shows motion (optical flow) and fidelity (a proxy).",
        "",
        "![motion and fidelity of all settings](remedies-front.svg)",
        "",
        "## All settings",
        "",
        "| setting | calls | " + " | ".join(words for _, words in COLUMNS) + " | travel, more than plain |",
        "|---" * (len(COLUMNS) + 3) + "|",
    ]
    for row in rows:
        values = [between(row.means[name]) for name, _ in COLUMNS]
        gain = signed(row.gains["travel"]) if row is not plain else ""
        lines.append(f"| `{row.setting}` | {cost[row.setting]} | {' | '.join(values)} | {gain} |")
    svg = next(one.svg for one in plots_of(rows) if one.name == "front")
    record = {"pictures": pictures, "model": MODEL, "calls": cost, "rows": [row.as_dict() for row in rows]}
    return "\n".join(lines) + "\n", svg, json.dumps(record, indent=1) + "\n"


def sure(row: Row, metric: str) -> int:
    """1 or -1 where the paired difference from plain excludes 0; else 0."""
    gain = row.gains.get(metric)
    if gain is None or not gain.known or gain.low <= 0 <= gain.high:
        return 0
    return 1 if gain.low > 0 else -1


def within(row: Row, metric: str, bound: float) -> bool:
    """Whether the paired difference from plain is surely less than `bound`."""
    gain = row.gains[metric]
    return gain.known and -bound < gain.low and gain.high < bound


def quoted(rows: Sequence[Row]) -> str:
    return ", ".join(f"`{row.setting}`" for row in rows) or "none"


def listed(rows: Sequence[Row], cost: dict[str, int], metrics: Sequence[str]) -> list[str]:
    """A table of paired differences from plain."""
    if not rows:
        return ["None of these settings, with an interval that excludes 0."]
    names = dict(COLUMNS)
    lines = [
        "| setting | calls | " + " | ".join(f"{names[metric]}, difference" for metric in metrics) + " |",
        "|---" * (len(metrics) + 2) + "|",
    ]
    for row in rows:
        values = [signed(row.gains[metric]) for metric in metrics]
        lines.append(f"| `{row.setting}` | {cost[row.setting]} | {' | '.join(values)} |")
    return lines


def on_front(rows: Sequence[Row]) -> list[str]:
    """Settings that no other one exceeds in both travel and outline."""
    at = {row.setting: (row.means["travel"].value, row.means["outline"].value) for row in rows}
    beaten = lambda one: any(o[0] >= one[0] and o[1] >= one[1] and o != one for o in at.values())  # noqa: E731
    return [name for name, one in at.items() if not beaten(one)]


if __name__ == "__main__":
    main()
