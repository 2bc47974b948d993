"""The embedded model, fine-tuned on a folder of real videos: before and after.

    python benchmarks/pico_real_clips.py --videos clips --unseen bedroom.mp4 --out docs/pico --bfloat16

Of every video the first 60 % are trained on and clips of the rest are measured; a video that is named with --unseen is
measured only. The training is `unstill train pico-time-noise --videos FOLDER` with a clean image and with TimeNoise.
Measured are one-step predictions of the clips, whose motion a noisy clip tells in part, and videos that are made of
their first frames. A training that was stopped goes on from its last checkpoint. Writes real_clips.json, real_clips.md
and, in the folder of the work, a sheet of the videos (which shows the clips, so it is not part of the docs).
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pico_training import predict_x0, trained_model
from pico_videos import animated, flow, interval, opened
from torch import Tensor

from unstill.data.clips import video_files
from unstill.data.contact_sheets import contact_sheet
from unstill.data.video import read_video, video_info, write_video
from unstill.hooks import adapter_for
from unstill.lab.bootstrap import Interval, weights
from unstill.lab.interval_text import between, signed
from unstill.metrics.fidelity import first_frame_error, proxy_coherence, ssim
from unstill.models.pico.pipeline import FPS
from unstill.training.recipe import Recipe, read_recipe


SIZE, FRAMES = (96, 96), 16
RATE = 15.0  # frames per second of the clips: the videos are too short for the model's 8; the network is told 8
SHARE = 0.6  # of a video that is trained on
TEST_CLIPS = 3  # per video, evenly spaced
SIGMAS = (1.0, 4.0, 8.0, 16.0, 64.0)
ARMS: dict[str, dict[str, Any] | None] = {
    "before": None,
    "clean image": {"method": "none"},
    "TimeNoise": {"maximum": 1.0, "condition_on_level": True},
}
TRUE = "the clips themselves, encoded and decoded"
MEASURES = {
    "flow": "motion (optical flow)",
    "alike": "SSIM with the image",
    "coherence": "SSIM of neighbours",
    "first": "first-frame error",
}


def recipe(condition: dict[str, Any], options: argparse.Namespace) -> Recipe:
    changes = {
        "data": {
            "videos": str(options.work / "train"),
            "fps": RATE,
            "clips_per_video": options.clips_per_video,
            "cache_folder": str(options.work / "latents"),
            "workers": 0,
        },
        "condition": condition,
        "fps_condition": FPS,
        "drop": {"text": 0, "image": 0, "both": 0.1, "motion": 1},
        "train.steps": options.steps,
        "train.batch": 8,
        "train.mixed_precision": "bf16" if options.bfloat16 else "no",
        "save": {"every": 25, "keep": 1},
        "validate": None,
    }
    return read_recipe("pico-time-noise", changes)


def split(options: argparse.Namespace) -> tuple[Tensor, list[str], list[bool]]:
    """Writes what is trained on; returns clips (N, F, 3, H, W) in [0, 1], their videos, and which are unseen."""
    clips, names, unseen = [], [], []
    for file in video_files(options.videos):
        video, away = read_video(file, size=(192, 192)), file.name == options.unseen
        count, trained = len(video.frames), 0 if away else round(SHARE * len(video.frames))
        part = options.work / "train" / f"{file.stem}.mp4"
        if trained and not part.exists():
            write_video(part, video.frames[:trained], video.fps)
        rate = video_info(file).fps
        last = count / rate - (FRAMES + 1) / RATE  # where the last whole clip begins, in seconds
        for i in range(TEST_CLIPS):
            start = trained / rate + (last - trained / rate) * i / (TEST_CLIPS - 1)
            clips.append(read_video(file, RATE, FRAMES, SIZE, start=max(start, 0.0)).pixels)
            names.append(file.stem)
            unseen.append(away)
    return torch.stack(clips), names, unseen


@torch.no_grad()
def one_step(pipe: Any, latents: Tensor) -> dict[str, list[list[float]]]:
    """Mean squared errors of predictions of x0 by level and clip, and of the clip standing still (`still`)."""
    image = latents[:, :, :1].expand_as(latents)
    g = torch.Generator().manual_seed(1)
    errors = []
    for sigma in SIGMAS:
        noisy = latents + sigma * torch.randn(latents.shape, generator=g)
        errors.append((predict_x0(pipe, noisy, sigma, image) - latents).square().mean((1, 2, 3, 4)).tolist())
    return {"error": errors, "still": [(image - latents).square().mean((1, 2, 3, 4)).tolist()]}


def measured(video: Tensor, image: Tensor) -> dict[str, float]:
    return {
        "flow": flow(video),
        "alike": float(ssim(video[1:], image.expand_as(video[1:])).mean()),
        "coherence": proxy_coherence(video),
        "first": first_frame_error(video, image),
    }


def run(options: argparse.Namespace) -> dict[str, Any]:
    clips, names, unseen = split(options)
    result: dict[str, Any] = {"command": options.command, "videos": names, "unseen": unseen, "arms": {}}
    result |= {name: getattr(options, name) for name in ("steps", "clips_per_video", "bfloat16")}
    made = {TRUE: list(clips)}
    for name, condition in ARMS.items():
        model = "pico"
        if condition is not None:
            model = str(trained_model(recipe(condition, options), options.work / name.replace(" ", "-")))
        pipe, key = opened(options, model)
        adapter = adapter_for(pipe)
        with torch.no_grad():
            latents = torch.cat([adapter.encode_video(pipe, clip) for clip in clips])
            decoded = [pipe.decode_latents(one[None].transpose(1, 2))[0] for one in latents]
        videos = animated(pipe, clips[:, 0], options.work / "videos", key)
        result["arms"][name] = one_step(pipe, latents) | {
            "measures": [measured(v, c[0]) for v, c in zip(videos, clips, strict=True)]
        }
        made[name] = videos
        if condition is None:
            result["true"] = [measured(_pixels(v), c[0]) for v, c in zip(decoded, clips, strict=True)]
        print(f"{name}: done", flush=True)
    first = [i for i, name in enumerate(names) if i == 0 or name != names[i - 1]]
    rows = [(names[i] if what == TRUE else what, videos[i]) for i in first for what, videos in made.items()]
    contact_sheet([video for _, video in rows], [label for label, _ in rows]).save(options.work / "sheet.png")
    return result


def _pixels(video: Tensor) -> Tensor:
    return (video.transpose(0, 1) / 2 + 0.5).clamp(0, 1)


def explained(arm: dict[str, Any], level: int, chosen: list[int]) -> np.ndarray:
    """Bootstrap draws of the share of the clips' motion in the predictions: 1 for the truth, 0 for static copies."""
    w = weights(len(chosen))
    return 1 - (w @ np.array(arm["error"][level])[chosen]) / (w @ np.array(arm["still"][0])[chosen])


