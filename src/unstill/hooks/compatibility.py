"""
What works where: every method asked what it says of every pipeline, with the scheduler its models usually come with.

`python -m unstill.hooks.compatibility` prints the table of docs/pipelines.md.
"""

from collections.abc import Iterator
from typing import Any

import diffusers
import torch

from unstill.errors import UnstillError
from unstill.forward_process import ForwardProcess
from unstill.hooks.adapter import Adapter
from unstill.hooks.free_init import FreeInitNoise
from unstill.hooks.registry import ADAPTERS, UNSUPPORTED
from unstill.latent_statistics import LatentStatistics
from unstill.methods.analytic_init import AnalyticInit
from unstill.methods.base import Method, Target
from unstill.methods.conditioning_augmentation import ConditioningAugmentation
from unstill.methods.early_start import EarlyStart
from unstill.methods.frame_init import FrameInit
from unstill.methods.free_init import FreeInit
from unstill.methods.image_start import ImageStart
from unstill.methods.ni_vsds import NIVSDS
from unstill.methods.noise_rectification import NoiseRectification
from unstill.methods.progressive_noise import ProgressiveNoise
from unstill.methods.time_noise import TimeNoise
from unstill.noise_schedule import level_of


def refusals() -> dict[str, dict[str, str]]:
    """Per pipeline class, per method class: why `apply` refuses the method there, or "" where it works.

    Methods have their default parameters, and a start in the unit of the scheduler; the image is there.
    """
    table: dict[str, dict[str, str]] = {}
    for pipeline, adapter in ADAPTERS.items():
        target = _target(pipeline, adapter)
        table[pipeline] = {name: _refusal(method, target) for name, method in examples(target.process)}
    methods = table["AnimateDiffPipeline"]
    for pipeline, reason in UNSUPPORTED.items():
        table[pipeline] = {name: f"{pipeline} {reason}" for name in methods}
    return dict(sorted(table.items()))


def markdown() -> str:
    """The table for the docs: pipelines down, methods across, the reasons below it by number."""
    table = refusals()
    notes: dict[str, int] = {}
    lines = []
    for pipeline, cells in table.items():
        shown = []
        for reason in cells.values():
            reason = reason.replace(pipeline, "This pipeline" if reason.startswith(pipeline) else "this pipeline")
            shown.append(f"no ({notes.setdefault(reason, len(notes) + 1)})" if reason else "yes")
        lines.append(f"| `{pipeline.removesuffix('Pipeline')}` | {' | '.join(shown)} |")
    methods = list(table["AnimateDiffPipeline"])
    head = [f"| `...Pipeline` | {' | '.join(methods)} |", "|---" * (len(methods) + 1) + "|"]
    return "\n".join([*head, *lines, "", *(f"{number}. {reason}" for reason, number in notes.items())])


def _target(pipeline: str, adapter: Adapter) -> Target:
    name, config = adapter.usual_scheduler
    return Target(
        pipeline=pipeline,
        process=adapter.process(getattr(diffusers, name)(**config)),
        order=1,
        image_latents=True,
        condition=bool(adapter.denoisers),
        held_frames=0,
        copies=adapter.copies_scheduler,
        modular=adapter.modular,
    )


def examples(process: ForwardProcess) -> Iterator[tuple[str, Method]]:
    level: dict[str, Any] = {"start": 0.9}
    try:
        level_of(process, **level)
    except UnstillError:
        level = {"sigma": 0.9}
    statistics = LatentStatistics().update(torch.zeros(2, 1, 1, 1, 1))
    yield "EarlyStart", EarlyStart(**level)
    yield "AnalyticInit", AnalyticInit(statistics=statistics, **level)
    yield "ImageStart", ImageStart(**level)
    yield "FrameInit", FrameInit()
    yield "FreeInit", FreeInitNoise(FreeInit())
    yield "ProgressiveNoise", ProgressiveNoise()
    yield "NoiseRectification", NoiseRectification()
    yield "NIVSDS", NIVSDS()
    yield "ConditioningAugmentation", ConditioningAugmentation()
    yield "TimeNoise", TimeNoise()


def _refusal(method: Method, target: Target) -> str:
    try:
        method.check((), target)
    except UnstillError as error:
        return str(error)
    return ""


if __name__ == "__main__":
    print(markdown())
