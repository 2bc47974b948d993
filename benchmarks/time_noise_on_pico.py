"""What noise on the image in training, and a residual on top of a prediction without it, do to a fine-tuning.

    python benchmarks/time_noise_on_pico.py --docs docs/methods --bfloat16     # about three hours of one core
    python benchmarks/time_noise_on_pico.py --steps 3 --base-steps 3 --clips 8 --scenes 2 --probes 2 --out /tmp/try \\
        --work /tmp/try/videos --docs /tmp/try/docs

The embedded model is fine-tuned on clips that hardly move, as by the recipe `pico-still`; the arms differ in what is
done with the conditional image. All have the same number of forward and backward passes, so that the arm with two
passes per clip sees half of the clips.

A residual on top of a prediction without the image (CRP) needs weights that were trained for it. They are trained
first, all weights on clips of every speed, from those of the package; the same training as usual is its control.

Measured are videos of held-out pictures, and one-step predictions of held-out clips: of lively ones, of which the best
possible prediction is known (`unstill.lab.bayes_optimal`), and of slow ones like those of the fine-tuning. What is
done is not made again, and a training that was stopped goes on from its last checkpoint. Several processes may work in
one folder, each with other `--arms`.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pico_training import predict_x0, trained_model
from pico_videos import animated, held_out_scenes, interval, measures, opened
from safetensors.torch import load_file, save_file
from time_noise_page import CONTROL, MEASURES, NAIVE, RESIDUAL, TIME_NOISE, page, plot
from torch import Tensor

from unstill.data import synthetic_world
from unstill.hooks import adapter_for
from unstill.lab.bayes_optimal import posterior_mean
from unstill.lab.bootstrap import Interval, weights
from unstill.lab.probe_clips import HELD_OUT, World
from unstill.methods.base import Method
from unstill.methods.prediction_and_residual import PredictionAndResidual
from unstill.models.pico import PicoPipeline
from unstill.training.recipe import Recipe, read_recipe


SIGMAS = (1.0, 4.0, 8.0, 16.0, 64.0)
CLEAN: dict[str, Any] = {"method": "none"}
COMPOSED: dict[str, Any] = {"method": "prediction-and-residual"}


@dataclass(frozen=True)
class Arm:
    """
    Attributes:
        condition: of the recipe of the fine-tuning; `None` for no fine-tuning.
        base: condition of the training before it, on clips of every speed; `None` for the weights of the package.
    """

    condition: dict[str, Any] | None
    base: dict[str, Any] | None = None

    @property
    def residual(self) -> bool:
        """Whether videos are made with two passes."""
        return COMPOSED in (self.condition, self.base)


ARMS = {
    "before": Arm(None),
    NAIVE: Arm(CLEAN),
    TIME_NOISE: Arm({"maximum": 1.0, "exponent": 5.0, "noise_shape": "frame", "condition_on_level": False}),
    # As much noise as TimeNoise has on average.
    "constant noise": Arm({"method": "constant", "exponent": 0.0, "maximum": 0.37, "condition_on_level": False}),
    "conditioning augmentation": Arm({"method": "conditioning-augmentation"}),
    "before, trained on": Arm(None, CLEAN),
    CONTROL: Arm(CLEAN, CLEAN),
    "before, prediction and residual": Arm(None, COMPOSED),
    RESIDUAL: Arm(COMPOSED, COMPOSED),
}


def clips_per_step(condition: dict[str, Any], passes: int) -> int:
    return passes // 2 if condition == COMPOSED else passes


def base_recipe(condition: dict[str, Any], options: argparse.Namespace) -> Recipe:
    """All weights on clips of every speed, without caption and motion level, which the measurement does not give."""
    alone = 0.1 if condition == CLEAN else 0  # the other has a pass without the image for every clip
    changes = {
        "condition": condition,
        "data.clips": 2 * options.clips,
        "data.cache_folder": str(options.out / "latents"),
        "drop": {"text": 1 - alone, "image": 0, "both": alone, "motion": 1},
        "train.steps": options.base_steps,
        "train.batch": clips_per_step(condition, 8),
        "train.mixed_precision": "bf16" if options.bfloat16 else "no",
        "save": {"every": 50, "keep": 1},
        "validate": None,
    }
    return read_recipe("pico-time-noise", changes)


def recipe(condition: dict[str, Any], model: str, options: argparse.Namespace) -> Recipe:
    """`pico-still` with the arm's condition; all arms share the cache of latents."""
    changes = {
        "model": model,
        "condition": condition,
        "data.clips": options.clips,
        "data.cache_folder": str(options.out / "latents"),
        "train.steps": options.steps,
        "train.batch": clips_per_step(condition, 4),
        "train.mixed_precision": "bf16" if options.bfloat16 else "no",
        "save": {"every": 50, "keep": 1},
    }
    return read_recipe("pico-still", changes)


