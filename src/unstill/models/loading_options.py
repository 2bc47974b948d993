"""Options of `load`: LoRA files, weights in eight bits, offloading."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from unstill.errors import UnstillError, first_line
from unstill.models.memory import DENOISERS, Offload


if TYPE_CHECKING:
    import torch

Quantisation = Literal["fp8", "int8"]


@dataclass(frozen=True, slots=True)
class LoraFile:
    """
    A LoRA file and how it is applied.

    Attributes:
        file: safetensors.
        weight: factor of its contribution.
        second: whether it is for the second denoiser (Wan 2.2 A14B: the low-noise one).
    """

    file: Path
    weight: float = 1.0
    second: bool = False

    @classmethod
    def parse(cls, text: str) -> LoraFile:
        """
        Reads `FILE`, `FILE:WEIGHT` or `FILE:WEIGHT:transformer_2`.

        Raises:
            UnstillError: no such file, or a weight that is not a number.
        """
        rest, second = (
            (text.removesuffix(":transformer_2"), True) if text.endswith(":transformer_2") else (text, False)
        )
        name, _, number = rest.rpartition(":")
        try:
            file, weight = (Path(name), float(number)) if name else (Path(rest), 1.0)
        except ValueError:
            file, weight = Path(rest), 1.0
        if not file.is_file() or not abs(weight) <= 100:
            raise UnstillError(
                f"--lora {text} names no file with a weight; give FILE, FILE:WEIGHT, or FILE:WEIGHT:transformer_2 for "
                "the second network of Wan 2.2 A14B."
            )
        return cls(file, weight, second)


def dtype_named(name: torch.dtype | str | None) -> torch.dtype | None:
    """A dtype by its name; raises `UnstillError` for one that no model is loaded in."""
    import torch

    if not isinstance(name, str):
        return name
    known = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
    if name not in known:
        raise UnstillError(f"--dtype is {', '.join(known)}, but got {name!r}.")
    return known[name]


def check_options(offload: bool | Offload, quantise: Quantisation | None) -> Offload:
    """The kind of offloading; raises `UnstillError` for an unknown one, or an unavailable quantisation."""
    kind: Offload = ("model" if offload else "none") if isinstance(offload, bool) else offload
    if kind not in get_args(Offload):
        raise UnstillError(f"offload takes True, False, 'model' or 'group', but got {offload!r}.")
    if quantise is not None and quantise not in get_args(Quantisation):
        raise UnstillError(f"--quantise takes {' or '.join(get_args(Quantisation))}, but got {quantise!r}.")
    if quantise == "int8" and importlib.util.find_spec("torchao") is None:
        raise UnstillError("--quantise int8 needs the package torchao: python -m pip install torchao; or take fp8.")
    return kind


def denoisers_of(pipe: Any) -> list[Any]:
    """The denoising networks, one or two."""
    return [network for name in DENOISERS if (network := getattr(pipe, name, None)) is not None]


def add_loras(pipe: Any, loras: tuple[LoraFile, ...]) -> None:
    """
    Loads LoRA files into a pipeline.

    Raises:
        UnstillError: a pipeline that cannot load LoRAs, no peft, or a file that does not fit.
    """
    if not loras:
        return
    name = type(pipe).__name__
    if not hasattr(pipe, "load_lora_weights"):
        raise UnstillError(f"{name} takes no LoRA files in this diffusers: leave out --lora.")
    if importlib.util.find_spec("peft") is None:
        raise UnstillError("--lora needs the package peft: python -m pip install peft.")
    two = getattr(pipe, "transformer_2", None) is not None
    for number, lora in enumerate(loras):
        if lora.second and not two:
            raise UnstillError(f"{name} has one denoiser: leave out ':transformer_2' of --lora.")
        adapter, more = f"lora_{number}", {"load_into_transformer_2": True} if lora.second else {}
        try:
            pipe.load_lora_weights(str(lora.file), adapter_name=adapter, **more)
            network = denoisers_of(pipe)[int(lora.second)]
            loaded = adapter in getattr(network, "peft_config", {})
        except (ValueError, KeyError, RuntimeError, OSError) as error:
            raise UnstillError(f"{lora.file} does not fit {name}: {first_line(error)}.") from error
        if not loaded:
            raise UnstillError(f"{lora.file} holds no weights for the denoiser of {name}; take a LoRA of this model.")
    for second, network in enumerate(denoisers_of(pipe)):
        weights = {f"lora_{n}": lora.weight for n, lora in enumerate(loras) if lora.second == bool(second)}
        if weights:
            network.set_adapters(list(weights), list(weights.values()))


def quantise(pipe: Any, kind: Quantisation | None) -> None:
    """
    Stores the weights of the denoisers in eight bits; computations stay in the dtype of the pipeline.

    Args:
        pipe: on the CPU.
        kind: `"fp8"`, whose layers convert their weights in the forward pass, or `"int8"` of torchao; see
            `check_options`.

    Raises:
        UnstillError: a network that cannot be converted.
    """
    if kind is None:
        return
    import torch

    for network in denoisers_of(pipe):
        if not hasattr(network, "enable_layerwise_casting"):
            raise UnstillError(f"{type(network).__name__} cannot be quantised here: leave out --quantise.")
        if kind == "fp8":
            network.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=network.dtype)
        else:
            from torchao.quantization import Int8WeightOnlyConfig, quantize_

            quantize_(network, Int8WeightOnlyConfig())


def move_pipeline(pipe: Any, device: Any, offload: Offload) -> None:
    """Moves a pipeline to a device, as a whole or part by part with offloading (which a CPU does not need)."""
    if offload == "none" or device.type == "cpu":
        pipe.to(device)
    elif offload == "model":
        pipe.enable_model_cpu_offload(device=device)
    else:
        pipe.enable_group_offload(onload_device=device, offload_type="leaf_level", use_stream=device.type == "cuda")
