"""`unstill.verify`: a model with and without its recommended method, on the machine of whoever has its weights."""

from __future__ import annotations

import functools
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from PIL import Image

from unstill.data.images import read_image
from unstill.data.ownership import check_free, together
from unstill.errors import UnstillError
from unstill.families.registry import MODELS
from unstill.hooks import sampling
from unstill.lab.aggregate import Row, summarise_cells
from unstill.lab.comparison_cells import ComparedModel, Comparison, Setting
from unstill.lab.comparison_report import SHOWN, comparison_verdict, small_film
from unstill.lab.fingerprint import model_fingerprint
from unstill.lab.html_report import Film, Page
from unstill.lab.interval_text import between, number, signed
from unstill.lab.method_grid import PLAIN
from unstill.lab.probe_clips import World, picture_of
from unstill.lab.provenance import versions
from unstill.methods.base import Method
from unstill.methods.parsing import parse_method
from unstill.methods.registry import describe_method
from unstill.models import registry
from unstill.models.call_arguments import arguments, generate, native_frames, native_size, parameters
from unstill.models.progress_bars import report_steps


PROMPT = "The objects in the picture move."
"""For models that need a text."""
FILES = ("verification.html", "verification.json")
MEASURED_STEPS = 4
COMPARED = SHOWN[:-1]  # without the seconds, which stand under Cost
SHOWN_PICTURES = 4
"""Of so many pictures the page shows the videos."""


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


