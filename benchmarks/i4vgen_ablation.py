"""I4VGen on the embedded model, part by part: without choosing, without NI-VSDS, without either stage.

    python benchmarks/i4vgen_ablation.py    # some minutes on one core; writes docs/i4vgen/ablation.md, .json, .png

All rows share captions, seeds, steps and guidance. Motion is read by an optical-flow estimator (DIS) in the units of
the requested level; what the video shows of its caption by the reward `world`, on every frame; fidelity to the anchor
by the first frame's error and a weight-free proxy of colour. Intervals and differences are paired over captions.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from early_selection import captions
from PIL import Image
from torch import Tensor

import unstill
from unstill.data import synthetic_world
from unstill.data.contact_sheets import contact_sheet
from unstill.lab.bootstrap import Interval, weights
from unstill.metrics import first_frame_error, motion_score, proxy_coherence, proxy_colour_fidelity
from unstill.models.pico import PicoPipeline
from unstill.text_to_video.rewards import score
from unstill.text_to_video.world_reward import world


FIGURES = {
    "motion": "motion",
    "caption": "shows of its caption",
    "first_frame": "first frame off the anchor by",
    "colour": "colours of the anchor (proxy)",
    "coherence": "coherence (proxy)",
}
SHOWN = 2  # captions on the sheet
LOWER = (0.64, 0.4)  # regenerated from sigma 21 and 2.8 of 200


def flow(video: Tensor) -> float:
    """Of a clip (F, 3, H, W), in the units of the requested level."""
    return motion_score(video, flow="dis", size=(256, 256), reduction="mean") / 256 / synthetic_world.SCORE_UNIT


def pictures(video: Tensor) -> list[Image.Image]:
    return [Image.fromarray(frame.permute(1, 2, 0).contiguous().numpy()) for frame in video]


def measure(video: Tensor, anchor: Image.Image | None, prompt: str) -> dict[str, float]:
    shown = float(np.mean(score(world, prompt, pictures(video))))
    figures = {"motion": flow(video), "caption": shown, "coherence": proxy_coherence(video)}
    if anchor is not None:
        picture = torch.from_numpy(np.array(anchor)).permute(2, 0, 1)
        figures["first_frame"] = first_frame_error(video, picture)
        figures["colour"] = proxy_colour_fidelity(video, picture)
    return figures


def variants(pipe: PicoPipeline, prompt: str, seed: int, chosen: argparse.Namespace) -> dict[str, tuple]:
    """Name to video and the anchor it came from, if any."""
    call = {"num_inference_steps": chosen.steps, "motion": chosen.motion, "guidance_scale": chosen.guidance}

    def i4vgen(**options: object) -> unstill.text_to_video.I4VGen:
        generator = torch.Generator().manual_seed(seed)
        return unstill.i4vgen(
            pipe, prompt, candidates=chosen.candidates, generator=generator, folder=folder, **call, **options
        )

    def plainly(**options: object) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        video = pipe(**options, prompt=prompt, generator=generator, output_type="pt", **call).frames[0]
        return (video * 255).round().to(torch.uint8)

    with tempfile.TemporaryDirectory() as folder:  # the candidates are made once
        full, first = i4vgen(), i4vgen(pick=0)
        still, released = i4vgen(preset=unstill.NIVSDS(step_size=0.0)), i4vgen(preset="released")
        # From lower levels, where less of what the loop has made is lost in noise.
        lower = {
            f"{name}, regenerate={share:g}": i4vgen(preset=unstill.NIVSDS(regenerate=share, step_size=size))
            for share in LOWER
            for name, size in (("I4VGen", 1.0), ("without NI-VSDS", 0.0))
        }
    return {
        "text to video, plainly": (plainly(), None),
        "image to video from the chosen picture, plainly": (plainly(image=full.anchor), full.anchor),
        "I4VGen": (full.frames, full.anchor),
        "without selection (candidate 0)": (first.frames, first.anchor),
        "without NI-VSDS": (still.frames, still.anchor),
        "I4VGen, preset released": (released.frames, released.anchor),
        **{name: (made.frames, made.anchor) for name, made in lower.items()},
        "NI-VSDS before the regeneration": (full.animated, full.anchor),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("docs/i4vgen/ablation.json"))
    parser.add_argument("--prompts", type=int, default=24)
    parser.add_argument("--candidates", type=int, default=16)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--motion", type=float, default=0.6)
    parser.add_argument("--guidance", type=float, default=2.0)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    pipe = PicoPipeline.embedded()
    pipe.set_progress_bar_config(disable=True)
    told, began = captions(chosen.prompts), time.perf_counter()
    figures: dict[str, list[dict[str, float]]] = {}
    shown: list[tuple[str, Tensor]] = []

    for i, prompt in enumerate(told):
        videos = variants(pipe, prompt, i, chosen)
        for name, (video, anchor) in videos.items():
            figures.setdefault(name, []).append(measure(video, anchor, prompt))
        if i < SHOWN:
            shown += [(name, video) for name, (video, _) in videos.items()]
        print(f"{i:3d} {prompt}: " + ", ".join(f"{rows[-1]['motion']:.2f}" for rows in figures.values()), flush=True)

    made = {
        **vars(chosen),
        "out": None,
        "shown": told[:SHOWN],
        "seconds": round(time.perf_counter() - began),
        "rows": rows_of(figures),
    }
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    chosen.out.write_text(json.dumps(made, indent=1) + "\n")
    chosen.out.with_suffix(".md").write_text(table(made))
    sheet = contact_sheet([video for _, video in shown], [name for name, _ in shown], frames=8, panel=72)
    sheet.quantize(256).save(chosen.out.with_suffix(".png"), optimize=True)


def rows_of(figures: dict[str, list[dict[str, float]]]) -> list[dict]:
    count = len(next(iter(figures.values())))
    counts = weights(count)
    rows = []
    for name, values in figures.items():
        row: dict[str, object] = {"name": name}
        for key in FIGURES:
            if key not in values[0]:
                continue
            x = np.array([one[key] for one in values])
            row[key] = Interval.of(counts @ x / count, count).as_dict()
            if key in figures["I4VGen"][0] and name != "I4VGen":
                y = np.array([one[key] for one in figures["I4VGen"]])
                row[f"{key}_less_than_i4vgen"] = Interval.of(counts @ (y - x) / count, count).as_dict()
        rows.append(row)
    return rows


def table(made: dict) -> str:
    def cell(row: dict, key: str) -> str:
        if key not in row:
            return ""
        value = row[key]
        return f"{value['value']:.3f} ({value['low']:.3f} to {value['high']:.3f})"

    lines = [
        "# I4VGen part by part, measured",
        "",
        f"`python benchmarks/i4vgen_ablation.py --prompts {made['prompts']}`: the embedded model, {made['prompts']} "
        f"captions, {made['candidates']} candidates each, reward `world`, {made['steps']} steps, requested motion "
        f"{made['motion']:g}, guidance {made['guidance']:g}; 95 % intervals over captions.",
        "",
        f"| | {' | '.join(FIGURES.values())} |",
        "|---" * (len(FIGURES) + 1) + "|",
    ]
    lines += [f"| {row['name']} | {' | '.join(cell(row, key) for key in FIGURES)} |" for row in made["rows"]]
    lines += [
        "",
        "What I4VGen has more of, paired over captions:",
        "",
        f"| than | {' | '.join(FIGURES.values())} |",
        "|---" * (len(FIGURES) + 1) + "|",
    ]
    for row in made["rows"]:
        if row["name"] != "I4VGen":
            cells = [cell(row, f"{key}_less_than_i4vgen") for key in FIGURES]
            lines.append(f"| {row['name']} | {' | '.join(cells)} |")
    captions_shown = " and ".join(f'"{prompt}"' for prompt in made["shown"])
    lines += ["", "![all of it for two captions](ablation.png)", "", f"*{captions_shown}, one after the other.*"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
