"""`unstill.compare`: methods and their settings on the same images and noise."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from unstill.data.decode import natural_key
from unstill.data.images import PICTURE_SUFFIXES, read_image
from unstill.data.ownership import check_free, together
from unstill.errors import UnstillError
from unstill.lab.aggregate import Row, summarise_cells
from unstill.lab.comparison_cells import ComparedModel, Comparison, Setting, Toys
from unstill.lab.comparison_report import WRITTEN, comparison_verdict, write
from unstill.lab.fingerprint import model_fingerprint
from unstill.lab.method_grid import PLAIN, expand, split
from unstill.lab.probe_clips import ProbeClip, from_world, picture_of
from unstill.lab.provenance import versions
from unstill.lab.sweeps import Sweep, sweep_named
from unstill.lab.toys import measure_toys
from unstill.methods.base import Method
from unstill.methods.parsing import parse_method
from unstill.methods.registry import describe_method
from unstill.models import registry
from unstill.models.call_arguments import native_frames, native_size


Settings = Sequence[str] | Mapping[str, Method | Sequence[Method]]
Progress = Callable[[int, int], None]
DEFAULT_COUNT = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class ComparisonResult:
    """
    What `compare` found.

    Attributes:
        folder: where videos, tables and `report.html` are.
        rows: one per model, motion level and setting, plain first.
        cells: every video with its measurements, or why it could not be made.
        verdict: sentences.
        settings: the parameters of each setting's methods.
        images: names, in order.
        seeds: of the noise.
        versions: of the packages that decide the numbers.
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
        """As `summary.json` holds it."""
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
    steps: int | None = None,
    frames: int | None = None,
    size: tuple[int, int] | None = None,
    caption_only: bool = False,
    out: Path | str = "comparison",
    device: str | None = None,
    offload: bool = False,
    command: str = "",
    rank: int = 0,
    processes: int = 1,
    progress: Progress | None = None,
) -> ComparisonResult | None:
    """
    Samples a video for every model, setting, motion level, image and seed; measures them, and writes a report.

    Every setting sees the same images and the same noise. Finished videos are kept in `out`: stopped at any moment,
    the same call continues; several processes with the same call share the work.

    Args:
        settings: as text (`"early-start:sigma=50|20+noise-rectification"`, see `unstill.lab.method_grid.expand`), or
            names of the caller's own with their methods. Plain, without any method, is always the first.
        sweep: a name of `unstill.lab.sweeps.SWEEPS`, whose settings come before `settings`.
        model: name, local folder or hub id; or several.
        images: a picture, a folder of pictures, or pictures by name. By default first frames of the synthetic world.
        count: pictures to use, at most.
        seeds: videos per picture, from `seed` on.
        motion: level or levels to ask for, in [0, 1]; by default the sweep's, or none is asked for.
        prompt: for models that read text; by default the synthetic world's captions with `caption_only`.
        steps, frames: of sampling and of the video; by default the model's.
        size: (height, width) in pixels, for models that make more than one size.
        caption_only: the denoiser does not see the image, see `Sweep.caption_only`.
        out: folder of the comparison.
        device, offload: as of `unstill.load`.
        command: what the report names as its origin.
        rank, processes: this process and how many share the work. Rank 0 waits for all and writes the report.
        progress: called with the number of finished videos and of all.

    Returns:
        The result; `None` in processes of other ranks.

    Raises:
        UnstillError: nothing to compare, settings, pictures or sizes that cannot be used, or a folder that holds
            another comparison.

    Example:
        ```py
        result = unstill.compare(["early-start:sigma=50|20|10"], model="pico", count=4, motion=0.6)
        print(result.verdict)
        ```
    """
    chosen = sweep_named(sweep) if sweep else None
    named = _named_settings(settings, chosen)
    if not named:
        raise UnstillError("There is no setting to compare; name a method, for example early-start:sigma=50|20.")
    blind = caption_only or (chosen is not None and chosen.caption_only)
    out = Path(out)
    check_free(out / "summary.json", [out / name for name in WRITTEN])
    models = [
        _model(name, named, size, frames, steps, functools.partial(_load, name, device, offload, blind), blind)
        for name in ([model] if isinstance(model, str) else model)
    ]
    pictures, captions, toys = _pictures(images, count, models[0], seed)
    motions = _motions(motion) if motion is not None else chosen.motions if chosen else (None,)
    used = tuple(range(seed, seed + seeds))
    comparison = Comparison(
        out,
        models,
        pictures,
        used,
        motions=motions,
        prompts=captions if blind and prompt is None else prompt,
        blind=blind,
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
        settings={one.name: list(one.described) for entry in models for one in entry.settings},
        images=tuple(pictures),
        seeds=used,
        versions=versions(),
    )
    facts = {
        **({"command": command} if command else {}),
        "settings": "; ".join(f"{name}: {json.dumps(methods)}" for name, methods in result.settings.items()),
        "images": ", ".join(pictures),
        "versions": ", ".join(f"{package} {number}" for package, number in result.versions.items()),
    }
    with together(out / "summary.json", WRITTEN) as made:
        write(comparison, rows, facts, made.folder)
        made.record.update({**({"command": command} if command else {}), **result.as_dict()})
    return result


