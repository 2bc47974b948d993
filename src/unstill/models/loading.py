"""The steps of `models.registry.load`: find the device, fetch the files, create the pipeline, check its weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unstill.errors import UnstillError, first_line, lacks_memory, shown
from unstill.families.model_card import Model
from unstill.models.hub import hub_answers


if TYPE_CHECKING:
    import torch


def parse_device(name: str | torch.device | None) -> torch.device:
    """
    A device by its name.

    Args:
        name: such as "cpu" or "cuda:1"; `None` is the accelerator of this machine, or the CPU if it has none.

    Raises:
        UnstillError: no name of a device, or a device that this machine does not have.
    """
    import torch

    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if name is None:
        return accelerator if accelerator is not None else torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UnstillError(f"{name!r} is not a device; say cpu, cuda, cuda:1, mps or xpu.") from error
    exists = device.type == "cpu" or (
        accelerator is not None
        and device.type == accelerator.type
        and (device.index or 0) < torch.accelerator.device_count()
    )
    if not exists:
        also = f" and {accelerator.type}" if accelerator else ""
        raise UnstillError(f"There is no device {device} here; there is cpu{also}.")
    return device


def fetch_released(model: Model) -> str:
    """
    The path of the one file that a model is released as, from the local cache or the hub.

    Raises:
        UnstillError: it is not in the cache and cannot be fetched.
    """
    from huggingface_hub import hf_hub_download

    assert model.weights is not None and model.file is not None
    try:
        return hf_hub_download(model.weights, model.file, local_files_only=not hub_answers(model.weights))
    except (OSError, ValueError) as error:
        raise UnstillError(
            f"{model.file} of {model.weights} could not be fetched from the Hugging Face hub and is not in the local "
            f"cache; download it and give it as checkpoint (unstill convert {model.file} FOLDER makes a folder of it)."
        ) from error


def from_pretrained(
    name_or_path: str,
    model: Model | None,
    cls: type[Any] | None,
    dtype: torch.dtype,
    options: dict[str, Any],
) -> Any:
    """
    The pipeline of a named model, a local folder or a hub id.

    Args:
        name_or_path: as `load` takes it.
        model: the entry of a named model.
        cls: the pipeline's class; `None` lets diffusers choose it.
        dtype: of the weights.
        options: passed to the `from_pretrained` of diffusers.

    Raises:
        UnstillError: a damaged folder, or files that are neither in the cache nor on the hub.
    """
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

    source = model.weights or name_or_path if model else name_or_path
    cached = {} if hub_answers(source) else {"local_files_only": True}
    options = {**cached, **options}
    try:
        if model:
            for component, class_name, repository in model.parts:
                options[component] = getattr(diffusers, class_name).from_pretrained(repository, dtype=dtype, **cached)
            if model.variant:
                options.setdefault("variant", model.variant)
        pipe: Any = (cls or diffusers.DiffusionPipeline).from_pretrained(source, dtype=dtype, **options)
    except (OSError, ValueError) as error:
        raise UnstillError(
            f"{source} could not be fetched from the Hugging Face hub (no connection, no such model, or its licence "
            f"must be accepted there first) and is not in the local cache; give a local diffusers folder instead."
        ) from error
    if model and model.scheduler:
        class_name, changes = model.scheduler
        pipe.scheduler = getattr(diffusers, class_name).from_config(pipe.scheduler.config, **dict(changes))
    return pipe


def check_weights(pipe: Any, name_or_path: str) -> None:
    """
    Checks that every network of a loaded pipeline has all its weights; diffusers only warns of missing ones.

    Raises:
        UnstillError: weights are missing, or a configuration has numbers that no weights can have.
    """
    for component, network in pipe.components.items():
        config = getattr(network, "config", None)
        for key, value in config.items() if isinstance(config, Mapping) else ():
            if isinstance(value, int) and abs(value) >= 2**63:
                raise UnstillError(f"{name_or_path} cannot be loaded: its {component} has {key} = {shown(value)}.")
        tensors = network.named_parameters() if hasattr(network, "named_parameters") else ()
        if missing := [name for name, tensor in tensors if tensor.is_meta]:
            raise UnstillError(
                f"{name_or_path} cannot be loaded: its {component} holds no weights for {missing[0]} and "
                f"{len(missing) - 1} more of what this version's {type(network).__name__} has; load it with the "
                "version that wrote it, or save it again."
            )
