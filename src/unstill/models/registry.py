"""The models this library knows by name, and `load`: a name, a hub id or a local folder becomes a ready pipeline."""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from unstill.errors import UnstillError


if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """
    One model by name.

    Attributes:
        name: what `load` and `--model` take.
        pipeline: the class of its pipeline.
        weights: a hub id, or `None` for weights that come with the package.
        licence: of the weights, in their owner's words.
        parameters: of the denoiser.
        needs: memory to run it, as its authors or diffusers' documentation give it for `dtype`.
        dtype: what the weights were made for.
        size: (height, width) it was trained for.
        frames, fps, steps: its usual clip and number of sampling steps.
        input: what a call needs.
        parts: pipeline components that live in their own repository: name -> (class, hub id).
        start: the noise level at which improved sampling begins unless asked otherwise: ("start" or "sigma", value).
        scheduler: settings that replace those of the loaded scheduler: (class, changed values).
    """

    name: str
    pipeline: str
    weights: str | None
    licence: str
    parameters: str
    needs: str
    dtype: Literal["float32", "float16", "bfloat16"]
    size: tuple[int, int]
    frames: int
    fps: int
    steps: int
    input: Literal["image", "image and prompt", "prompt"]
    start: tuple[Literal["start", "sigma"], float]
    parts: tuple[tuple[str, str, str], ...] = ()
    scheduler: tuple[str, tuple[tuple[str, Any], ...]] | None = None
    variant: str | None = None


MODELS: tuple[Model, ...] = (
    Model(
        name="pico",
        pipeline="PicoPipeline",
        weights=None,
        licence="Apache-2.0",
        parameters="4 M",
        needs="any CPU",
        dtype="float32",
        size=(64, 64),
        frames=8,
        fps=8,
        steps=25,
        input="image",
        start=("sigma", 6.0),
    ),
    Model(
        name="svd",
        pipeline="StableVideoDiffusionPipeline",
        weights="stabilityai/stable-video-diffusion-img2vid",
        licence="Stability AI Community License",
        parameters="1.5 B",
        needs="a GPU of 8 GB with --offload",
        dtype="float16",
        size=(576, 1024),
        frames=14,
        fps=7,
        steps=25,
        input="image",
        start=("sigma", 100.0),
        variant="fp16",
    ),
    Model(
        name="svd-xt",
        pipeline="StableVideoDiffusionPipeline",
        weights="stabilityai/stable-video-diffusion-img2vid-xt",
        licence="Stability AI Community License",
        parameters="1.5 B",
        needs="a GPU of 8 GB with --offload",
        dtype="float16",
        size=(576, 1024),
        frames=25,
        fps=7,
        steps=25,
        input="image",
        start=("sigma", 100.0),
        variant="fp16",
    ),
    Model(
        name="animatediff",
        pipeline="AnimateDiffPipeline",
        weights="stable-diffusion-v1-5/stable-diffusion-v1-5",
        licence="CreativeML Open RAIL-M (base), Apache-2.0 (motion module)",
        parameters="1.3 B",
        needs="a GPU of 8 GB with --offload",
        dtype="float16",
        size=(512, 512),
        frames=16,
        fps=8,
        steps=25,
        input="prompt",
        start=("start", 0.96),
        parts=(("motion_adapter", "MotionAdapter", "guoyww/animatediff-motion-adapter-v1-5-2"),),
        scheduler=("DDIMScheduler", (("beta_schedule", "linear"), ("clip_sample", False))),
    ),
    Model(
        name="cogvideox-5b-i2v",
        pipeline="CogVideoXImageToVideoPipeline",
        weights="zai-org/CogVideoX-5b-I2V",
        licence="CogVideoX License",
        parameters="5 B",
        needs="a GPU of 24 GB with --offload",
        dtype="bfloat16",
        size=(480, 720),
        frames=49,
        fps=8,
        steps=50,
        input="image and prompt",
        start=("start", 0.96),
    ),
    Model(
        name="wan2.1-i2v-14b-480p",
        pipeline="WanImageToVideoPipeline",
        weights="Wan-AI/Wan2.1-I2V-14B-480P-Diffusers",
        licence="Apache-2.0",
        parameters="14 B",
        needs="a GPU of 40 GB with --offload",
        dtype="bfloat16",
        size=(480, 832),
        frames=81,
        fps=16,
        steps=50,
        input="image and prompt",
        start=("start", 0.96),
    ),
)


PICO = Path(__file__).parent / "pico" / "weights"


def find(name_or_path: str) -> Model | None:
    """
    The entry of a name; `None` for a hub id or a local diffusers folder, of which nothing is known but itself.

    Raises:
        UnstillError: for what is neither a known name, nor a folder with a pipeline in it, nor an `owner/name` id.
    """
    for model in MODELS:
        if name_or_path.lower() in (model.name, (model.weights or model.name).lower()):
            return model
    folder = Path(name_or_path)
    if folder.is_dir():
        if not (folder / "model_index.json").is_file():
            raise UnstillError(f"{folder} is not a diffusers pipeline: it has no model_index.json.")
        return None
    if folder.exists():
        raise UnstillError(f"{folder} is a file; a local model is the folder that a pipeline's save_pretrained wrote.")
    if name_or_path.count("/") == 1 and not name_or_path.startswith((".", "/", "~")):
        return None
    names = [model.name for model in MODELS]
    close = difflib.get_close_matches(name_or_path.lower(), names, n=1)
    raise UnstillError(
        f"There is no model {name_or_path!r}"
        + (f"; did you mean {close[0]!r}? " if close else ". ")
        + f"Known: {', '.join(names)}; or give a local diffusers folder or a hub id (owner/name)."
    )


