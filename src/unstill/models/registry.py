"""
The named models, hub ids and local folders: what is known of each before it is loaded, and `load`, which makes a
ready pipeline of it.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field

from unstill.documents import read_json
from unstill.errors import UnstillError, first_line, shown
from unstill.families.model_card import Model
from unstill.families.registry import MODELS, family_of
from unstill.models.loading import check_weights, fetch_released, from_pretrained, parse_device
from unstill.models.loading_options import LoraFile, Quantisation, add_loras, check_options, move_pipeline
from unstill.models.loading_options import quantise as quantise_denoisers
from unstill.models.memory import (
    Offload,
    Weights,
    check_memory,
    free_memory,
    memory_sentence,
    weights_of_folder,
    weights_of_hub,
)


if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline


REPORTED_PARAMETERS = 10**8  # smaller models load without a message about their memory
PICO = Path(__file__).parent / "pico" / "weights"


def find(name_or_path: str) -> Model | None:
    """
    Looks up a model.

    Args:
        name_or_path: a name of `MODELS` or its hub id, another hub id, or a local diffusers folder.

    Returns:
        The entry of a named model; `None` for another hub id and for a folder.

    Raises:
        UnstillError: neither a known name, nor a folder that holds a pipeline, nor an `owner/name` id.
    """
    for model in MODELS:
        if name_or_path.lower() in (model.name, (model.weights or model.name).lower()):
            return model
    folder = Path(name_or_path)
    if folder.is_dir():
        if not (folder / "model_index.json").is_file():
            raise UnstillError(
                f"{folder} is not a diffusers pipeline (it has no model_index.json); name the folder that "
                "save_pretrained, unstill convert or unstill train wrote."
            )
        return None
    if folder.exists():
        raise UnstillError(f"{folder} is a file; a local model is the folder that a pipeline's save_pretrained wrote.")
    if name_or_path.count("/") == 1 and not name_or_path.startswith((".", "/", "~")):
        return None
    if name_or_path.startswith((".", "/", "~")):
        raise UnstillError(f"There is no folder {name_or_path}; check the path, or take a name of unstill models.")
    raise UnstillError(
        f"There is no model {name_or_path!r}{_near(name_or_path)}Known: {', '.join(model.name for model in MODELS)}; "
        "or give a local diffusers folder or a hub id (owner/name)."
    )


def _near(name: str) -> str:
    """
    A question with the known names that contain all words and numbers of an unknown one, else with the most similar
    name; ". " if there is none.
    """
    names = [model.name for model in MODELS]
    tokens = re.findall(r"[a-z]+|\d+(?:\.\d+)?", name.lower())
    close = [known for known in names if tokens and all(token in known for token in tokens)]
    close = close or difflib.get_close_matches(name.lower(), names, n=1)
    return f"; did you mean {' or '.join(map(repr, close[:4]))}? " if close else ". "


def pipeline_name(name_or_path: str) -> str | None:
    """The name of the pipeline class of a model, without loading it; `None` for a hub id without a name here."""
    if model := find(name_or_path):
        return model.pipeline
    if Path(name_or_path).is_dir():
        return _index(Path(name_or_path)).class_name
    return None


def pipeline_class(name_or_path: str) -> type[DiffusionPipeline] | None:
    """
    The pipeline class of a model; imports its module and reads no weights.

    Returns:
        `None` for a hub id without a name here.

    Raises:
        UnstillError: the class cannot be imported, is missing from the installed diffusers, or is no pipeline.
    """
    name = pipeline_name(name_or_path)
    if name is None:
        return None
    module = import_module(family_of(name).module)
    from diffusers import DiffusionPipeline

    try:
        cls = getattr(module, name, None)
    except (ImportError, RuntimeError) as error:  # diffusers imports a pipeline when its name is first used
        raise UnstillError(f"{name_or_path} needs {name}, which cannot be imported: {first_line(error)}.") from error
    if cls is None:
        raise UnstillError(
            f"{name_or_path} needs the class {shown(name)}, which this diffusers does not have; update it."
        )
    if not (isinstance(cls, type) and issubclass(cls, DiffusionPipeline)):
        raise UnstillError(
            f"{name_or_path} names the class {name}, which is no pipeline that can be used here; save it again with "
            "save_pretrained of its pipeline, or install what the pipeline needs."
        )
    return cls


def defaults_of(name_or_path: str) -> dict[str, Any]:
    """
    Default method parameters for a model.

    Args:
        name_or_path: see `find`. A local folder has the noise level of its pipeline class, and statistics if it
            contains a `statistics.safetensors`.

    Returns:
        Its first noise level as `start` or `sigma`, and its `statistics` where there are any.
    """
    entry = find(name_or_path)
    defaults = defaults_of_pipeline(pipeline_name(name_or_path))
    if entry is not None:
        defaults = dict([entry.start])
    statistics = (PICO if entry and entry.weights is None else Path(name_or_path)) / "statistics.safetensors"
    if statistics.is_file():
        from unstill.latent_statistics import LatentStatistics

        defaults["statistics"] = LatentStatistics.load(statistics)
        defaults["resize"] = True  # a call may have fewer frames than the statistics
    return defaults


def defaults_of_pipeline(name: str | None) -> dict[str, Any]:
    """The default `start` or `sigma` of a pipeline class, by its name."""
    level = next((model.start for model in MODELS if model.pipeline == name), None)
    return dict([level or ("start", 0.96)])


def usual_method(defaults: Mapping[str, Any]) -> str:
    """The default method for a model with these defaults: Analytic-Init where it has statistics, else EarlyStart."""
    return "analytic_init" if "statistics" in defaults else "early_start"


def check_video_size(name_or_path: str | None, size: tuple[int, int], cls: type | None = None) -> None:
    """
    Checks that a model can generate videos of a size.

    Args:
        name_or_path: the model; `None` if only its pipeline is known.
        size: (height, width) in pixels.
        cls: the pipeline's class, by default that of `name_or_path`.

    Raises:
        UnstillError: the model has one fixed size, and this is another one.
    """
    from unstill.models.call_arguments import parameters

    entry = None if name_or_path is None else find(name_or_path)
    if cls is None and name_or_path is not None:
        cls = pipeline_class(name_or_path)
    fixed = entry.size if entry else None
    if cls is not None and "height" not in parameters(cls) and size != fixed:
        shape = f" ({fixed[1]}x{fixed[0]})" if fixed else ""
        raise UnstillError(f"{name_or_path or cls.__name__} makes videos of one size only{shape}: leave out --size.")


def check_frames(name_or_path: str, frames: int | None) -> None:
    """
    Checks that a model can generate videos of a length.

    Raises:
        UnstillError: more frames than the `max_frames` of a named model.
    """
    entry = find(name_or_path)
    if entry and entry.max_frames and frames and frames > entry.max_frames:
        raise UnstillError(
            f"--frames is {frames}, but {entry.name} makes videos of at most {entry.max_frames} frames; ask for fewer."
        )


def is_embedded(pipeline: str | None) -> bool:
    """Whether a pipeline class, by its name, is that of the model whose weights are in the package."""
    return any(model.weights is None and model.pipeline == pipeline for model in MODELS)


def bundled_picture() -> Path:
    """The example picture in the package."""
    return PICO / "bundled.png"


def load(
    name_or_path: str,
    *,
    checkpoint: str | os.PathLike[str] | None = None,
    dtype: torch.dtype | None = None,
    device: str | torch.device | None = None,
    offload: bool | Offload = False,
    quantise: Quantisation | None = None,
    loras: Sequence[str | LoraFile] = (),
    frame_norm: bool = False,
    **options: Any,
) -> DiffusionPipeline:
    """
    Loads a diffusers pipeline and moves it to a device.

    Args:
        name_or_path: a name of `MODELS`, a local folder written by `save_pretrained`, or a hub id.
        checkpoint: a file of weights. Of models that are released as one file (DynamiCrafter, VideoCrafter, LaVie):
            that file, or one fine-tuned from it; by default it is fetched from the hub. Of other models: a fine-tuned
            denoiser.
        dtype: of the weights; by default the model's own on an accelerator, float32 on the CPU.
        device: by default an accelerator where there is one, else the CPU.
        offload: what is kept on the accelerator: `True` or `"model"` only the component that runs
            (`enable_model_cpu_offload`), `"group"` only the layer that runs (`enable_group_offload`), `False` or
            `"none"` everything.
        quantise: stores the denoiser's weights in eight bits: `"fp8"`, or `"int8"` with torchao.
        loras: LoRA files for the denoiser: `FILE`, `FILE:WEIGHT`, or `FILE:WEIGHT:transformer_2` for the second
            network of Wan 2.2 A14B. Needs peft.
        frame_norm: AnimateDiff's motion modules normalise each frame separately, as in their authors' code; diffusers
            computes the statistics over all frames.
        options: passed to the pipeline's `from_pretrained`; models that are released as one file take only `base` (see
            `load_checkpoint`).

    Returns:
        The pipeline.

    Raises:
        UnstillError: an unknown name, a damaged folder or one with other networks, a hub that cannot be reached, a
            missing device, or weights that are larger than its free memory.
    """
    import torch

    model = find(name_or_path)
    target = parse_device(device)
    files = tuple(lora if isinstance(lora, LoraFile) else LoraFile.parse(lora) for lora in loras)
    offload = check_options(offload, quantise)
    if dtype is None:
        dtype = getattr(torch, model.dtype) if model and target.type != "cpu" else torch.float32
    weights = None if target.type == "cpu" else weights_of(name_or_path)
    if weights is not None and (free := free_memory(target)) is not None:
        check_memory(name_or_path, weights, free, dtype.itemsize, offload, quantise is not None)
    if model and model.file:
        from unstill.models.convert import load_checkpoint

        pipe: Any = load_checkpoint(checkpoint or fetch_released(model), model.name, dtype=dtype, **options)
    else:
        pipe = from_pretrained(name_or_path, model, pipeline_class(name_or_path), dtype, options)
        if checkpoint is not None:
            from unstill.models.convert import load_denoiser

            load_denoiser(pipe, checkpoint)
    check_weights(pipe, name_or_path)
    if any(entry.tiled and entry.pipeline == type(pipe).__name__ for entry in MODELS):
        pipe.vae.enable_tiling()
    if frame_norm:
        from unstill.models.animatediff import frame_norms_of

        frame_norms_of(pipe)
    add_loras(pipe, files)
    quantise_denoisers(pipe, quantise)
    move_pipeline(pipe, target, offload)
    return pipe


def weights_of(name_or_path: str) -> Weights | None:
    """
    The sizes of a model's weights, from the headers of its files in a local folder or on the hub.

    Returns:
        `None` for the embedded model, for models released as one file, and where no header can be read.
    """
    model = find(name_or_path)
    if model is not None and (model.weights is None or model.file):
        return None
    if model is None and Path(name_or_path).is_dir():
        return weights_of_folder(Path(name_or_path))
    return weights_of_hub(model.weights or name_or_path if model else name_or_path, model.variant if model else None)


def memory_needed(
    name_or_path: str,
    dtype: torch.dtype | None = None,
    device: str | torch.device | None = None,
    offload: bool | Offload = False,
    quantise: Quantisation | None = None,
) -> str:
    """
    The memory that the weights of a model need, in one sentence; the arguments are those of `load`.

    Returns:
        The sentence; empty where the size is not known, and for less than `REPORTED_PARAMETERS`.
    """
    import torch

    model, target, offload = find(name_or_path), parse_device(device), check_options(offload, quantise)
    if (weights := weights_of(name_or_path)) is None or sum(weights.parts.values()) < REPORTED_PARAMETERS:
        return ""
    if dtype is None:
        dtype = getattr(torch, model.dtype) if model and target.type != "cpu" else torch.float32
    if target.type == "cpu":
        offload = "none"
    return memory_sentence(name_or_path, weights, dtype.itemsize, offload, quantise is not None)


class _Index(BaseModel):
    """The part of a `model_index.json` that is used."""

    class_name: str = Field(alias="_class_name", pattern=r"^[A-Za-z][A-Za-z0-9_]*$", max_length=200)


def _index(folder: Path) -> _Index:
    return read_json(folder / "model_index.json", _Index, "it should name a pipeline: save the pipeline again")
