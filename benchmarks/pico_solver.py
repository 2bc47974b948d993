"""How many steps the embedded model needs: solvers against a fine reference.

    python benchmarks/pico_solver.py --out docs/pico            # about 12 minutes on one core

Scenes that no training run has seen, motion 0.5, the same noise for every solver, plainly and from an early start.
`error` is the RMS difference of the final latents (their standard deviation is 1) from those of the reference, 2M
with 100 steps. Travel, outline, colour and flow are those of `benchmarks/pico_videos.py`.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from diffusers import HeunDiscreteScheduler
from pico_videos import held_out_scenes, measures
from torch import Tensor

import unstill
from unstill.models.pico import PicoPipeline
from unstill.models.pico.schedulers import SIGMA_MAX, SIGMA_MIN, edm_scheduler, euler_scheduler


MOTION = 0.5
RUNS = {  # name: (solver, steps); the first is the reference
    "plain": (
        ("2M", 100),
        ("Euler", 25),
        ("Euler", 12),
        ("2M", 25),
        ("2M", 15),
        ("2M", 12),
        ("2M", 10),
        ("Heun", 8),
        ("Heun", 12),
    ),
    "early start, sigma 20": (("2M", 100), ("Euler", 25), ("2M", 15), ("2M", 12)),
}


def scheduler(solver: str) -> Any:
    if solver == "Euler":
        return euler_scheduler()
    if solver == "2M":
        return edm_scheduler()
    # diffusers' Heun takes Karras levels between the ends of its table alone, so its ends are made these two.
    heun = HeunDiscreteScheduler(
        prediction_type="v_prediction", use_karras_sigmas=True, trained_betas=table(), timestep_spacing="linspace"
    )
    return heun


def table() -> list[float]:
    """Betas of a training table of 1,000 levels from SIGMA_MIN to SIGMA_MAX."""
    sigma = torch.linspace(
        torch.tensor(SIGMA_MIN).log(), torch.tensor(SIGMA_MAX).log(), 1000, dtype=torch.float64
    ).exp()
    kept = 1 / (1 + sigma.square())
    return (1 - kept / torch.cat([torch.ones(1, dtype=torch.float64), kept[:-1]])).tolist()


def sampled(
    pipe: PicoPipeline, folder: Path, images: Tensor, solver: str, steps: int, methods: tuple[unstill.Method, ...]
) -> Tensor:
    """Final latents (N, F, C, h, w)."""
    pipe.scheduler = scheduler(solver)
    c = pipe.transformer.config
    shape = (1, c.num_frames, c.out_channels, c.sample_size, c.sample_size)
    made = []
    for i, image in enumerate(images):
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(i))
        kept = folder / f"{solver}-{steps}-{len(methods)}-{str(pipe.transformer.dtype)[6:]}-{i}.pt"
        if not kept.is_file():
            with unstill.apply(pipe, *methods):
                call = {"motion": MOTION, "latents": noise, "num_inference_steps": steps}
                folder.mkdir(parents=True, exist_ok=True)
                torch.save(pipe(image[None], output_type="latent", **call).frames, kept)
        made.append(torch.load(kept))
    return torch.cat(made)


def rms(a: Tensor, b: Tensor) -> list[float]:
    return [round(float(x), 4) for x in (a - b).square().flatten(1).mean(1).sqrt()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--scenes", type=int, default=3)
    parser.add_argument("--work", type=Path, default=Path("runs/pico-solver"), help="latents are kept here")
    parser.add_argument(
        "--bfloat16", action="store_true", help="the denoiser in bfloat16, for processors that have it"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    pipe = PicoPipeline.embedded()
    pipe.set_progress_bar_config(disable=True)
    if options.bfloat16:
        pipe.transformer.to(torch.bfloat16)
    scenes = held_out_scenes(options.scenes)
    rows: list[dict[str, Any]] = []
    precision = " --bfloat16" if options.bfloat16 else ""
    command = f"python benchmarks/pico_solver.py --out docs/pico --scenes {options.scenes}{precision}"
    for start, runs in RUNS.items():
        methods = () if start == "plain" else (unstill.EarlyStart(sigma=20.0),)
        references: dict[str, Tensor] = {}
        for solver, steps in runs:
            began = time.process_time()
            latents = sampled(pipe, options.work, scenes.images, solver, steps, methods)
            seconds = (time.process_time() - began) / options.scenes
            references.setdefault("2M 100", latents)
            with torch.no_grad():
                videos = [pipe.vae.decode(one).sample.clamp(-1, 1) / 2 + 0.5 for one in latents]
            row = {
                "start": start,
                "solver": solver,
                "steps": steps,
                "calls": 2 * steps - 1 if solver == "Heun" else steps,
                "seconds": round(seconds, 2),
                "errors": {name: rms(latents, one) for name, one in references.items()},
                "measures": [measures(video, scenes, i) for i, video in enumerate(videos)],
            }
            rows.append(row)
            shown = {name: sum(values) / len(values) for name, values in row["errors"].items()}
            print(start, solver, steps, f"{seconds:.1f} s", shown, flush=True)
            options.out.mkdir(parents=True, exist_ok=True)
            (options.out / "solver.json").write_text(json.dumps({"motion": MOTION, "rows": rows}, indent=1) + "\n")
            (options.out / "solver.md").write_text(page(rows, options.scenes, command))


def page(rows: list[dict[str, Any]], scenes: int, command: str) -> str:
    lines = [
        "# How many steps does the embedded model need?",
        "",
        f"`{command}`: {scenes} pictures, motion",
        f"{MOTION:g}, the same noise for every solver. *Error*: RMS difference of the final latents (whose standard",
        "deviation is 1) from 2M with 100 steps. Travel and flow: [motion](motion.md). 2M, the default with 15 steps,",
        "is `EDMDPMSolverMultistepScheduler`; Heun calls the network twice per step.",
        "",
        "| start | solver | steps | calls | error | travel | outline | flow |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        errors = [row["errors"]["2M 100"]]
        shown = ["" if not sum(e) else f"{sum(e) / len(e):.3f}" for e in errors]
        means = [sum(m[key] for m in row["measures"]) / scenes for key in ("travel", "outline", "flow")]
        cells = [row["start"], row["solver"], row["steps"], row["calls"], *shown, *(f"{m:.2f}" for m in means)]
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
