"""Naive fine-tuning against TimeNoise and its baselines, on the embedded model and its synthetic world.

    python benchmarks/time_noise_on_pico.py                       # about 45 minutes on one idle core
    python benchmarks/time_noise_on_pico.py --steps 3 --clips 32 --images 2 --out /tmp/try --docs /tmp/docs

Every arm continues the shipped weights for the same steps, on the same clips at the same noise; only what is done to
the conditional image differs. Measured are one-step predictions of held-out clips at every noise level, beside the
best possible model, and sampled videos: requested against measured motion, and the first frame. An arm that is done is
not made again, and one that was stopped goes on from its last checkpoint.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import matplotlib


matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import Tensor

from unstill.data import synthetic_world
from unstill.hooks import adapter_for
from unstill.lab.bayes_optimal import posterior_mean
from unstill.lab.bootstrap import Interval, weights
from unstill.lab.probe_clips import ProbeClip, World, flow_of
from unstill.models.pico import PicoPipeline, motion_bucket
from unstill.models.pico.pipeline import FPS
from unstill.training.recipe import Recipe
from unstill.training.trainer import train


SIGMAS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 200.0)
MOTIONS = (0.1, 0.4, 0.7, 1.0)  # requested
NAIVE = "none"
TIME_NOISE = "TimeNoise(maximum=1)"
ARMS: dict[str, dict[str, Any]] = {
    NAIVE: {"method": "none"},
    TIME_NOISE: {"maximum": 1.0, "condition_on_level": True},
    "TimeNoise(maximum=4)": {"maximum": 4.0, "condition_on_level": True},
    "TimeNoise(maximum=1, exponent=1)": {"maximum": 1.0, "exponent": 1.0, "condition_on_level": True},
    "TimeNoise(maximum=1), level not told": {"maximum": 1.0},
    "constant noise(maximum=1)": {"method": "constant", "maximum": 1.0, "condition_on_level": True},
    "conditioning augmentation": {"method": "conditioning-augmentation", "condition_on_level": True},
}


def recipe(arm: str, steps: int, clips: int, cache: Path, compile: bool) -> Recipe:
    return Recipe.model_validate(
        {
            "model": "pico",
            "data": {"videos": "world", "clips": clips, "workers": 0, "cache_folder": str(cache)},
            "condition": ARMS[arm],
            "noise": {"log_sigma_mean": 0.9, "log_sigma_std": 1.6},
            "drop": {"text": 0.5, "image": 0.1, "both": 0.0, "motion": 0.1},
            "train": {
                "steps": steps,
                "batch": 16,
                "learning_rate": 3e-4,
                "warmup": min(20, steps),
                "decay": 0.5,
                "ema": 0.98,
                "compile": compile,
            },
            "save": {"every": 50, "keep": 1},
        }
    )


def run(out: Path, *, steps: int = 120, clips: int = 512, images: int = 16, compile: bool = True) -> dict[str, Any]:
    """Trains and measures every arm in the folder `out`; what is there already is taken over."""
    results = {}
    exam = Exam(images)
    for arm in ("before", *ARMS):
        folder = out / "arms" / "".join(c if c.isalnum() else "-" for c in arm)
        file = folder / "measured.json"
        if not file.exists():
            began = time.perf_counter()
            if arm == "before":
                pipe: Any = PicoPipeline.embedded()
            else:
                chosen = recipe(arm, steps, clips, out / "latents", compile)
                made = train(chosen, folder, _report)
                assert made is not None
                pipe = PicoPipeline.from_pretrained(made.pipeline)
            seconds = time.perf_counter() - began
            found = exam.measure(pipe) | {"training_seconds": round(seconds, 1)}
            folder.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(found))
        results[arm] = json.loads(file.read_text())
        print(f"{arm}: done", flush=True)
    settings = {"steps": steps, "training_clips": clips, "held_out_clips": images}
    return {"settings": settings, "sigmas": SIGMAS, "motions": MOTIONS, "arms": results}


def _report(stage: str, done: int, total: int, figures: str) -> None:
    if done % 50 == 0 or done == total:
        print(f"  {stage} {done}/{total} {figures}", flush=True)


class Exam:
    """The same held-out clips, noise and pictures for every arm."""

    def __init__(self, images: int) -> None:
        self.images = images
        self._subjects: list[ProbeClip] = []

    @torch.no_grad()
    def measure(self, pipe: Any) -> dict[str, Any]:
        """Per clip: errors and flows of one-step predictions at every level, motion and first frame of videos."""
        pipe.set_progress_bar_config(disable=True)
        if not self._subjects:
            examined = World(count=self.images, frames=16, size=(96, 96), others=64)
            self._subjects = [examined[i] for i in range(self.images)]
        return self._one_step(pipe) | self._videos(pipe)

    def _one_step(self, pipe: Any) -> dict[str, Any]:
        adapter = adapter_for(pipe)
        clean = torch.cat([adapter.encode_video(pipe, s.video) for s in self._subjects])  # (N, C, F, h, w)
        still = clean[:, :, :1].expand_as(clean)
        truth = [flow_of(adapter.decode_video(pipe, z[None])) for z in clean]
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))
        others = []  # (M, C, F, h, w) per clip: what could have followed its first frame
        for s in self._subjects:
            assert s.others is not None
            others.append(torch.cat([adapter.encode_video(pipe, video) for video in s.others]))
        told = torch.tensor([[FPS - 1.0, motion_bucket(s.motion), 0.0] for s in self._subjects])
        found: dict[str, list[list[float]]] = {"error": [], "flow": [], "best": []}
        for sigma in SIGMAS:
            noisy, norm = clean + sigma * noise, (1 + sigma**2) ** 0.5
            seen = torch.cat([noisy / norm, still], 1).transpose(1, 2)
            level = torch.full((len(clean),), sigma).log() / 4
            v = pipe.transformer(seen, level, None, told, return_dict=False)[0].transpose(1, 2)
            x0 = noisy / norm**2 - sigma / norm * v
            best = [posterior_mean(x, o, sigma)[0] for x, o in zip(noisy, others, strict=True)]
            found["error"].append(energy(x0 - clean))
            found["best"].append(energy(torch.stack(best) - clean))
            found["flow"].append([flow_of(adapter.decode_video(pipe, z[None])) for z in x0])
        return {**found, "moved": energy(still - clean), "true_flow": truth}

    def _videos(self, pipe: Any) -> dict[str, Any]:
        pictures = torch.stack([s.video[0] for s in self._subjects])
        motion: list[list[float]] = []
        first: list[list[float]] = []
        for asked in MOTIONS:
            generators = [torch.Generator().manual_seed(i) for i in range(len(pictures))]
            videos = pipe(pictures, motion=asked, generator=generators, output_type="pt").frames
            motion.append([flow_of(video) / synthetic_world.SCORE_UNIT for video in videos])
            first.append((videos[:, 0] - pictures).square().mean((1, 2, 3)).tolist())
        return {"motion": motion, "first_frame": first}


def energy(x: Tensor) -> list[float]:
    return x.double().square().mean((1, 2, 3, 4)).tolist()


def summary(result: dict[str, Any]) -> dict[str, Any]:
    """Intervals per arm, and differences to naive fine-tuning and to TimeNoise."""
    n = result["settings"]["held_out_clips"]
    w = weights(n)

    def draws(measured: dict[str, Any]) -> dict[str, np.ndarray]:
        m = {k: np.array(v) for k, v in measured.items() if k != "training_seconds"}
        moved, asked = w @ m["moved"], np.array(MOTIONS)[:, None]
        return {
            "explained": 1 - (w @ m["error"].T) / moved[:, None],
            "best": 1 - (w @ m["best"].T) / moved[:, None],
            "flow": (w @ m["flow"].T) / (w @ m["true_flow"])[:, None],
            "motion": w @ m["motion"].T / n,
            "motion_error": w @ np.abs(m["motion"] - asked).mean(0)[:, None] / n,
            "first_frame": np.sqrt(w @ m["first_frame"].mean(0)[:, None] / n),
        }

    made = {arm: draws(measured) for arm, measured in result["arms"].items()}
    intervals = {arm: {k: [_plain(c, n) for c in d.T] for k, d in by.items()} for arm, by in made.items()}

    def more_than(other: str) -> dict[str, Any]:
        """Paired over clips: this arm minus the other."""
        return {
            arm: {k: [_plain(c, n) for c in (d - made[other][k]).T] for k, d in by.items() if k != "best"}
            for arm, by in made.items()
            if arm != other
        }

    same = {k: result[k] for k in ("settings", "sigmas", "motions")}
    paired = {"more_than_naive": more_than(NAIVE), "more_than_time_noise": more_than(TIME_NOISE)}
    return {**same, "arms": intervals, **paired}


def _plain(column: np.ndarray, clips: int) -> dict[str, float]:
    one = Interval.of(column, clips)
    return {"value": round(one.value, 5), "low": round(one.low, 5), "high": round(one.high, 5)}


def table(found: dict[str, Any], words: str) -> str:
    s = found["settings"]
    levels = [4.0, 16.0, 64.0, 200.0]
    lines = [
        "# TimeNoise measured on the embedded model",
        "",
        f"`python benchmarks/time_noise_on_pico.py --steps {s['steps']} --clips {s['training_clips']} --images "
        f"{s['held_out_clips']}`: every arm continues the shipped weights for {s['steps']} steps of 16 clips, the "
        f"same clips at the same noise; one seed. {s['held_out_clips']} held-out clips, 95 % bootstrap intervals over "
        "clips.",
        "",
        words.strip(),
        "",
        "## One-step predictions: explained motion",
        "",
        "R2 against the clip standing still (1: the truth, 0: no better than a static copy of the image). In brackets "
        "the difference to naive fine-tuning, paired over clips.",
        "",
        "| fine-tuned with | " + " | ".join(f"sigma {x:g}" for x in levels) + " |",
        "|---" * (1 + len(levels)) + "|",
    ]
    at = [found["sigmas"].index(x) for x in levels]
    lines += [_row(found, arm, "explained", at) for arm in found["arms"]]
    best = found["arms"][NAIVE]["best"]
    lines += ["| *the best possible model* | " + " | ".join(f"{best[i]['value']:.2f}" for i in at) + " |", ""]
    lines += [
        "## One-step predictions: optical flow, as a share of the clips'",
        "",
        "The measure of the paper's Fig. 2 and 5. Flicker and errors count as motion here, so more is not better by "
        "itself.",
        "",
        "| fine-tuned with | " + " | ".join(f"sigma {x:g}" for x in levels) + " |",
        "|---" * (1 + len(levels)) + "|",
        *(_row(found, arm, "flow", at) for arm in found["arms"]),
        "",
        "## Sampled videos",
        "",
        "Measured motion by the level asked for, mean absolute error of the motion, and how far frame 0 is off the "
        "image (RMS, in [0, 1]). 25 steps, the clean image, noise level told as 0.",
        "",
        "| fine-tuned with | "
        + " | ".join(f"asked {x:g}" for x in found["motions"])
        + " | motion error | first frame off by |",
        "|---" * (3 + len(found["motions"])) + "|",
    ]
    for arm, by in found["arms"].items():
        motion = " | ".join(f"{x['value']:.2f}" for x in by["motion"])
        error = _cell(by["motion_error"][0], _difference(found, arm, "motion_error", 0))
        first = _cell(by["first_frame"][0], _difference(found, arm, "first_frame", 0), 3)
        lines.append(f"| {arm} | {motion} | {error} | {first} |")
    return "\n".join(lines) + "\n\n![explained motion and flow by noise level](time_noise_measured.png)\n"


def _row(found: dict[str, Any], arm: str, quantity: str, at: list[int]) -> str:
    cells = [_cell(found["arms"][arm][quantity][i], _difference(found, arm, quantity, i)) for i in at]
    return f"| {arm} | {' | '.join(cells)} |"


def _difference(found: dict[str, Any], arm: str, quantity: str, i: int) -> dict[str, float] | None:
    return found["more_than_naive"][arm][quantity][i] if arm in found["more_than_naive"] else None


def _cell(one: dict[str, float], more: dict[str, float] | None, digits: int = 2) -> str:
    text = f"{one['value']:.{digits}f}"
    if more is None:
        return text
    return f"{text} ({more['value']:+.{digits}f}: {more['low']:+.{digits}f} to {more['high']:+.{digits}f})"


def plot(found: dict[str, Any], path: Path) -> None:
    figure, axes = plt.subplots(1, 3, figsize=(12, 4.6), layout="constrained")
    colours = {"before": "0.6", NAIVE: "k"}
    for arm, by in found["arms"].items():
        style = {"color": colours.setdefault(arm, ("C0", "C3", "C1", "C9", "C4", "C2")[len(colours) - 2])}
        for axis, quantity in zip(axes, ("explained", "flow"), strict=False):
            y = by[quantity]
            axis.plot(found["sigmas"], [p["value"] for p in y], label=arm, **style)
            axis.fill_between(
                found["sigmas"], [p["low"] for p in y], [p["high"] for p in y], alpha=0.08, linewidth=0, **style
            )
        axes[2].plot(found["motions"], [p["value"] for p in by["motion"]], marker="o", ms=3, **style)
    axes[0].plot(found["sigmas"], [p["value"] for p in found["arms"][NAIVE]["best"]], "k--", label="best possible")
    axes[2].plot(found["motions"], found["motions"], "k:")
    for axis, title in zip(axes, ("explained motion", "flow, share of the clip's", "motion of videos"), strict=True):
        axis.set_title(title)
        axis.set_xlabel("sigma" if axis is not axes[2] else "asked for")
    for axis in axes[:2]:
        axis.set_xscale("log")
        axis.grid(alpha=0.25)
    axes[2].grid(alpha=0.25)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    figure.savefig(path, dpi=80)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/time_noise_on_pico"), help="work, taken up if stopped")
    parser.add_argument("--docs", type=Path, default=Path("docs/methods"), help="where table, figures and plot go")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--clips", type=int, default=512)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--no-compile", action="store_true")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    result = run(
        chosen.out, steps=chosen.steps, clips=chosen.clips, images=chosen.images, compile=not chosen.no_compile
    )
    found = summary(result)
    chosen.docs.mkdir(parents=True, exist_ok=True)
    (chosen.docs / "time_noise_measured.json").write_text(json.dumps(found, indent=1) + "\n")
    words = chosen.docs / "time_noise_measured.words.md"
    (chosen.docs / "time_noise_measured.md").write_text(table(found, words.read_text() if words.exists() else ""))
    plot(found, chosen.docs / "time_noise_measured.png")
    print(f"Wrote {chosen.docs / 'time_noise_measured.md'}")


if __name__ == "__main__":
    main()