def pipeline_name(name_or_path: str) -> str | None:
    """The pipeline class of a known name or a local folder, without loading it; `None` for an unknown hub id."""
    if model := find(name_or_path):
        return model.pipeline
    if Path(name_or_path).is_dir():
        return _index(Path(name_or_path))["_class_name"]
    return None


def pipeline_class(name_or_path: str) -> type[DiffusionPipeline] | None:
    """As `pipeline_name`, but the class itself; its modules are imported, no weights are read."""
    name = pipeline_name(name_or_path)
    if name is None:
        return None
    if name == "PicoPipeline":
        from unstill.models.pico import PicoPipeline

        return PicoPipeline
    import diffusers

    if not hasattr(diffusers, name):
        raise UnstillError(f"{name_or_path} needs the class {name}, which this diffusers does not have; update it.")
    cls: type[DiffusionPipeline] = getattr(diffusers, name)
    return cls


def defaults_of(name_or_path: str) -> dict[str, Any]:
    """
    Method parameters that suit a model: its level of `start` or `sigma`, and its `statistics` where they are shipped.

    A local folder has the level of its pipeline class, and statistics only if a `statistics.safetensors` lies in it.
    """
    entry = find(name_or_path)
    pipeline = pipeline_name(name_or_path)
    level = next((model.start for model in ((entry,) if entry else MODELS) if model.pipeline == pipeline), None)
    defaults: dict[str, Any] = dict([level or ("start", 0.96)])
    measured = (PICO if entry and entry.weights is None else Path(name_or_path)) / "statistics.safetensors"
    if measured.is_file():
        from unstill.statistics import LatentStatistics

        defaults["statistics"] = LatentStatistics.load(measured)
    return defaults


def bundled_picture() -> Path:
    """The picture that comes with the package."""
    return PICO / "bundled.png"


def load(
    name_or_path: str,
    *,
    dtype: torch.dtype | None = None,
    device: str | torch.device | None = None,
    offload: bool = False,
    **options: Any,
) -> DiffusionPipeline:
    """
    A ready diffusers pipeline.

    Args:
        name_or_path: a name of `MODELS`, a local folder written by `save_pretrained`, or a hub id.
        dtype: of the weights; by default the model's own on an accelerator, float32 on the CPU.
        device: by default an accelerator where there is one, else the CPU.
        offload: keep only the part at work on the accelerator (`enable_model_cpu_offload`).
        options: go to the pipeline's `from_pretrained`.

    Raises:
        UnstillError: an unknown name, a broken folder, a hub that cannot be reached, a missing device.
    """
    import torch

    model = find(name_or_path)
    target = _device(device)
    if dtype is None:
        dtype = getattr(torch, model.dtype) if model and target.type != "cpu" else torch.float32
    pipe = _from_pretrained(name_or_path, model, dtype, options)
    if offload and target.type != "cpu":
        pipe.enable_model_cpu_offload(device=target)
    else:
        pipe.to(target)
    return pipe


def _device(asked: str | torch.device | None) -> torch.device:
    """The device asked for, or the best there is."""
    import torch

    here = torch.accelerator.current_accelerator(check_available=True)
    if asked is None:
        return here if here is not None else torch.device("cpu")
    try:
        device = torch.device(asked)
    except RuntimeError as error:
        raise UnstillError(f"{asked!r} is not a device; say cpu, cuda, cuda:1, mps or xpu.") from error
    there_is = device.type == "cpu" or (
        here is not None and device.type == here.type and (device.index or 0) < torch.accelerator.device_count()
    )
    if not there_is:
        raise UnstillError(f"There is no device {device} here; there is cpu" + (f" and {here.type}." if here else "."))
    return device


def _from_pretrained(name_or_path: str, model: Model | None, dtype: torch.dtype, options: dict[str, Any]) -> Any:
    cls = pipeline_class(name_or_path)
    if model and model.weights is None:
        from unstill.models.pico import PicoPipeline

        return PicoPipeline.embedded().to(dtype)
    if model is None and Path(name_or_path).is_dir() and cls is not None:
        try:
            return cls.from_pretrained(name_or_path, dtype=dtype, **options)
        except Exception as error:  # a damaged folder fails in as many ways as there are files in it
            raise UnstillError(f"{name_or_path} cannot be loaded: {str(error).splitlines()[0]}") from error

    import diffusers

    source = model.weights if model else name_or_path
    try:
        if model:
            for part, kind, repository in model.parts:
                options[part] = getattr(diffusers, kind).from_pretrained(repository, dtype=dtype)
            if model.variant:
                options.setdefault("variant", model.variant)
        pipe = (cls or diffusers.DiffusionPipeline).from_pretrained(source, dtype=dtype, **options)
    except (OSError, ValueError) as error:
        raise UnstillError(
            f"{source} could not be fetched from the Hugging Face hub (no connection, no such model, or its licence "
            f"must be accepted there first) and is not in the local cache; give a local diffusers folder instead."
        ) from error
    if model and model.scheduler:
        kind, changes = model.scheduler
        pipe.scheduler = getattr(diffusers, kind).from_config(pipe.scheduler.config, **dict(changes))
    return pipe


def _index(folder: Path) -> dict[str, Any]:
    try:
        index = json.loads((folder / "model_index.json").read_text())
        index["_class_name"]
    except (ValueError, KeyError, TypeError) as error:
        raise UnstillError(f"{folder}/model_index.json does not name a pipeline; save the pipeline again.") from error
    return index
