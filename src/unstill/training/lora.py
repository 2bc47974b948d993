"""LoRA (Hu et al., 2022): low-rank updates of a denoiser, in the file format of diffusers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from unstill.data.files import replacing
from unstill.data.seeding import generator_for
from unstill.errors import UnstillError


METADATA = "lora_adapter_metadata"
"""The entry of a safetensors header in which diffusers stores the arguments of peft's LoraConfig, by component."""


@dataclass(frozen=True, slots=True)
class LoraSettings:
    """
    W becomes W + alpha / rank * B A in the linear layers whose name ends with one of `targets`.

    Attributes:
        rank: of B A.
        alpha: strength.
        targets: name endings of linear layers.
        seed: of the initial A (B begins at 0).
    """

    rank: int
    alpha: float
    targets: tuple[str, ...]
    seed: int = 0


def add(model: nn.Module, settings: LoraSettings) -> None:
    """
    Adds LoRA layers to a model, in place.

    Args:
        model: a denoiser.
        settings: of the LoRA.

    Raises:
        UnstillError: no layer of these names, or peft is not installed.
    """
    peft = _peft()
    config = peft.LoraConfig(r=settings.rank, lora_alpha=settings.alpha, target_modules=list(settings.targets))
    with torch.random.fork_rng():  # peft draws from the global generators
        torch.manual_seed(generator_for("lora", settings.seed).initial_seed())
        try:
            peft.inject_adapter_in_model(config, model)
        except ValueError as error:
            raise UnstillError(
                f"{type(model).__name__} has no linear layers called {', '.join(settings.targets)}; name some in "
                "lora.targets."
            ) from error


def merge(model: nn.Module) -> None:
    """Merges a model's LoRA into the weights, in place, and removes the LoRA layers."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, module in list(model.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge()
            parent = model.get_submodule(name.rpartition(".")[0])
            setattr(parent, name.rpartition(".")[2], module.get_base_layer())


def save_lora(model: nn.Module, component: str, path: Path) -> None:
    """
    Writes the LoRA weights alone, in the format of `pipe.save_lora_weights`.

    B is stored multiplied by alpha / rank, with alpha recorded as the rank, so that programs that ignore the header
    also apply the trained strength.

    Args:
        model: with LoRA layers.
        component: the name of `model` in its pipeline, the prefix of all keys: "unet" or "transformer".
        path: of the safetensors file.
    """
    from peft import get_peft_model_state_dict

    config: Any = model.peft_config["default"]  # type: ignore[index]
    strength = config.lora_alpha / config.r
    weights: dict[str, Tensor] = {}
    for key, value in get_peft_model_state_dict(model).items():
        stored = value.detach().cpu() * strength if ".lora_B." in key else value.detach().cpu()
        weights[f"{component}.{key}"] = stored.contiguous()
    arguments = {"r": config.r, "lora_alpha": config.r, "target_modules": sorted(config.target_modules)}
    metadata = {f"{component}.{key}": value for key, value in arguments.items()}
    with replacing(path) as part:
        save_file(weights, part, {"format": "pt", METADATA: json.dumps(metadata, indent=2, sort_keys=True)})


def load_lora(pipe: Any, path: str | Path, weight: float = 1.0, name: str = "default") -> None:
    """
    Loads a `lora.safetensors` into the denoiser of any pipeline that can be trained here.

    Where a pipeline has `load_lora_weights` (CogVideoX, LTX-Video, Wan), that is used; diffusers has none for Stable
    Video Diffusion.

    Args:
        pipe: a pipeline of the class that the LoRA was trained on.
        path: the file that `unstill train` wrote.
        weight: strength; 1 is that of training, 0 leaves the model unchanged.
        name: of the adapter, where several are loaded.

    Raises:
        UnstillError: a missing file, one of another format, or of another network.
    """
    peft, path = _peft(), Path(path)
    weights, metadata = read_lora(path)
    if not metadata:
        raise UnstillError(f"{path} has no {METADATA} in its header; load it with diffusers, or train it again.")
    if hasattr(pipe, "load_lora_weights"):
        pipe.load_lora_weights(path.parent, weight_name=path.name, adapter_name=name)
        pipe.set_adapters([name], [weight])
        return
    component = next(iter(weights)).partition(".")[0]
    model = getattr(pipe, component, None)
    own = {k.removeprefix(f"{component}."): v for k, v in weights.items()}
    arguments = {k.removeprefix(f"{component}."): v for k, v in metadata.items()}
    if not isinstance(model, nn.Module) or not _fits(model, own):
        raise UnstillError(f"{path} was not trained on a {type(pipe).__name__} of this size; load the model it is of.")
    peft.inject_adapter_in_model(peft.LoraConfig(**arguments), model, name)
    peft.set_peft_model_state_dict(model, own, name)
    for key, parameter in model.named_parameters():
        if ".lora_" in key:
            parameter.requires_grad_(False)
    for module in model.modules():
        if isinstance(module, peft.tuners.lora.LoraLayer):
            module.set_scale(name, weight)


def read_lora(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """
    The weights of a LoRA file, and peft's arguments from its header; none where the header has none.

    Raises:
        UnstillError: a missing file, or one of another format.
    """
    try:
        with safe_open(path, "pt") as file:
            weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            header = (file.metadata() or {}).get(METADATA)
    except (OSError, SafetensorError) as error:
        raise UnstillError(f"{path} cannot be read as a LoRA (.safetensors); check the path.") from error
    if not weights or not any(".lora_" in key for key in weights):
        raise UnstillError(f"{path} holds no LoRA; pass the lora.safetensors of a run.")
    try:
        arguments = json.loads(header or "{}")
    except ValueError as error:
        raise UnstillError(f"{path} is damaged: {METADATA} in its header is not JSON; write it again.") from error
    return weights, arguments


def _fits(model: nn.Module, weights: dict[str, Tensor]) -> bool:
    """Whether every A and B has the width of the layer that its key names."""
    layers = dict(model.named_modules())
    for key, value in weights.items():
        name, _, kind = key.partition(".lora_")
        layer = layers.get(name)
        base: Any = getattr(layer, "base_layer", layer)
        if not isinstance(base, nn.Linear):
            return False
        if (base.in_features if kind[0] == "A" else base.out_features) != value.shape[1 if kind[0] == "A" else 0]:
            return False
    return True


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise UnstillError("A LoRA needs peft, which is not installed: pip install 'unstill[train]'.") from error
    return peft
