"""The networks of a pipeline that a run does not train, and on which device they are."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from unstill.families.registry import adapter_for
from unstill.families.training import TrainingRole


class FrozenParts:
    """
    Autoencoder, encoders, and a second denoiser where there is one.

    Attributes:
        idle: denoisers that are neither trained nor encode clips (the transformer for low noise of Wan 2.2 A14B);
            they are needed for validation only.
    """

    def __init__(self, pipe: Any, family: TrainingRole) -> None:
        trained = getattr(pipe, family.denoiser)
        parts = [part for part in pipe.components.values() if isinstance(part, nn.Module) and part is not trained]
        others = set(adapter_for(pipe).denoisers) - {family.denoiser}
        self.idle = [part for name in sorted(others) if (part := getattr(pipe, name)) is not None]
        self._encoders = [part for part in parts if part not in self.idle]
        for part in parts:
            part.requires_grad_(False).eval()

    def for_encoding(self, device: torch.device | str) -> None:
        """Moves what encodes clips to the device, and nothing else."""
        for part in self._encoders:
            part.to(device)
        self.idle_to("cpu")

    def for_sampling(self, device: torch.device | str) -> None:
        """Moves everything to the device."""
        for part in (*self._encoders, *self.idle):
            part.to(device)

    def idle_to(self, place: torch.device | torch.dtype | str) -> None:
        """Moves the idle denoisers, or changes their precision."""
        for part in self.idle:
            part.to(place)
