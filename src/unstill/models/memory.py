"""How much memory the weights of a model need, from the headers of their files; nothing of the weights is read."""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from unstill.errors import UnstillError
from unstill.models.hub import HUB_TIMEOUT


if TYPE_CHECKING:
    import torch

Offload = Literal["none", "model", "group"]
"""What is on the accelerator at a time: everything, the component that runs, or the layer that runs."""

HEADER_LIMIT = 100 << 20  # bytes; as safetensors itself has it
DENOISERS = ("unet", "transformer", "transformer_2")
FOR_THE_VIDEO = 1.25  # memory for weights and video, at least, divided by that for the weights


@dataclass(frozen=True, slots=True)
class Weights:
    """
    The number of parameters of a model.

    Attributes:
        parts: by component of the pipeline.
        largest: of the largest tensor.
    """

    parts: Mapping[str, int]
    largest: int

    def needed(self, bytes_each: int, offload: Offload = "none", quantised: bool = False) -> int:
        """
        Bytes of weights that are on the accelerator at once.

        Args:
            bytes_each: bytes per parameter in the dtype that is loaded.
            offload: see `Offload`.
            quantised: whether a parameter of a denoiser takes one byte.
        """
        sizes = [count * (1 if quantised and part in DENOISERS else bytes_each) for part, count in self.parts.items()]
        if offload == "group":
            return 2 * self.largest * bytes_each  # the layer that runs, and the next one being loaded
        return max(sizes, default=0) if offload == "model" else sum(sizes)


def weights_of_folder(folder: Path, variant: str | None = None) -> Weights | None:
    """
    The sizes of the weights in a local diffusers folder, from its safetensors files.

    Args:
        folder: written by `save_pretrained`: a folder for each component.
        variant: of the files, such as fp16, where the folder has it.

    Returns:
        `None` without such files, or with damaged ones.
    """
    parts: dict[str, int] = {}
    largest = 0
    try:
        for file in _files(
            sorted(path.relative_to(folder).as_posix() for path in folder.glob("*/*.safetensors")), variant
        ):
            part = file.partition("/")[0]
            for count in tensor_sizes(folder / file):
                parts[part] = parts.get(part, 0) + count
                largest = max(largest, count)
    except (OSError, ValueError):
        return None
    return Weights(parts, largest) if parts else None


def weights_of_hub(repository: str, variant: str | None = None) -> Weights | None:
    """
    As `weights_of_folder`, for a repository of the hub: from its local copy if that holds weights, else by headers.
    """
    import huggingface_hub

    copy = huggingface_hub.try_to_load_from_cache(repository, "model_index.json")
    if isinstance(copy, str):
        folder = Path(copy).parent
        weights = weights_of_folder(folder, variant)
        if weights is not None or any(folder.glob("*/*.bin")):
            return weights
    parts: dict[str, int] = {}
    largest = 0
    try:
        # Without retries, which would take half a minute where there is no connection.
        files = huggingface_hub.model_info(repository, timeout=HUB_TIMEOUT).siblings or []
        names = [file.rfilename for file in files if re.fullmatch(r"\w+/[^/]+\.safetensors", file.rfilename)]
        for file in _files(sorted(names), variant):
            part = file.partition("/")[0]
            header = huggingface_hub.parse_safetensors_file_metadata(repository, file)
            for tensor in header.tensors.values():
                count = math.prod(tensor.shape)
                parts[part] = parts.get(part, 0) + count
                largest = max(largest, count)
    except Exception:  # no connection (each HTTP library has its own error), no such repository: loading raises it
        return None
    return Weights(parts, largest) if parts else None


def tensor_sizes(file: Path) -> Iterator[int]:
    """The number of elements of each tensor in a safetensors file; raises `ValueError` for another file."""
    with file.open("rb") as opened:
        start = opened.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= HEADER_LIMIT:
            raise ValueError(f"{file} is no safetensors file")
        header = json.loads(opened.read(length))
    for name, tensor in header.items():
        if name != "__metadata__":
            yield math.prod(tensor["shape"])


def _files(names: list[str], variant: str | None) -> list[str]:
    """The files that diffusers loads: for each component those of the variant, else those without one."""
    chosen: list[str] = []
    for part in sorted({name.partition("/")[0] for name in names}):
        inside = [name for name in names if name.startswith(f"{part}/")]
        plain = [name for name in inside if not re.search(r"\.(fp16|bf16|fp32|non_ema)[.-]", name)]
        of_variant = [name for name in inside if variant and re.search(rf"\.{re.escape(variant)}[.-]", name)]
        chosen += of_variant or plain or inside
    return chosen


def free_memory(device: torch.device) -> int | None:
    """The free memory of a device in bytes; `None` if not known."""
    import torch

    if device.type == "cpu":
        import psutil

        return int(psutil.virtual_memory().available)
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return None


def memory_sentence(name: str, weights: Weights, bytes_each: int, offload: Offload, quantised: bool) -> str:
    """One sentence about the memory that the weights need."""
    largest = max(weights.parts, key=weights.parts.__getitem__)
    parts = {
        "none": "all at once",
        "model": f"the largest part, {largest}, at a time",
        "group": "a layer at a time",
    }
    needed = gigabytes(weights.needed(bytes_each, offload, quantised))
    return (
        f"{name}: {sum(weights.parts.values()) / 1e9:.3g} billion numbers; weights take {needed} of memory "
        f"({parts[offload]}), the video some more."
    )


def check_memory(
    name: str, weights: Weights, free: int, bytes_each: int, offload: Offload = "none", quantised: bool = False
) -> None:
    """
    Checks that the weights of a model fit on the accelerator.

    Args:
        name: of the model, for the message.
        weights: of the model.
        free: bytes that are free on the accelerator.
        bytes_each, offload, quantised: see `Weights.needed`.

    Raises:
        UnstillError: the weights alone do not fit. The message names the options of `unstill animate` that help.
    """
    needed = weights.needed(bytes_each, offload, quantised)
    if needed <= free:
        return
    ways: tuple[tuple[str, Offload, bool], ...] = (
        ("--offload", "model", quantised),
        ("--quantise fp8 --offload", "model", True),
        ("--group-offload", "group", quantised),
    )
    for option, way, small in ways:
        if (less := weights.needed(bytes_each, way, small)) * FOR_THE_VIDEO <= free:
            advice = f"{option} needs {gigabytes(less)} for them, and some for the video"
            break
    else:
        advice = "no option makes it small enough; take a smaller model"
    raise UnstillError(
        f"The weights of {name} need {gigabytes(needed)}, but {gigabytes(free)} are free on this device; {advice}."
    )


def gigabytes(count: float) -> str:
    """A number of bytes in gigabytes, small ones in megabytes."""
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
