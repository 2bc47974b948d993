"""Reads released checkpoint files, identifies their model, and loads their weights into networks."""

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from unstill.errors import UnstillError, lacks_memory
from unstill.models.state_dict_keys import State


# Around the state dict, in the order of preference; "ema" is LaVie's, "module" DeepSpeed's.
_WRAPPINGS = ("ema", "ema_state_dict", "state_dict", "module", "model")
DEEPEST = 8
# Before every key: of DeepSpeed, of distributed training, of torch.compile.
_PREFIXES = ("_forward_module.", "module.", "_orig_mod.")


class CheckpointError(UnstillError):
    """A checkpoint that does not fit. All keys are in `missing`, `unknown` and `misshaped`."""

    def __init__(self, sentence: str, missing: list[str], unknown: list[str], misshaped: list[str]) -> None:
        super().__init__(sentence)
        self.missing, self.unknown, self.misshaped = missing, unknown, misshaped


def read_checkpoint(path: str | os.PathLike[str]) -> State | list[Tensor]:
    """
    Reads the weights in a `.ckpt`, `.pt`, `.bin` or `.safetensors` file, without the wrappers of training frameworks.

    Tensors are memory-mapped where the file format allows it.

    Returns:
        Weights by name; for the averages that diffusers' `EMAModel` saves, a list in the order of the parameters.

    Raises:
        UnstillError: no such file, a damaged one, or one without weights.
    """
    path = Path(path)
    if path.is_dir():
        raise UnstillError(
            f"{path} is a folder, not a checkpoint; name a weight file in it, or give a pipeline as the model."
        )
    if not path.is_file():
        raise UnstillError(
            f"There is no checkpoint file {path}; give the path of a .safetensors, .ckpt, .pt or .bin file."
        )
    try:
        content = load_file(path) if path.suffix == ".safetensors" else _unpickle(path)
    except Exception as error:  # the unpickler raises almost anything, IndexError for a text file
        if lacks_memory(error):
            raise
        raise UnstillError(_about(path, error)) from error
    for _ in range(DEEPEST):  # a pickled mapping may contain itself
        if not isinstance(content, Mapping):
            break
        shadow = content.get("shadow_params")
        if isinstance(shadow, list) and shadow and all(_is_weight(value) for value in shadow):
            return shadow
        inner = next((name for name in _WRAPPINGS if isinstance(content.get(name), Mapping)), None)
        if inner is None:
            break
        content = content[inner]
    state = content if isinstance(content, Mapping) else {}
    state = {key: value for key, value in state.items() if isinstance(key, str) and _is_weight(value)}
    if not state:
        raise UnstillError(f"{path} holds no weights by name, so it is not the checkpoint of a network.")
    while prefix := next((p for p in _PREFIXES if all(key.startswith(p) for key in state)), None):
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def _is_weight(value: Any) -> bool:
    """A dense tensor of numbers: sparse and quantised ones are no weights of the networks here."""
    return isinstance(value, Tensor) and value.layout == torch.strided and not value.is_quantized


def _unpickle(path: Path) -> Any:
    with path.open("rb") as file:
        mapped = file.read(2) == b"PK"  # torch's format before 1.6 cannot be mapped
    return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)


def _about(path: Path, error: Exception) -> str:
    with path.open("rb") as file:
        head = file.read(512)
    if "Weights only load failed" in str(error) and head[:2] in (b"PK", b"\x80\x02"):
        return f"{path} holds Python objects beside weights, which are not run for safety; save only its state dict."
    if not head:
        return f"{path} is empty; fetch it again."
    if head[:2] == b"PK" or path.suffix == ".safetensors":
        return f"{path} is damaged or cut short; fetch it again."
    if head.isascii():
        return f"{path} is a text file, not a checkpoint (a download link or an error page saved by mistake?)."
    return f"{path} is not a checkpoint that torch or safetensors can read."