def page(result: dict[str, Any], words: str) -> str:
    arms = result["arms"]
    groups = {
        "later parts of the videos that were trained on": [i for i, u in enumerate(result["unseen"]) if not u],
        "a video that was not trained on": [i for i, u in enumerate(result["unseen"]) if u],
    }
    trained = len({name for name, unseen in zip(result["videos"], result["unseen"], strict=True) if not unseen})
    precision = ", in bfloat16 (autocast)" if result["bfloat16"] else ""
    lines = [
        "# Fine-tuned on real clips",
        "",
        f"`{result['command']}`:",
        f"{result['steps']} steps of 8 clips, all weights, one seed{precision}, as by",
        "",
        f"    unstill train pico-time-noise --videos CLIPS --set data.clips_per_video={result['clips_per_video']}",
        "",
        f"and `--set data.fps={RATE:g} --set fps_condition={FPS}`, with a clean image and with TimeNoise, on the",
        f"first {100 * SHARE:g} % of {trained} videos of 3 to 30 seconds. Measured on {TEST_CLIPS} clips of each",
        f"video, 16 frames at {RATE:g} per second. *Motion* in units of pico's motion level. Brackets: 95 %",
        "bootstrap intervals over clips; clips of one video are alike, so that the true uncertainty is larger.",
        "",
        words.strip(),
        "",
    ]
    for title, chosen in groups.items():
        if not chosen:
            continue
        lines += [
            f"## {title[0].upper()}{title[1:]}",
            "",
            "Videos from the first frames, the default call:",
            "",
            f"| | {' | '.join(MEASURES.values())} |",
            "|---" * (1 + len(MEASURES)) + "|",
            _videos(TRUE, result["true"], chosen),
            *(_videos(name, arm["measures"], chosen) for name, arm in arms.items()),
            _more("clean image", "before", arms, chosen),
            _more("TimeNoise", "clean image", arms, chosen),
            "",
            "Part of the motion that a one-step prediction has (1: the truth, 0: the image standing still):",
            "",
            f"| | {' | '.join(f'sigma {s:g}' for s in SIGMAS)} |",
            "|---" * (1 + len(SIGMAS)) + "|",
        ]
        count = len(chosen)
        drawn = {name: [explained(arm, k, chosen) for k in range(len(SIGMAS))] for name, arm in arms.items()}
        for name, draws in drawn.items():
            lines.append(f"| {name} | {' | '.join(between(Interval.of(x, count)) for x in draws)} |")
        for name, other in (("clean image", "before"), ("TimeNoise", "before"), ("TimeNoise", "clean image")):
            more = (x - y for x, y in zip(drawn[name], drawn[other], strict=True))
            cells = " | ".join(signed(Interval.of(x, count)) for x in more)
            lines.append(f"| *{name}, more than {other}* | {cells} |")
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _videos(name: str, values: list[dict[str, float]], chosen: list[int]) -> str:
    cells = [between(interval([values[i][m] for i in chosen])) for m in MEASURES]
    return f"| {name} | {' | '.join(cells)} |"


def _more(name: str, other: str, arms: dict[str, Any], chosen: list[int]) -> str:
    cells = []
    for m in MEASURES:
        more = [arms[name]["measures"][i][m] - arms[other]["measures"][i][m] for i in chosen]
        cells.append(signed(interval(more)))
    return f"| *{name}, more than {other}* | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--videos", type=Path, required=True, help="a folder of videos of at least 3 seconds")
    parser.add_argument("--unseen", help="file name of a video to keep out of the training")
    parser.add_argument("--out", type=Path, required=True, help="where table and figures go")
    parser.add_argument("--work", type=Path, default=Path("runs/pico-real-clips"), help="taken up if stopped")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--clips-per-video", type=int, default=16)
    parser.add_argument("--bfloat16", action="store_true", help="faster on processors that have it")
    options = parser.parse_args()
    chosen = ["--steps", str(options.steps), *(["--bfloat16"] if options.bfloat16 else [])]
    unseen = ["--unseen", options.unseen] if options.unseen else []
    command = ["--videos", "CLIPS", *unseen, "--out", str(options.out), *chosen]
    options.command = " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *command])
    torch.set_num_threads(1)
    result = run(options)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "real_clips.json").write_text(json.dumps(result, indent=1) + "\n")
    words = options.out / "real_clips.words.md"
    (options.out / "real_clips.md").write_text(page(result, words.read_text() if words.exists() else ""))


if __name__ == "__main__":
    main()