@dataclass(frozen=True, kw_only=True, slots=True)
class VerificationResult:
    """
    The result of `verify`.

    Attributes:
        folder: where `verification.html`, `verification.json` and the comparison are.
        model: its name or hub id; of a local folder only the last part of its path.
        pipeline: its class.
        device: the name of the device.
        dtype: of the weights.
        offload: as asked for.
        frames, steps: number of video frames and of sampling steps.
        size: (height, width) in pixels.
        prompt: of all videos; `None` for models that read none.
        method: the recommended method and its parameters.
        rows: scores of the settings, plain first.
        verdict: sentences.
        images: names of the pictures.
        seeds: number of seeds for each picture.
        versions: of the software, by package.
        costs: by setting.
        memory_is: what `peak_memory` of the costs means.
    """

    folder: Path
    model: str
    pipeline: str
    device: str
    dtype: str
    offload: bool
    frames: int
    steps: int
    size: tuple[int, int]
    prompt: str | None
    method: dict[str, Any]
    rows: tuple[Row, ...]
    verdict: tuple[str, ...]
    images: tuple[str, ...]
    seeds: int
    versions: dict[str, str]
    costs: dict[str, Cost]
    memory_is: str

    def as_dict(self) -> dict[str, Any]:
        """The content of `verification.json`."""
        alike = ("model", "pipeline", "device", "dtype", "offload", "frames", "steps", "prompt", "method", "seeds")
        return {
            **{name: getattr(self, name) for name in alike},
            "size": {"height": self.size[0], "width": self.size[1]},
            "images": list(self.images),
            "verdict": list(self.verdict),
            "rows": [row.as_dict() for row in self.rows],
            "costs": {setting: cost.as_dict() for setting, cost in self.costs.items()},
            "memory_is": self.memory_is,
            "versions": self.versions,
            "platform": f"{platform.system()} {platform.machine()}",
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
    Makes videos of a model, plain and with its recommended method; measures them and their cost.

    The pictures are the one that comes with the package, and rendered ones. The recommended method is Analytic-Init
    where statistics of the model are known, otherwise an early start. Finished videos are kept in `out`: after an
    interruption the same call resumes.

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
    loaded = functools.cache(lambda: registry.load(model, device=device, offload=offload))
    entry = registry.find(model)
    size = size or (entry.size if entry else native_size(loaded()))
    frames = frames or (entry.frames if entry else native_frames(loaded()))
    steps = steps or (entry.steps if entry else _default_steps(loaded()))
    shown = Path(model).name if Path(model).is_dir() else model
    made = ComparedModel(
        name=shown,
        load=loaded,
        weights=model_fingerprint(model),
        size=size,
        settings=tuple(
            Setting(name=setting, methods=methods, described=tuple(map(describe_method, methods)))
            for setting, methods in ((PLAIN, ()), (name, (method,)))
        ),
        frames=frames,
        steps=steps,
        fps=entry.fps if entry else 8,
    )
    comparison = Comparison(
        folder / "comparison", [made], _pictures(2 if quick else 8, size), range(1 if quick else 2), prompts=prompt
    )
    comparison.run(progress=progress)
    rows = summarise_cells(comparison.results())
    if failed := [reason for row in rows if not row.means for reason in row.failed]:
        raise UnstillError(f"{model} makes no videos to verify: {failed[0]}")
    pipe: Any = loaded()
    used = pipe._execution_device
    costs = {setting.name: _cost(pipe, setting.methods, prompt, frames, size) for setting in made.settings}
    result = VerificationResult(
        folder=folder,
        model=shown,
        pipeline=type(pipe).__name__,
        device=torch.cuda.get_device_name(used) if used.type == "cuda" else f"{used.type} {platform.machine()}",
        dtype=str(pipe.dtype).removeprefix("torch."),
        offload=offload,
        frames=frames,
        steps=steps,
        size=size,
        prompt=prompt,
        method=describe_method(method),
        rows=tuple(rows),
        verdict=tuple(comparison_verdict(rows)),
        images=tuple(comparison.images),
        seeds=1 if quick else 2,
        versions=versions(),
        costs=costs,
        memory_is="allocated on the GPU" if used.type == "cuda" else "resident in the process, the most of all steps",
    )
    with together(folder / FILES[1], FILES[:1]) as results:
        page(result, comparison).save(results.folder / FILES[0])
        results.record.update(result.as_dict())
    return result


def _pictures(count: int, size: tuple[int, int]) -> dict[str, Image.Image]:
    """The picture of this package, and rendered ones of the size of the videos."""
    world = World(count=count - 1, frames=2, size=size)
    rendered = {f"rendered {number + 1}": picture_of(world[number]) for number in range(count - 1)}
    return {"bundled": read_image(registry.bundled_picture()), **rendered}


def _default_steps(pipe: Any) -> int:
    return int(parameters(type(pipe))["num_inference_steps"].default)


def _cost(
    pipe: Any, methods: tuple[Method, ...], prompt: str | None, frames: int | None, size: tuple[int, int]
) -> Cost:
    """Of one video of a few steps."""
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


def page(result: VerificationResult, comparison: Comparison) -> Page:
    """The web page: verdict, videos, scores, costs, settings."""
    height, width = result.size
    page = Page(
        f"{result.model}, verified",
        f"{result.pipeline} on {result.device}: {len(result.images)} pictures, {result.seeds} "
        f"seed{'s' * (result.seeds > 1)} each; {result.frames} frames of {width} x {height}, {result.steps} steps",
    )
    page.verdict(*result.verdict)
    page.heading("Videos", "Every column has one picture and one noise. More videos are in the folder comparison.")
    cells: list[tuple[str, Film | None]] = []
    shown = [cell for cell in comparison.results() if "error" not in cell and cell["seed"] == 0]
    images = result.images[:SHOWN_PICTURES]
    for row in result.rows:
        cells.append((row.setting, None))
        for image in images:
            keys = [cell["cell"] for cell in shown if (cell["setting"], cell["image"]) == (row.setting, image)]
            cells.append((image, small_film(comparison, keys[0]) if keys else None))
    page.films(1 + len(images), cells)
    page.heading("Scores", "With 95 % bootstrap intervals over pictures.")
    page.table(
        ["setting", *(words for _, words in SHOWN)],
        [[row.setting, *(between(row.means[name]) for name, _ in SHOWN)] for row in result.rows],
    )
    page.heading("Differences from plain", "Same pictures and noise.")
    page.table(
        ["setting", *(words for _, words in COMPARED)],
        [[row.setting, *(signed(row.gains[name]) for name, _ in COMPARED)] for row in result.rows if row.gains],
    )
    page.heading(
        "Cost",
        f"Of {MEASURED_STEPS} steps each; on a CPU processor time. Memory is {result.memory_is}.",
    )
    page.table(
        ["setting", "seconds per step", "peak memory, GB"],
        [[s, number(cost.seconds_per_step), number(cost.peak_memory / 2**30)] for s, cost in result.costs.items()],
    )
    method = ", ".join(f"{key}={value}" for key, value in result.method["parameters"].items() if value is not None)
    page.facts(
        "Settings and versions",
        {
            "method": f"{result.method['name']}: {method}",
            "prompt": result.prompt or "none",
            "dtype": result.dtype + (", offloaded" if result.offload else ""),
            "versions": ", ".join(f"{package} {version}" for package, version in result.versions.items()),
        },
    )
    return page
