"""`unstill.verify`: a model with and without its recommended method, on the machine of whoever has its weights."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch

from unstill.data.ownership import check_free, together
from unstill.errors import UnstillError
from unstill.families.registry import MODELS
from unstill.hooks import sampling
from unstill.lab.comparison import ComparisonResult, compare
from unstill.lab.comparison_report import SHOWN
from unstill.lab.html_report import Page
from unstill.lab.interval_text import between, number, signed
from unstill.lab.method_grid import PLAIN
from unstill.lab.probe_clips import World, picture_of
from unstill.methods.base import Method
from unstill.methods.parsing import parse_method
from unstill.methods.registry import describe_method
from unstill.models import registry
from unstill.models.call_arguments import arguments, generate, native_frames, native_size, parameters
from unstill.models.progress_bars import report_steps


PROMPT = "The objects in the picture move."
"""For models that need a text; the pictures are rendered ones."""
FILES = ("verification.html", "verification.json")
MEASURED_STEPS = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """What one setting costs: `seconds_per_step`, without the first step, and `peak_memory` in bytes."""

    seconds_per_step: float
    peak_memory: int

    def as_dict(self) -> dict[str, float]:
        """The cost as JSON values."""
        return {"seconds_per_step": round(self.seconds_per_step, 5), "peak_memory": self.peak_memory}


@dataclass(frozen=True, kw_only=True, slots=True)
class VerificationResult:
    """
    The result of `verify`.

    Attributes:
        folder: where `verification.html`, `verification.json` and the comparison are.
        model: its name or hub id; of a local folder only the last part of its path.
        device: the name of the device.
        method: the recommended method and its parameters.
        comparison: scores of all videos.
        costs: by setting.
        memory_is: what `peak_memory` of the costs means.
    """

    folder: Path
    model: str
    device: str
    method: dict[str, Any]
    comparison: ComparisonResult
    costs: dict[str, Cost]
    memory_is: str

    def as_dict(self) -> dict[str, Any]:
        """The content of `verification.json`."""
        rows = [{**row.as_dict(), "model": self.model} for row in self.comparison.rows]
        return {
            **self.comparison.as_dict(),
            "rows": rows,
            "model": self.model,
            "device": self.device,
            "platform": f"{platform.system()} {platform.machine()}",
            "method": self.method,
            "costs": {setting: cost.as_dict() for setting, cost in self.costs.items()},
            "memory_is": self.memory_is,
        }


def verify(
    model: str,
    *,
    out: Path | str = "verification",
    quick: bool = False,
    prompt: str | None = None,
    steps: int | None = None,
    frames: int | None = None,
    size: tuple[int, int] | None = None,
    device: str | None = None,
    offload: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> VerificationResult:
    """
    Samples videos of rendered pictures, plain and with the recommended method; measures them and their cost.

    The recommended method is Analytic-Init where statistics of the model are known, otherwise an early start. Finished
    videos are kept in `out`: after an interruption the same call resumes.

    Args:
        model: name, local folder or hub id.
        out: folder of the results; videos and their scores are in its folder `comparison`.
        quick: 2 pictures and one seed, in place of 8 pictures and 2 seeds.
        prompt: for models that read text; by default `PROMPT` for those that are known to need one.
        steps, frames: number of sampling steps and of video frames; by default the model's.
        size: (height, width) in pixels, for models that support several sizes.
        device, offload: see `unstill.load`.
        progress: called with (finished videos, all videos).

    Returns:
        The result; `verification.html` and `verification.json` hold it without any path of this machine.

    Raises:
        UnstillError: a model that cannot be loaded or makes no videos; or `out` holds files of another origin.
    """
    folder = Path(out)
    check_free(folder / FILES[1], [folder / FILES[0]])
    defaults = registry.defaults_of(model)
    method = parse_method(registry.usual_method(defaults), defaults)
    name = registry.usual_method(defaults).replace("_", "-")
    pipeline = registry.pipeline_name(model)
    if prompt is None and any(entry.pipeline == pipeline and "prompt" in entry.input for entry in MODELS):
        prompt = PROMPT
    comparison = compare(
        {name: method},
        model=model,
        count=2 if quick else 8,
        seeds=1 if quick else 2,
        prompt=prompt,
        steps=steps,
        frames=frames,
        size=size,
        out=folder / "comparison",
        device=device,
        offload=offload,
        progress=progress,
    )
    assert comparison is not None  # there is one process
    if failed := [reason for row in comparison.rows if not row.means for reason in row.failed]:
        raise UnstillError(f"{model} makes no videos to verify: {failed[0]}")
    pipe: Any = registry.load(model, device=device, offload=offload)
    entry = registry.find(model)
    size = size or (entry.size if entry else native_size(pipe))
    frames = frames or (entry.frames if entry else native_frames(pipe))
    costs = {
        setting: _cost(pipe, methods, prompt, frames, size) for setting, methods in ((PLAIN, ()), (name, (method,)))
    }
    used = pipe._execution_device
    result = VerificationResult(
        folder=folder,
        model=Path(model).name if Path(model).is_dir() else model,
        device=torch.cuda.get_device_name(used) if used.type == "cuda" else f"{used.type} {platform.machine()}",
        method=describe_method(method),
        comparison=comparison,
        costs=costs,
        memory_is="allocated on the GPU" if used.type == "cuda" else "resident in the process, the most of all steps",
    )
    with together(folder / FILES[1], FILES[:1]) as results:
        _page(result).save(results.folder / FILES[0])
        results.record.update(result.as_dict())
    return result


def _cost(
    pipe: Any, methods: tuple[Method, ...], prompt: str | None, frames: int | None, size: tuple[int, int]
) -> Cost:
    """Of one video of a few steps."""
    used = pipe._execution_device
    times: list[float] = []
    resident: list[int] = []

    def stamp(done: int, total: int) -> None:
        if used.type == "cuda":
            torch.cuda.synchronize(used)
        times.append(time.perf_counter())
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


def _page(result: VerificationResult) -> Page:
    """The web page: verdict, scores, costs, settings."""
    comparison = result.comparison
    page = Page(
        f"{result.model}, verified", f"{len(comparison.images)} rendered pictures, {len(comparison.seeds)} seeds each"
    )
    page.verdict(*comparison.verdict)
    page.heading("Scores", "With 95 % bootstrap intervals over pictures.")
    page.table(
        ["setting", *(heading for _, heading in SHOWN)],
        [[row.setting, *(between(row.means[name]) for name, _ in SHOWN)] for row in comparison.rows],
    )
    gained = [row for row in comparison.rows if row.gains]
    page.heading("Differences from plain", "Same pictures and noise.")
    page.table(
        ["setting", *(heading for _, heading in SHOWN)],
        [[row.setting, *(signed(row.gains[name]) for name, _ in SHOWN)] for row in gained],
    )
    page.heading("Cost", f"One video of {MEASURED_STEPS} steps each. Memory is {result.memory_is}.")
    page.table(
        ["setting", "seconds per step", "peak memory, GB"],
        [[s, number(cost.seconds_per_step), number(cost.peak_memory / 2**30)] for s, cost in result.costs.items()],
    )
    facts = {"device": result.device, "method": result.method, "versions": comparison.versions}
    page.facts("Settings and versions", facts)
    return page