def folder_of(name: str, options: argparse.Namespace) -> Path:
    return options.out / "arms" / "".join(c if c.isalnum() else "-" for c in name)


def trained(arm: Arm, name: str, options: argparse.Namespace) -> str:
    """The model of an arm: a name or a folder."""
    model = "pico"
    if arm.base is not None:
        base = folder_of(f"base {arm.base['method']}", options)
        model = str(trained_model(base_recipe(arm.base, options), base))
    if arm.condition is not None:
        model = str(trained_model(recipe(arm.condition, model, options), folder_of(name, options)))
    return model


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Trains and measures every arm in the folder `options.out`; what is there already is taken over."""
    results = {}
    exam = Exam(options)
    for name in options.arms:
        arm, file = ARMS[name], folder_of(name, options).with_suffix(".json")
        if not file.exists():
            measured = exam.measure(trained(arm, name, options), arm.residual)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(measured))
        results[name] = json.loads(file.read_text())
        print(f"{name}: done", flush=True)
    names = ("arms", "steps", "base_steps", "clips", "scenes", "probes", "bfloat16")
    settings = {name: getattr(options, name) for name in names}
    return {"settings": settings, "sigmas": SIGMAS, "arms": results}


class Exam:
    """The same held-out pictures, clips and noise for every arm."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.scenes = held_out_scenes(options.scenes)
        file = options.out / f"clips-{options.probes}.safetensors"
        if not file.exists():
            options.out.mkdir(parents=True, exist_ok=True)
            save_file(_probes(options.probes), file)
        self.clips = load_file(file)

    @torch.no_grad()
    def measure(self, model: str, residual: bool) -> dict[str, Any]:
        """Per picture and clip: measures of the videos, errors of one-step predictions."""
        pipe, name = opened(self.options, model)
        lively, slow = self.clips["lively"], self.clips["slow"]
        methods: tuple[Method, ...] = (PredictionAndResidual(),) if residual else ()
        call: dict[str, Any] = {"motion": None, "guidance_scale": 1.0}
        videos = animated(pipe, self.scenes.images, self.options.work, name, methods, **call)
        return {
            "videos": [measures(video, self.scenes, i) for i, video in enumerate(videos)],
            "moved": energy(lively[:, :, :1] - lively),
            "error": [energy(x - lively) for x in _predicted(pipe, lively, residual)],
            "best": [energy(self.clips[f"best {sigma:g}"] - lively) for sigma in SIGMAS],
            "slow_error": [energy(x - slow) for x in _predicted(pipe, slow, residual)],
        }


def _probes(count: int) -> dict[str, Tensor]:
    """Latents (N, C, F, h, w) of lively and of slow clips, and the best possible predictions of the lively ones."""
    pipe: Any = PicoPipeline.embedded()
    adapter = adapter_for(pipe)
    world = World(count=count, frames=16, size=(96, 96), others=32)
    others, best = [], {}
    for i in range(count):
        possible = world[i].others  # continuations of the first frame; the first is the clip itself
        assert possible is not None
        others.append(torch.cat([adapter.encode_video(pipe, video) for video in possible]))
    lively = torch.stack([one[0] for one in others])
    for sigma in SIGMAS:
        noisy = _noisy(lively, sigma)
        best[f"best {sigma:g}"] = torch.stack(
            [posterior_mean(x, o, sigma)[0] for x, o in zip(noisy, others, strict=True)]
        )
    g = torch.Generator().manual_seed(HELD_OUT)
    scene = synthetic_world.sample_scene(count, g)
    motion = synthetic_world.sample_motion(scene, g).scaled(torch.full((count,), 0.1))
    slow = [adapter.encode_video(pipe, video) for video in synthetic_world.render(scene, motion).video]
    return {"lively": lively, "slow": torch.cat(slow), **best}


def _noisy(clean: Tensor, sigma: float) -> Tensor:
    return clean + sigma * torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))


