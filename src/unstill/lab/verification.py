"""`unstill.verify`: a model with and without its recommended method, on the machine of whoever has its weights."""

from __future__ import annotations

import functools
import hashlib
import json
import math
import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from pydantic import BaseModel

from unstill.data.images import read_image
from unstill.data.ownership import check_free, together
from unstill.documents import read_json
from unstill.errors import UnstillError
from unstill.families.registry import MODELS
from unstill.lab.aggregate import Row, summarise_cells
from unstill.lab.comparison_cells import ComparedModel, Comparison, Setting
from unstill.lab.comparison_report import SHOWN, comparison_verdict, small_film
from unstill.lab.cost import MEASURED_STEPS, Cost, measure_cost
from unstill.lab.fingerprint import model_fingerprint
from unstill.lab.html_report import Film, Page
from unstill.lab.interval_text import between, number, signed
from unstill.lab.method_grid import PLAIN
from unstill.lab.probe_clips import World, picture_of
from unstill.lab.provenance import versions
from unstill.methods.parsing import parse_method
from unstill.methods.registry import describe_method
from unstill.models import registry
from unstill.models.call_arguments import native_frames, native_size, parameters
from unstill.models.loading import parse_device
from unstill.progress import TimeEstimate


RESIDENT = "resident in the process, the most of all steps"
PROMPT = "The objects in the picture move."
"""For models that need a text."""
FILES = ("verification.html", "verification.json")
COMPARED = SHOWN[:-1]  # without the seconds, which stand under Cost
SHOWN_PICTURES = 4
"""Of so many pictures the page shows the videos."""
QUICK_SECONDS = 600
TOO_LONG = (
    "That is more than the ten minutes that --quick is meant for: for less, stop it, and take fewer --steps or "
    "--frames or a smaller --size, with another --out."
)


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
        request: a hash of the arguments of `verify`, the weights and the device.
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
    request: str

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
            "request": self.request,
            "versions": self.versions,
            "platform": f"{platform.system()} {platform.machine()}",
        }


class _Size(BaseModel):
    height: int
    width: int


class _Measured(BaseModel):
    """What needs the loaded model, as `verification.json` holds it."""

    request: str
    pipeline: str
    dtype: str
    frames: int
    steps: int
    size: _Size
    costs: dict[str, Cost]
    memory_is: str
    versions: dict[str, str]


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
    tell: Callable[[str], None] = lambda sentence: None,
) -> VerificationResult:
    """
    Makes videos of a model, plain and with its recommended method; measures them and their cost.

    The pictures are the one that comes with the package, and rendered ones. The recommended method is Analytic-Init
    where statistics of the model are known, otherwise an early start. Finished videos are kept in `out`: after an
    interruption the same call resumes, and after the end it returns the same result without loading the model.

    Args:
        model: name, local folder or hub id.
        out: folder of the results; videos and their scores are in its folder `comparison`.
        quick: 2 pictures and one seed, in place of 8 pictures and 2 seeds.
        prompt: for models that read text; by default `PROMPT` for those that are known to need one.
        steps, frames: number of sampling steps and of video frames; by default the model's.
        size: (height, width) in pixels, for models that support several sizes.
        device, offload: see `unstill.load`.
        progress: called with (finished videos, all videos).
        tell: called with sentences: what will be made, and, after the first video, how long the rest will take.

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
    limit = QUICK_SECONDS if quick else math.inf
    clock = TimeEstimate(progress, tell, piece="video", pieces="videos", limit=limit, advice=TOO_LONG)

    @functools.cache
    def loaded() -> Any:
        pipe = registry.load(model, device=device, offload=offload)
        clock.start()  # loading is not part of the first video
        return pipe

    used, weights = parse_device(device), model_fingerprint(model)
    device_name = torch.cuda.get_device_name(used) if used.type == "cuda" else f"{used.type} {platform.machine()}"
    asked = (quick, prompt, steps, frames, size, offload, weights, device_name, describe_method(method))
    request = hashlib.sha256(json.dumps(asked, default=str).encode()).hexdigest()[:16]
    entry, earlier = registry.find(model), _earlier(folder / FILES[1], request)
    if earlier is not None:
        size, frames, steps = (earlier.size.height, earlier.size.width), earlier.frames, earlier.steps
    size = size or (entry.size if entry else native_size(loaded()))
    frames = frames or (entry.frames if entry else native_frames(loaded()))
    steps = steps or (entry.steps if entry else _default_steps(loaded()))
    shown = Path(model).name if Path(model).is_dir() else model
    made = ComparedModel(
        name=shown,
        load=loaded,
        weights=weights,
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
    finished, seeds = len(comparison.results()), "1 seed" if quick else "2 seeds"
    tell(
        f"{len(comparison.cells)} videos ({len(comparison.images)} pictures, {seeds}, plain and {name}) of "
        f"{frames} frames of {size[1]} x {size[0]} in {steps} steps; {finished} are finished."
    )
    clock.start()
    comparison.run(progress=clock)
    rows = summarise_cells(comparison.results())
    if failed := [reason for row in rows if not row.means for reason in row.failed]:
        raise UnstillError(f"{model} makes no videos to verify: {failed[0]}")
    if earlier is None:
        costs = {
            setting.name: measure_cost(loaded(), setting.methods, prompt, frames, size) for setting in made.settings
        }
        measured = _Measured(
            request=request,
            pipeline=type(loaded()).__name__,
            dtype=str(loaded().dtype).removeprefix("torch."),
            frames=frames,
            steps=steps,
            size=_Size(height=size[0], width=size[1]),
            costs=costs,
            memory_is="allocated on the GPU" if used.type == "cuda" else RESIDENT,
            versions=versions(),
        )
    else:
        measured = earlier
        tell(f"Its cost was measured before; {folder} holds the result. Another folder measures all of it again.")
    result = VerificationResult(
        folder=folder,
        model=shown,
        pipeline=measured.pipeline,
        device=device_name,
        dtype=measured.dtype,
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
        versions=measured.versions,
        costs=measured.costs,
        memory_is=measured.memory_is,
        request=request,
    )
    with together(folder / FILES[1], FILES[:1]) as results:
        page(result, comparison).save(results.folder / FILES[0])
        results.record.update(result.as_dict())
    return result


def _earlier(file: Path, request: str) -> _Measured | None:
    """What an earlier run of the same request has measured; `None` where it is not known."""
    try:
        measured = read_json(file, _Measured, "delete it")
    except UnstillError:  # there is none, or it is of an older version
        return None
    return measured if measured.request == request else None


def _pictures(count: int, size: tuple[int, int]) -> dict[str, Image.Image]:
    """The picture of this package, and rendered ones of the size of the videos."""
    world = World(count=count - 1, frames=2, size=size)
    rendered = {f"rendered {number + 1}": picture_of(world[number]) for number in range(count - 1)}
    return {"bundled": read_image(registry.bundled_picture()), **rendered}


def _default_steps(pipe: Any) -> int:
    return int(parameters(type(pipe))["num_inference_steps"].default)


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
