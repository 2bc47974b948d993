"""What `unstill.apply` costs per sampling step, against the same pipeline without it, call by call in turns.

The denoiser is a stub that returns its first half of channels, so that only the pipeline, the scheduler and the hooks
are timed; the share of a real step is given for the embedded model's network.
"""

import argparse
import json
import statistics
import time
from contextlib import nullcontext
from typing import Any

import torch

import unstill
from unstill.methods.analytic_init import AnalyticInit
from unstill.methods.early_start import EarlyStart
from unstill.methods.noise_rectification import NoiseRectification
from unstill.models.pico import PicoAutoencoder, PicoPipeline, PicoUNet, edm_scheduler
from unstill.statistics import LatentStatistics


def seconds(pipe: PicoPipeline, steps: int, methods: tuple[Any, ...] | None) -> float:
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with nullcontext() if methods is None else unstill.apply(pipe, *methods):
        began = time.perf_counter()
        pipe(image, num_inference_steps=steps, generator=torch.Generator().manual_seed(0), output_type="latent")
        return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(1)

    pipe = PicoPipeline(PicoAutoencoder(), PicoUNet(), edm_scheduler())
    pipe.set_progress_bar_config(disable=True)
    real = min(seconds(pipe, 8, None) for _ in range(3)) / 8
    channels = pipe.unet.config.in_channels // 2
    pipe.unet.forward = lambda sample, *_, **__: (sample[:, :, :channels],)

    measured = LatentStatistics().update(torch.randn(4, channels, 8, 16, 16))
    cases = {
        "apply(pipe)": (),
        "EarlyStart": (EarlyStart(sigma=6.0),),
        "AnalyticInit": (AnalyticInit(sigma=6.0, statistics=measured),),
        "NoiseRectification": (NoiseRectification(),),
    }
    extra: dict[str, list[float]] = {name: [] for name in cases}
    plain = []
    for _ in range(options.rounds):
        for name, methods in cases.items():
            alone = seconds(pipe, options.steps, None)
            plain.append(alone)
            extra[name].append(seconds(pipe, options.steps, methods) - alone)
    rows = {}
    for name, differences in extra.items():
        per_step = sorted(1e6 * difference / options.steps for difference in differences)
        quarters = statistics.quantiles(per_step, n=4)
        rows[name] = {
            "microseconds_per_step": round(quarters[1], 1),
            "quartiles": [round(quarters[0], 1), round(quarters[2], 1)],
            "share_of_a_real_step": round(quarters[1] / (1e6 * real), 4),
        }
    result = {
        "steps": options.steps,
        "rounds": options.rounds,
        "plain_microseconds_per_step_without_network": round(1e6 * statistics.median(plain) / options.steps, 1),
        "real_step_milliseconds": round(1e3 * real, 2),
        "overhead": rows,
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
