"""`load`: the name of a model, a hub id or a local folder becomes a ready pipeline."""

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
from unstill.errors import UnstillError, first_line, lacks_memory, shown
from unstill.families.model_card import Model
from unstill.families.registry import MODELS, family_of
from unstill.models.loading_options import Lora, Quantisation, add_loras, check_options, place
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


WORTH_SAYING = 10**8
"""Numbers in the weights of a model from which on its memory is said before loading."""
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
    """The known names that hold all words and numbers of an unknown one, else the most similar name, as a question."""
    names = [model.name for model in MODELS]
    pieces = re.findall(r"[a-z]+|\d+(?:\.\d+)?", name.lower())
    close = [known for known in names if pieces and all(piece in known for piece in pieces)]
    close = close or difflib.get_close_matches(name.lower(), names, n=1)
    return f"; did you mean {' or '.join(map(repr, close[:4]))}? " if close else ". "


def pipeline_name(name_or_path: str) -> str | None:
    """The pipeline class of a known name or a local folder, without loading it; `None` for an unknown hub id."""
    if model := find(name_or_path):
        return model.pipeline
    if Path(name_or_path).is_dir():
        return _index(Path(name_or_path)).class_name
    return None


def pipeline_class(name_or_path: str) -> type[DiffusionPipeline] | None:
    """As `pipeline_name`, but the class itself; its modules are imported, no weights are read."""
    name = pipeline_name(name_or_path)
    if name is None:
        return None
    home = import_module(family_of(name).module)
    from diffusers import DiffusionPipeline

    try:
        cls = getattr(home, name, None)
    except (ImportError, RuntimeError) as error:  # diffusers imports its pipelines when they are asked for
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
    Method parameters that suit a model: its level of `start` or `sigma`, and its `statistics` where they are shipped.

    A local folder has the level of its pipeline class, and statistics only if a `statistics.safetensors` lies in it.
    """
    entry = find(name_or_path)
    defaults = defaults_of_pipeline(pipeline_name(name_or_path))
    if entry is not None:
        defaults = dict([entry.start])
    measured = (PICO if entry and entry.weights is None else Path(name_or_path)) / "statistics.safetensors"
    if measured.is_file():
        from unstill.latent_statistics import LatentStatistics

        defaults["statistics"] = LatentStatistics.load(measured)
        defaults["resize"] = True  # a person may ask for fewer frames than were measured
    return defaults


def defaults_of_pipeline(name: str | None) -> dict[str, Any]:
    """The level of `start` or `sigma` that suits a pipeline class, by its name."""
    level = next((model.start for model in MODELS if model.pipeline == name), None)
    return dict([level or ("start", 0.96)])


def usual_method(defaults: Mapping[str, Any]) -> str:
    """The method for a model with these defaults: Analytic-Init if its statistics are known, else an early start."""
    return "analytic_init" if "statistics" in defaults else "early_start"


def check_size(name_or_path: str | None, size: tuple[int, int], cls: type | None = None) -> None:
    """
    Args:
        name_or_path: the model; `None` if only its pipeline is known.
        size: (height, width) in pixels.
        cls: the pipeline's class, by default that of `name_or_path`.

    Raises:
        UnstillError: the model makes videos of one size only, and this is another one.
    """
    from unstill.models.call_arguments import parameters

    entry = None if name_or_path is None else find(name_or_path)
    if cls is None and name_or_path is not None:
        cls = pipeline_class(name_or_path)
    only = entry.size if entry else None
    if cls is not None and "height" not in parameters(cls) and size != only:
        words = f" ({only[1]}x{only[0]})" if only else ""
        raise UnstillError(f"{name_or_path or cls.__name__} makes videos of one size only{words}: leave out --size.")


def check_frames(name_or_path: str, frames: int | None) -> None:
    """
    Raises:
        UnstillError: a longer video than the model can make, as far as that is known by its name.
    """
    entry = find(name_or_path)
    if entry and entry.max_frames and frames and frames > entry.max_frames:
        raise UnstillError(
            f"--frames is {frames}, but {entry.name} makes videos of at most {entry.max_frames} frames; ask for fewer."
        )


def is_embedded(pipeline: str | None) -> bool:
    """Whether a pipeline class, by its name, is that of the model whose weights come with the package."""
    return any(model.weights is None and model.pipeline == pipeline for model in MODELS)


def bundled_picture() -> Path:
    """The picture that comes with the package."""
    return PICO / "bundled.png"


def load(
    name_or_path: str,
    *,
    checkpoint: str | os.PathLike[str] | None = None,
    dtype: torch.dtype | None = None,
    device: str | torch.device | None = None,
    offload: bool | Offload = False,
    quantise: Quantisation | None = None,
    loras: Sequence[str | Lora] = (),
    frame_norm: bool = False,
    **options: Any,
) -> DiffusionPipeline:
    """
    A ready diffusers pipeline.

    Args:
        name_or_path: a name of `MODELS`, a local folder written by `save_pretrained`, or a hub id.
        checkpoint: a file of weights: of the papers' own models the released file, or one fine-tuned from it
            (otherwise the released file is fetched from the hub); of others the denoiser, fine-tuned.
        dtype: of the weights; by default the model's own on an accelerator, float32 on the CPU.
        device: by default an accelerator where there is one, else the CPU.
        offload: what is on the accelerator: `True` or `"model"` only the part at work (`enable_model_cpu_offload`),
            `"group"` only the layer at work (`enable_group_offload`), `False` or `"none"` everything.
        quantise: keeps the denoiser's weights in eight bits: `"fp8"`, or `"int8"` with torchao.
        loras: low-rank weights for the denoiser: `FILE`, `FILE:WEIGHT`, or `FILE:WEIGHT:transformer_2` for the second
            network of Wan 2.2 A14B. Needs peft.
        frame_norm: motion modules of AnimateDiff normalise each frame by itself, as in their authors' code; diffusers
            pools all frames.
        options: go to the pipeline's `from_pretrained`; of the papers' own models only `base` (see `load_checkpoint`).

    Raises:
        UnstillError: an unknown name, a broken folder or one of other networks, a hub that cannot be reached, a
            missing device, or weights that are larger than its free memory.
    """
    import torch

    model = find(name_or_path)
    target = _device(device)
    files = tuple(lora if isinstance(lora, Lora) else Lora.parse(lora) for lora in loras)
    held = check_options(offload, quantise)
    if dtype is None:
        dtype = getattr(torch, model.dtype) if model and target.type != "cpu" else torch.float32
    weights = None if target.type == "cpu" else weights_of(name_or_path)
    if weights is not None and (free := free_memory(target)) is not None:
        check_memory(name_or_path, weights, free, dtype.itemsize, held, quantise is not None)
    if model and model.file:
        from unstill.models.convert import load_checkpoint

        pipe: Any = load_checkpoint(checkpoint or _released(model), model.name, dtype=dtype, **options)
    else:
        pipe = _from_pretrained(name_or_path, model, dtype, options)
        if checkpoint is not None:
            from unstill.models.convert import load_denoiser

            load_denoiser(pipe, checkpoint)
    _check_weights(pipe, name_or_path)
    if any(known.tiled and known.pipeline == type(pipe).__name__ for known in MODELS):
        pipe.vae.enable_tiling()
    if frame_norm:
        from unstill.models.animatediff import frame_norms_of

        frame_norms_of(pipe)
    add_loras(pipe, files)
    quantise_denoisers(pipe, quantise)
    place(pipe, target, held)
    return pipe


def weights_of(name_or_path: str) -> Weights | None:
    """
    How large the weights of a model are, from the headers of its files: of a local folder, or of the hub.

    Returns:
        `None` for the embedded model, released checkpoints of one file, and where nothing can be read.
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
    What the weights of a model take, in one sentence, before it is loaded; empty where that is not known, and for
    models below `WORTH_SAYING`.
    """
    import torch

    model, target, held = find(name_or_path), _device(device), check_options(offload, quantise)
    if (weights := weights_of(name_or_path)) is None or sum(weights.parts.values()) < WORTH_SAYING:
        return ""
    if dtype is None:
        dtype = getattr(torch, model.dtype) if model and target.type != "cpu" else torch.float32
    held = "none" if target.type == "cpu" else held
    return memory_sentence(name_or_path, weights, dtype.itemsize, held, quantise is not None)


def _check_weights(pipe: Any, name_or_path: str) -> None:
    """Raises `UnstillError` for a network that found no weights for itself, which diffusers only warns of."""
    for part, network in pipe.components.items():
        config = getattr(network, "config", None)
        for key, value in config.items() if isinstance(config, Mapping) else ():
            if isinstance(value, int) and abs(value) >= 2**63:
                raise UnstillError(f"{name_or_path} cannot be loaded: its {part} has {key} = {shown(value)}.")
        tensors = network.named_parameters() if hasattr(network, "named_parameters") else ()
        if missing := [name for name, tensor in tensors if tensor.is_meta]:
            raise UnstillError(
                f"{name_or_path} cannot be loaded: its {part} holds no weights for {missing[0]} and "
                f"{len(missing) - 1} more of what this version's {type(network).__name__} has; load it with the "
                "version that wrote it, or save it again."
            )


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


def _released(model: Model) -> str:
    """The released file, from the hub or its cache."""
    from huggingface_hub import hf_hub_download

    assert model.weights is not None and model.file is not None
    try:
        return hf_hub_download(model.weights, model.file)
    except (OSError, ValueError) as error:
        raise UnstillError(
            f"{model.file} of {model.weights} could not be fetched from the Hugging Face hub and is not in the local "
            f"cache; download it and give it as checkpoint (unstill convert {model.file} FOLDER makes a folder of it)."
        ) from error


def _from_pretrained(name_or_path: str, model: Model | None, dtype: torch.dtype, options: dict[str, Any]) -> Any:
    cls = pipeline_class(name_or_path)
    if model and model.weights is None:
        from unstill.models.pico import PicoPipeline

        return PicoPipeline.embedded(model.lora, dtype)
    if model is None and Path(name_or_path).is_dir() and cls is not None:
        try:
            return cls.from_pretrained(name_or_path, dtype=dtype, **options)
        except Exception as error:  # a damaged folder fails in as many ways as there are files in it
            if lacks_memory(error):
                raise
            raise UnstillError(f"{name_or_path} cannot be loaded: {first_line(error)}.") from error

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


class _Index(BaseModel):
    """What is used of a `model_index.json`."""

    class_name: str = Field(alias="_class_name", pattern=r"^[A-Za-z][A-Za-z0-9_]*$", max_length=200)


def _index(folder: Path) -> _Index:
    return read_json(folder / "model_index.json", _Index, "it should name a pipeline: save the pipeline again")
