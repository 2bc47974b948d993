"""What a setting of a model costs on this device: seconds per step and memory."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import Any

import psutil
import torch

from unstill.hooks import sampling
from unstill.lab.probe_clips import World, picture_of
from unstill.methods.base import Method
from unstill.models.call_arguments import arguments, generate, parameters
from unstill.models.progress_bars import report_steps


MEASURED_STEPS = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """
    What one setting costs.

    Attributes:
        seconds_per_step: median without the first step; on a CPU the processor time.
        peak_memory: bytes, see `VerificationResult.memory_is`.
    """

    seconds_per_step: float
    peak_memory: int

    def as_dict(self) -> dict[str, float]:
        """The cost as JSON values."""
        return {"seconds_per_step": round(self.seconds_per_step, 5), "peak_memory": self.peak_memory}


def measure_cost(
    pipe: Any, methods: tuple[Method, ...], prompt: str | None, frames: int | None, size: tuple[int, int]
) -> Cost:
    """
    Measures the making of one video in `MEASURED_STEPS` steps.

    Args:
        pipe: the pipeline, on the device that is measured.
        methods: applied to it.
        prompt: for models that read text.
        frames: length of the video; `None`: the pipeline's own.
        size: (H, W) in pixels.
    """
    used = pipe._execution_device
    # On a CPU, the processor time: it does not depend on other programs.
    clock = time.process_time if used.type == "cpu" else time.perf_counter
    times: list[float] = []
    resident: list[int] = []

    def stamp(done: int, total: int) -> None:
        if used.type == "cuda":
            torch.cuda.synchronize(used)
        times.append(clock())
        resident.append(psutil.Process().memory_info().rss)

    picture = picture_of(World(count=1, frames=2, size=size)[0])
    takes_image = "image" in parameters(type(pipe))
    call = arguments(
        type(pipe),
        image=picture if takes_image else None,
        prompt=prompt,
        frames=frames,
        steps=MEASURED_STEPS,
        size=size,
    )
    if used.type == "cuda":
        torch.cuda.reset_peak_memory_stats(used)
    with report_steps(pipe, stamp), sampling(pipe, *methods, image=None if takes_image else picture) as sampler:
        generate(pipe, call, 0, sampler)
    each = [after - before for before, after in zip(times, times[1:], strict=False)]
    peak = torch.cuda.max_memory_allocated(used) if used.type == "cuda" else max(resident)
    return Cost(seconds_per_step=statistics.median(each[1:]), peak_memory=peak)
