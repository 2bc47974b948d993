"""What the stages of the embedded model's training share: the recipe, randomness that knows its step, checkpoints."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from accelerate import Accelerator
from pydantic import Field
from torch import Tensor, nn

from unstill.data.files import replacing


Count = Annotated[int, Field(ge=1, le=65_536)]
Share = Annotated[float, Field(ge=0, le=1)]
Report = Callable[[str, int, int, str], None]  # stage, steps done, steps in all, a line of figures


@dataclass(frozen=True, kw_only=True, slots=True)
class PicoRecipe:
    """Everything that decides the weights. docs/pico.md tells how the weights in this package came about."""

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    autoencoder_steps: Annotated[int, Field(ge=1, le=10**9)] = 2600
    clips: Annotated[int, Field(ge=1, le=10**7)] = 16384
    steps: Annotated[int, Field(ge=1, le=10**9)] = 4400
    batch: Count = 16  # clips per step, over all processes
    pictures: Count = 32  # single frames per step, made from a caption alone, over all processes
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 1.5e-3
    decay: Share = 0.3  # the share of the steps, at the end, over which the learning rate falls to 2 %
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.999
    log_sigma_mean: Annotated[float, Field(ge=-20, le=20)] = 0.9
    log_sigma_std: Annotated[float, Field(gt=0, le=20)] = 1.6
    picture_weight: Annotated[float, Field(ge=0, le=1e6)] = 0.25  # of the single frames in the loss
    noisy_image: Share = 0.25  # the share of clips whose image is noised
    drop: Share = 0.1  # how often the image, and independently the motion level, is withheld
    silence: Share = 0.5  # how often the caption of a clip that has an image is withheld; a picture's: `drop`
    frames: Annotated[int, Field(ge=3, le=1000)] = 16
    size: Annotated[int, Field(ge=16, le=4096, multiple_of=16)] = 96


def generator(*key: int) -> torch.Generator:
    """A generator of its own for every (seed, stage, step, process)."""
    mixed = 0x9E3779B97F4A7C15
    for k in key:
        mixed = ((mixed ^ k) * 0xBF58476D1CE4E5B9) & 0x7FFFFFFFFFFFFFFF
        mixed ^= mixed >> 31
    return torch.Generator().manual_seed(mixed)


def update(model: nn.Module, optimizer: Any, loss: Tensor, accelerator: Accelerator | None = None) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward() if accelerator is None else accelerator.backward(loss)
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()


def save_checkpoint(
    path: Path, step: int, model: nn.Module, optimizer: Any, average: dict[str, Tensor] | None = None
) -> None:
    state = {"step": step, "model": model.state_dict(), "optimizer": optimizer.state_dict(), "average": average}
    with replacing(path) as part:
        torch.save(state, part)


def resume(path: Path, model: nn.Module, optimizer: Any, average: dict[str, Tensor] | None = None) -> int:
    if not path.exists():
        return 0
    state = torch.load(path, map_location="cpu", weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    for name, value in (average or {}).items():
        value.copy_(state["average"][name])
    return int(state["step"])
