"""Settings of the embedded model's training, and functions that its phases share."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from unstill.errors import UnstillError, first_line


Count = Annotated[int, Field(ge=1, le=65_536)]
Steps = Annotated[int, Field(ge=1, le=10**9)]
Rate = Annotated[float, Field(gt=0, le=1)]
Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, kw_only=True, slots=True)
class PicoRecipe:
    """All settings of a training. The defaults are those of the weights in this package."""

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    start: str | None = None  # pico or a folder: its autoencoder is kept, and its denoiser is trained further
    autoencoder_steps: Steps = 4039
    autoencoder_batch: Count = 128  # frames per step, over all processes
    autoencoder_frames: Annotated[int, Field(ge=1, le=10**7)] = 16_384  # size of the pool of frames
    clips: Annotated[int, Field(ge=1, le=10**7)] = 115_712
    steps: Steps = 3687
    batch: Count = 128  # clips per step, over all processes
    pictures: Annotated[int, Field(ge=0, le=65_536)] = 64  # single frames per step, over all processes
    muon_rate: Rate = 3e-3  # learning rate of the blocks' matrices
    adam_rate: Rate = 1.5e-3  # learning rate of all other parameters
    warmup: Annotated[int, Field(ge=0, le=10**9)] = 300
    decay: Share = 0.4  # the share of the steps, at the end, over which the learning rates fall to 1 %
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.999
    log_sigma_mean: Annotated[float, Field(ge=-20, le=20)] = 0.9
    log_sigma_std: Annotated[float, Field(gt=0, le=20)] = 1.6
    picture_weight: Annotated[float, Field(ge=0, le=1e6)] = 0.25  # of the single frames in the loss
    noisy_image: Share = 0.25  # the share of clips whose image is noised
    drop: Share = 0.1  # how often the image, and independently the motion level, is dropped
    drop_caption: Share = 0.5  # how often the caption of a clip that has an image is dropped; a picture's: `drop`
    frames: Annotated[int, Field(ge=3, le=1000)] = 16
    size: Annotated[int, Field(ge=16, le=4096, multiple_of=16)] = 96
    layers: Annotated[int, Field(ge=1, le=1000)] = 9
    heads: Annotated[int, Field(ge=1, le=1000)] = 5  # of 64 channels each
    precision: Literal["auto", "no", "bf16"] = "auto"  # auto: bf16 where the processor computes in it


def generator(*key: int, device: torch.device | None = None) -> torch.Generator:
    """The generator of a (seed, phase, step, process), so that a run resumes from its step number alone."""
    mixed = 0x9E3779B97F4A7C15
    for k in key:
        mixed = ((mixed ^ k) * 0xBF58476D1CE4E5B9) & 0x7FFFFFFFFFFFFFFF
        mixed ^= mixed >> 31
    return torch.Generator(device or "cpu").manual_seed(mixed)


def computes_in_bf16(device: torch.device) -> bool:
    """Whether bfloat16 is faster than float32 on the device; a CPU without instructions for it is much slower."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and any(
        getattr(torch.cpu, name, bool)() for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    )


def read_tensors(path: Path, like: dict[str, Tensor]) -> dict[str, Tensor]:
    """
    The tensors of a file written by a run.

    Args:
        like: names, shapes and types that the file must have; may be on the meta device.

    Raises:
        UnstillError: a file that is damaged, of other tensors, or holds NaN or infinity.
    """
    try:
        tensors = load_file(path)
        if {k: (v.shape, v.dtype) for k, v in tensors.items()} != {k: (v.shape, v.dtype) for k, v in like.items()}:
            raise ValueError("its tensors are not those of this recipe")
        if wrong := [k for k, v in tensors.items() if v.is_floating_point() and not bool(v.isfinite().all())]:
            raise ValueError(f"{wrong[0]} holds NaN or infinity")
    except (SafetensorError, OSError, ValueError) as error:
        raise UnstillError(
            f"{path} is damaged ({first_line(error)}); delete it, and the same command computes it again."
        ) from error
    return tensors
