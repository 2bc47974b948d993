"""`unstill.compare`: methods and their settings on the same images and noise."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from unstill.data.decode import natural_key
from unstill.data.images import PICTURE_SUFFIXES, read_image, resize_and_crop
from unstill.data.ownership import check_free, together
from unstill.errors import UnstillError
from unstill.lab.aggregate import Row, summarise_cells
from unstill.lab.comparison_cells import ComparedModel, Comparison, Setting, call_arguments
from unstill.lab.comparison_report import WRITTEN, comparison_verdict, write_comparison
from unstill.lab.equal_calls import equal_steps
from unstill.lab.fingerprint import model_fingerprint
from unstill.lab.method_grid import PLAIN, expand, split
from unstill.lab.probe_clips import ProbeClip, World, picture_of
from unstill.lab.provenance import versions
from unstill.lab.sweeps import Sweep, sweep_named
from unstill.lab.toys import measure_toys
from unstill.lab.video_measures import Toys
from unstill.methods.base import Method
from unstill.methods.parsing import parse_method
from unstill.methods.registry import describe_method
from unstill.models import registry
from unstill.models.call_arguments import native_frames, native_size
from unstill.progress import StepProgress


Settings = Sequence[str] | Mapping[str, Method | Sequence[Method]]
DEFAULT_COUNT = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class ComparisonResult:
    """
    The result of `compare`.

    Attributes:
        folder: where videos, tables and `report.html` are.
        rows: one per model, motion level and setting, plain first.
        cells: every video with its measurements, or the error that prevented it.
        verdict: sentences.
        settings: the parameters of the methods, by setting.
        images: names, in order.
        seeds: of the noise.
        versions: of the software, by package.
    """

    folder: Path
    rows: tuple[Row, ...]
    cells: tuple[dict[str, Any], ...]
    verdict: tuple[str, ...]
    settings: dict[str, list[dict[str, Any]]]
    images: tuple[str, ...]
    seeds: tuple[int, ...]
    versions: dict[str, str]

    def as_dict(self) -> dict[str, Any]:
        """The content of `summary.json`."""
        return {
            "versions": self.versions,
            "verdict": list(self.verdict),
            "rows": [row.as_dict() for row in self.rows],
            "settings": self.settings,
            "images": list(self.images),
            "seeds": list(self.seeds),
        }


def compare(
    settings: Settings = (),
    *,
    sweep: str | None = None,
    model: str | Sequence[str] = "pico",
    images: Path | str | Mapping[str, Image.Image] | None = None,
    count: int = DEFAULT_COUNT,
    seeds: int = 1,
    seed: int = 0,
    motion: float | Sequence[float] | None = None,
    prompt: str | None = None,
    guidance: float | None = None,
    steps: int | None = None,
    frames: int | None = None,
    size: tuple[int, int] | None = None,
    caption_only: bool = False,
    equal_calls: bool = False,
    out: Path | str = "comparison",
    device: str | None = None,
    offload: bool = False,
    command: str = "",
    rank: int = 0,
    processes: int = 1,
    progress: StepProgress | None = None,
) -> ComparisonResult | None:
    """
    Samples a video for every model, setting, motion level, image and seed; measures them, and writes a report.

    All settings use the same images and the same noise. Finished videos are kept in `out`: after an interruption the
    same call resumes, and several processes with the same call share the work.

    Args:
        settings: text (`"early-start:sigma=50|20+noise-rectification"`, see `unstill.lab.method_grid.expand`), or a
            mapping of names to methods. The setting `plain`, without any method, always comes first.
        sweep: a name of `unstill.lab.sweeps.SWEEPS`, whose settings come before `settings`.
        model: name, local folder or hub id; or several.
        images: a picture, a folder of pictures, or pictures by name; by default first frames of the synthetic world.
        count: maximum number of pictures.
        seeds: videos per picture; their seeds are `seed`, `seed + 1`, ...
        seed: of the noise, and of the default pictures.
        motion: requested motion level or levels, in [0, 1]; by default those of the sweep, or the pipeline's default.
        prompt: for models that read text; with `caption_only` by default the captions of the synthetic world.
        guidance: weight of prompt and image, the pipeline's `guidance_scale`; by default the pipeline's.
        steps, frames: number of sampling steps and of video frames; by default the model's.
        size: (height, width) in pixels, for models that support several sizes.
        caption_only: the denoiser does not see the image, see `Sweep.caption_only`.
        equal_calls: also compare plain sampling in as many steps as each setting that costs more calls of the network
            spends, as `plain, 24 steps`, see `unstill.lab.equal_calls`.
        out: folder of the comparison.
        device, offload: see `unstill.load`.
        command: command line to name in the report.
        rank, processes: index of this process and number of processes. Rank 0 waits for the others and writes the
            report.
        progress: called with (finished videos, all videos).

    Returns:
        The result; `None` if `rank` is not 0.

    Raises:
        UnstillError: nothing to compare; unusable settings, pictures or sizes; or `out` holds another comparison.

    Example:
        ```py
        result = unstill.compare(["early-start:sigma=50|20|10"], model="pico", count=4, motion=0.6)
        print(result.verdict)
        ```
    """
    base = sweep_named(sweep) if sweep else None
    by_name = _named_settings(settings, base)
    if not by_name:
        raise UnstillError("There is no setting to compare; name a method, for example early-start:sigma=50|20.")
    caption_only = caption_only or (base is not None and base.caption_only)
    out = Path(out)
    check_free(out / "summary.json", [out / name for name in WRITTEN])
    models = [
        _model(
            name,
            by_name,
            size,
            frames,
            steps,
            guidance,
            functools.partial(_load, name, device, offload, caption_only),
            caption_only,
        )
        for name in ([model] if isinstance(model, str) else model)
    ]
    pictures, captions, toys = _pictures(images, count, models[0], seed)
    motions = _motions(motion) if motion is not None else base.motions if base else (None,)
    noise_seeds = tuple(range(seed, seed + seeds))
    prompts: Mapping[str, str] | str | None = captions if caption_only and prompt is None else prompt
    if equal_calls:
        first, picture = next(iter(pictures.items()))
        text = prompts.get(first) if isinstance(prompts, Mapping) else prompts
        models = [_with_equal_calls(one, picture, text, motions[0]) for one in models]
    comparison = Comparison(
        out,
        models,
        pictures,
        noise_seeds,
        motions=motions,
        prompts=prompts,
        caption_only=caption_only,
        toys=toys,
    )
    comparison.run(rank, processes, progress)
    if rank > 0:
        return None
    cells = comparison.results()
    rows = summarise_cells(cells)
    result = ComparisonResult(
        folder=out,
        rows=tuple(rows),
        cells=tuple(cells),
        verdict=tuple(comparison_verdict(rows)),
        settings={setting.name: list(setting.described) for entry in models for setting in entry.settings},
        images=tuple(pictures),
        seeds=noise_seeds,
        versions=versions(),
    )
    facts = {
        **({"command": command} if command else {}),
        "settings": "; ".join(f"{name}: {json.dumps(methods)}" for name, methods in result.settings.items()),
        "images": ", ".join(pictures),
        "versions": ", ".join(f"{package} {number}" for package, number in result.versions.items()),
    }
    with together(out / "summary.json", WRITTEN) as results:
        write_comparison(comparison, rows, facts, results.folder)
        results.record.update({**({"command": command} if command else {}), **result.as_dict()})
    return result


def _named_settings(settings: Settings, sweep: Sweep | None) -> dict[str, tuple[str | Method, ...]]:
    """The methods of every setting, as objects or text, beginning with `plain`; empty if there are no settings."""
    texts = list(sweep.settings) if sweep else []
    as_objects: dict[str, tuple[str | Method, ...]] = {}
    if isinstance(settings, Mapping):
        as_objects = {
            name: (methods,) if isinstance(methods, Method) else tuple(methods) for name, methods in settings.items()
        }
    else:
        texts += [settings] if isinstance(settings, str) else settings
    as_text: dict[str, tuple[str | Method, ...]] = {
        name: tuple(split(name)) for text in texts for name in expand(text)
    }
    named = as_text | as_objects
    return {PLAIN: (), **named} if named else {}


def _model(
    name: str,
    settings: Mapping[str, tuple[str | Method, ...]],
    size: tuple[int, int] | None,
    frames: int | None,
    steps: int | None,
    guidance: float | None,
    load: Callable[[], Any],
    caption_only: bool,
) -> ComparedModel:
    """A model with its settings; methods given as text use the defaults of the model."""
    entry = registry.find(name)
    defaults = registry.defaults_of(name)
    if caption_only:
        defaults.pop("sigma", None)  # of the embedded model's own scheduler, which is variance-exploding
    parsed = []
    for setting, items in settings.items():
        methods = tuple(parse_method(item, defaults) if isinstance(item, str) else item for item in items)
        parsed.append(Setting(name=setting, methods=methods, described=tuple(map(describe_method, methods))))
    if entry is not None:
        size, frames, steps, fps = size or entry.size, frames or entry.frames, steps or entry.steps, entry.fps
    else:  # the size and length are known only to the loaded pipeline
        loaded = load()
        size, frames, fps = size or native_size(loaded), frames or native_frames(loaded), 8
        load = functools.partial(lambda pipe: pipe, loaded)
    return ComparedModel(
        name=name,
        load=load,
        weights=f"{model_fingerprint(name)}{' variance-preserving' if caption_only else ''}",
        size=size,
        settings=tuple(parsed),
        frames=frames,
        steps=steps,
        guidance=guidance,
        fps=fps,
    )


def _with_equal_calls(
    model: ComparedModel, picture: Image.Image, prompt: str | None, motion: float | None
) -> ComparedModel:
    """The model with settings for plain sampling in as many steps as its settings spend calls."""
    pipe = model.load()
    pipe.set_progress_bar_config(disable=True)
    fitted = resize_and_crop(picture, model.size)
    call = call_arguments(pipe, model, fitted, prompt, motion)
    image = None if "image" in call else fitted
    counts = set()
    for setting in model.settings:
        try:
            usual, steps = equal_steps(pipe, call, setting.methods, image)
        except UnstillError:  # a method that does not fit this model: its cells say why
            continue
        if steps > usual:
            counts.add(steps)
    added = tuple(Setting(name=f"{PLAIN}, {steps} steps", methods=(), steps=steps) for steps in sorted(counts))
    return replace(model, settings=(*model.settings, *added), load=lambda: pipe)


def _load(name: str, device: str | None, offload: bool, caption_only: bool) -> Any:
    pipe: Any = registry.load(name, device=device, offload=offload)
    if caption_only and registry.pipeline_name(name) == "PicoPipeline":
        from unstill.models.pico import vp_scheduler

        pipe.scheduler = vp_scheduler()
    return pipe


def _motions(motion: float | Sequence[float]) -> tuple[float, ...]:
    levels = (motion,) if isinstance(motion, (int, float)) else tuple(motion)
    if not levels or not all(0 <= level <= 1 for level in levels):
        raise UnstillError(f"Motion levels lie in [0, 1], for example 0.3 and 0.6, not {motion!r}.")
    return levels


def _pictures(
    source: Path | str | Mapping[str, Image.Image] | None, count: int, model: ComparedModel, seed: int
) -> tuple[dict[str, Image.Image], dict[str, str], dict[str, Toys]]:
    """Pictures by name (files of a folder in natural order); of the synthetic world also their captions and toys."""
    if source is None:
        world = World(count=count, frames=model.frames or 8, size=model.size, seed=seed)
        rendered = {f"world {i}": world[i] for i in range(count)}
        captions = {name: clip.caption for name, clip in rendered.items() if clip.caption is not None}
        toys = {name: found for name, clip in rendered.items() if (found := _toys(clip))}
        return {name: picture_of(clip) for name, clip in rendered.items()}, captions, toys
    if isinstance(source, Mapping):
        return dict(list(source.items())[:count]), {}, {}
    path = Path(source)
    if not path.is_dir():
        return {path.name: read_image(path)}, {}, {}
    files = sorted(
        (file for file in path.iterdir() if file.suffix.lower() in PICTURE_SUFFIXES),
        key=lambda file: natural_key(file.name),
    )
    if not files:
        raise UnstillError(
            f"The folder {path} holds no pictures; their names end in {' '.join(sorted(PICTURE_SUFFIXES))}."
        )
    return {file.name: read_image(file) for file in files[:count]}, {}, {}


def _toys(clip: ProbeClip) -> Toys | None:
    """The toys of a rendered clip and their measured travel; `None` without toys or travel."""
    measures = None if clip.toys is None else measure_toys(clip.video, clip.video[0], clip.toys)
    if clip.toys is None or measures is None or not measures.travel:
        return None
    return Toys(masks=clip.toys, motion=clip.motion, travel=measures.travel)