def _predicted(pipe: Any, clean: Tensor, residual: bool) -> list[Tensor]:
    """One-step predictions of x0 (N, C, F, h, w) at every level, with the motion level unspecified."""
    still = clean[:, :, :1].expand_as(clean)
    return [predict_x0(pipe, _noisy(clean, sigma), sigma, still, residual) for sigma in SIGMAS]


def energy(x: Tensor) -> list[float]:
    return x.double().square().mean((1, 2, 3, 4)).tolist()


def summary(result: dict[str, Any]) -> dict[str, Any]:
    """Intervals per arm, and differences to naive fine-tuning and to TimeNoise, paired by picture and by clip."""
    n = result["settings"]["probes"]
    w = weights(n)

    def ratios(measured: dict[str, Any]) -> dict[str, np.ndarray]:
        moved = (w @ np.array(measured["moved"]))[:, None]
        made = {"explained": 1 - w @ np.array(measured["error"]).T / moved}
        made["best"] = 1 - w @ np.array(measured["best"]).T / moved
        made["slow_error"] = np.sqrt(w @ np.array(measured["slow_error"]).T / n)
        return made

    drawn = {arm: ratios(measured) for arm, measured in result["arms"].items()}
    videos = {arm: measured["videos"] for arm, measured in result["arms"].items()}

    def differences(other: str, compared: Sequence[str]) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for arm in compared:
            made[arm] = {k: _intervals(d - drawn[other][k], n) for k, d in drawn[arm].items() if k != "best"}
            for name in MEASURES:
                pairs = zip(videos[arm], videos[other], strict=True)
                made[arm][name] = interval([a[name] - b[name] for a, b in pairs]).as_dict()
        return made

    arms: dict[str, Any] = {}
    for arm, by in drawn.items():
        arms[arm] = {k: _intervals(d, n) for k, d in by.items()}
        arms[arm] |= {name: interval([one[name] for one in videos[arm]]).as_dict() for name in MEASURES}
    paired = {
        other: differences(other, [arm for arm in arms if arm != other and (other != CONTROL or arm == RESIDUAL)])
        for other in (NAIVE, TIME_NOISE, CONTROL)
        if other in arms
    }
    made = {"command": command(result["settings"]), "settings": result["settings"]}
    return made | {"sigmas": result["sigmas"], "arms": arms, "differences": paired}


def _intervals(columns: np.ndarray, clips: int) -> list[dict[str, Any]]:
    return [Interval.of(column, clips).as_dict() for column in columns.T]


def command(settings: dict[str, Any]) -> str:
    names = ("steps", "base_steps", "clips", "scenes", "probes")
    options = " ".join(f"--{name.replace('_', '-')} {settings[name]}" for name in names)
    chosen = "" if list(ARMS) == settings["arms"] else " --arms " + " ".join(f'"{a}"' for a in settings["arms"])
    return f"python benchmarks/time_noise_on_pico.py {options}{' --bfloat16' if settings['bfloat16'] else ''}{chosen}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/time_noise_on_pico"), help="work, taken up if stopped")
    parser.add_argument("--docs", type=Path, default=Path("docs/methods"), help="where table, figures and plot go")
    parser.add_argument("--arms", nargs="*", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--steps", type=int, default=400, help="of the fine-tuning")
    parser.add_argument("--base-steps", type=int, default=800, help="of the training before it")
    parser.add_argument("--clips", type=int, default=512, help="of the synthetic world, to train on")
    parser.add_argument("--work", type=Path, default=Path("runs/pico-videos"), help="videos are kept here")
    parser.add_argument("--scenes", type=int, default=24, help="pictures to animate")
    parser.add_argument("--probes", type=int, default=20, help="clips of either kind for one-step predictions")
    parser.add_argument("--bfloat16", action="store_true", help="faster on processors that have it")
    parser.add_argument("--no-page", action="store_true", help="only make what the page needs")
    options = parser.parse_args()
    torch.set_num_threads(1)
    result = run(options)
    if options.no_page:
        return
    found = summary(result)
    options.docs.mkdir(parents=True, exist_ok=True)
    (options.docs / "time_noise_measured.json").write_text(json.dumps(found, indent=1) + "\n")
    words = options.docs / "time_noise_measured.words.md"
    text = words.read_text() if words.exists() else ""
    (options.docs / "time_noise_measured.md").write_text(page(found, text))
    plot(found, options.docs / "time_noise_measured.png")


if __name__ == "__main__":
    main()