def scale_of(state: State) -> float | None:
    """The last factor of DynamiCrafter's dynamic rescale, from the table in its checkpoints; `None` without one."""
    table = state.get("scale_arr")
    return round(float(table[-1].real), 3) if table is not None and table.ndim == 1 and len(table) else None


def identify(state: State) -> tuple[str | None, str]:
    """The name of the released model of a state dict (`None` if unknown), and a description for messages."""
    if any("init_attn" in key for key in state):
        entry = next((v for k, v in state.items() if k.endswith("input_blocks.0.0.weight")), None)
        if entry is not None and entry.ndim == 4 and entry.shape[1] == 4:
            return "videocrafter-512", "VideoCrafter1 image-to-video"
        if any("framestride_embed" in key or key.endswith("attn2.alpha") for key in state):
            return "dynamicrafter-256", "DynamiCrafter 256"
        name = {0.7: "dynamicrafter-512", 0.3: "dynamicrafter-1024"}.get(scale_of(state) or 0.0)
        return name, f"DynamiCrafter {name.rpartition('-')[2]}" if name else "DynamiCrafter 512 or 1024"
    for mark, name, description in _MARKS:
        if any(mark in key for key in state):
            return name, description
    return None, "a model unknown to unstill"


_MARKS: tuple[tuple[str, str | None, str], ...] = (
    ("attn_temp.", "lavie", "LaVie"),
    ("lora_", None, "a LoRA"),
    ("motion_modules.", None, "a motion module of AnimateDiff"),
    ("controlnet_", None, "a ControlNet"),
    ("temporal_res_block.", "svd", "the U-Net of Stable Video Diffusion in diffusers' layout"),
    (".time_stack.", None, "Stable Video Diffusion in its own layout"),
    ("conditioner.embedders.", None, "Stable Diffusion XL"),
    ("cond_stage_model.transformer.", None, "Stable Diffusion 1"),
    ("model.diffusion_model.", None, "an image model in the layout of Stable Diffusion"),
    ("down_blocks.", None, "a U-Net or autoencoder of diffusers that is no video model known to unstill"),
)


def load_weights(
    modules: Mapping[str, nn.Module], parts: Mapping[str, State], unknown: Iterable[str], about: str
) -> None:
    """
    Loads weights into modules, without copying them.

    Args:
        modules: by name; they may be on the meta device.
        parts: the state dict of each module, by the same names.
        unknown: keys of the checkpoint that belong to no module.
        about: the beginning of the error message.

    Raises:
        CheckpointError: keys or shapes differ, or there are unknown keys.
    """
    missing, other, misshaped = [], list(unknown), []
    for name, module in modules.items():
        expected, state = module.state_dict(), parts[name]
        missing += [f"{name}.{key}" for key in expected if key not in state]
        other += [f"{name}.{key}" for key in state if key not in expected]
        misshaped += [
            f"{name}.{key} {_shape(state[key])} for {_shape(value)}"
            for key, value in expected.items()
            if key in state and state[key].shape != value.shape
        ]
    if missing or other or misshaped:
        faults = (("missing", missing), ("of another shape", misshaped), ("unknown", other))
        details = "; ".join(f"{len(keys)} {what}: {_grouped(keys)}" for what, keys in faults if keys)
        raise CheckpointError(f"{about}: {details}.", missing, other, misshaped)
    for name, module in modules.items():
        module.load_state_dict(parts[name], assign=True)
        module.eval()


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a number"


def _grouped(keys: list[str], few: int = 12) -> str:
    """All keys, or, if there are many, their common beginnings with counts."""
    if len(keys) <= few:
        return ", ".join(keys)
    for depth in (4, 3, 2, 1):
        groups = Counter(".".join(key.split(" ")[0].split(".")[:depth]) for key in keys)
        if len(groups) <= few or depth == 1:
            break
    return ", ".join(f"{name} ({count})" if count > 1 else name for name, count in groups.items())