def _named_settings(settings: Settings, sweep: Sweep | None) -> dict[str, tuple[str | Method, ...]]:
    """Every setting by its name, as methods or their text; empty where nothing but plain was asked for by nobody."""
    texts = list(sweep.settings) if sweep else []
    own: dict[str, tuple[str | Method, ...]] = {}
    if isinstance(settings, Mapping):
        own = {
            name: (methods,) if isinstance(methods, Method) else tuple(methods) for name, methods in settings.items()
        }
    else:
        texts += [settings] if isinstance(settings, str) else settings
    expanded: dict[str, tuple[str | Method, ...]] = {
        name: tuple(split(name)) for text in texts for name in expand(text)
    }
    found = expanded | own
    return {PLAIN: (), **found} if found else {}


def _model(
    name: str,
    settings: Mapping[str, tuple[str | Method, ...]],
    size: tuple[int, int] | None,
    frames: int | None,
    steps: int | None,
    load: Callable[[], Any],
    caption_only: bool,
) -> ComparedModel:
    """A model with its settings, of which those given as text take the model's own defaults."""
    entry = registry.find(name)
    defaults = registry.defaults_of(name)
    if caption_only:
        defaults.pop("sigma", None)  # of the embedded model's own scheduler, which is variance-exploding
    made = []
    for setting, given in settings.items():
        methods = tuple(parse_method(one, defaults) if isinstance(one, str) else one for one in given)
        made.append(Setting(name=setting, methods=methods, described=tuple(describe_method(one) for one in methods)))
    if entry is not None:
        size, frames, steps, fps = size or entry.size, frames or entry.frames, steps or entry.steps, entry.fps
    else:  # only the pipeline itself knows
        loaded = load()
        size, frames, fps = size or native_size(loaded), frames or native_frames(loaded), 8
        load = functools.partial(lambda pipe: pipe, loaded)
    return ComparedModel(
        name=name,
        load=load,
        weights=f"{model_fingerprint(name)}{' variance-preserving' if caption_only else ''}",
        size=size,
        settings=tuple(made),
        frames=frames,
        steps=steps,
        fps=fps,
    )


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
    """Pictures and, of the synthetic world, captions and toys, by name; those of a folder in natural order."""
    if source is None:
        clips = from_world(count, model.frames or 8, model.size, seed)
        rendered = {f"world {i}": clip for i, clip in enumerate(clips)}
        captions = {name: clip.caption for name, clip in rendered.items() if clip.caption is not None}
        toys = {name: known for name, clip in rendered.items() if (known := _toys(clip)) is not None}
        return {name: picture_of(clip) for name, clip in rendered.items()}, captions, toys
    if isinstance(source, Mapping):
        return dict(list(source.items())[:count]), {}, {}
    path = Path(source)
    if not path.is_dir():
        return {path.name: read_image(path)}, {}, {}
    found = sorted(
        (file for file in path.iterdir() if file.suffix.lower() in PICTURE_SUFFIXES),
        key=lambda file: natural_key(file.name),
    )
    if not found:
        raise UnstillError(
            f"The folder {path} holds no pictures; their names end in {' '.join(sorted(PICTURE_SUFFIXES))}."
        )
    return {file.name: read_image(file) for file in found[:count]}, {}, {}


def _toys(clip: ProbeClip) -> Toys | None:
    """The toys of a rendered clip, with the travel that the same measure finds in it."""
    kept = None if clip.toys is None else measure_toys(clip.video, clip.video[0], clip.toys)
    if clip.toys is None or kept is None or not kept.travel:
        return None
    return Toys(masks=clip.toys, motion=clip.motion, travel=kept.travel)
