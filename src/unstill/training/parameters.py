"""The trained weights, all of a denoiser or a LoRA (`unstill.training.lora`), and their moving average."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from unstill.training.lora import LoraSettings, add


Named = dict[str, nn.Parameter]


def select(model: nn.Module, lora: LoraSettings | None = None, unread: tuple[str, ...] = ()) -> Named:
    """
    Selects the weights to train: sets `requires_grad`, adds a LoRA if requested, and converts them to float32.

    Args:
        model: the denoiser.
        lora: trains a LoRA instead of the model's weights; `None` trains everything.
        unread: beginnings of the names of parameters that are left out (`TrainingRole.unread`).

    Returns:
        The trained parameters by name.

    Raises:
        UnstillError: no layer of the LoRA's target names, or peft is not installed.
    """
    model.requires_grad_(lora is None)
    if lora is not None:
        add(model, lora)
    for name, parameter in model.named_parameters():
        if name.startswith(unread):
            parameter.requires_grad_(False)
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    for parameter in trained.values():
        parameter.data = parameter.data.float()  # small updates are rounded away in half precision
    return trained


class Average:
    """
    An exponential moving average of parameters in float32, with warm-up: the decay after n steps is at most
    n / (n + 9).
    """

    def __init__(self, parameters: Named, decay: float) -> None:
        self.decay = decay
        self._parameters = list(parameters.values())
        self.values: dict[str, Tensor] = {k: p.detach().float().clone() for k, p in parameters.items()}

    @torch.no_grad()
    def update(self, steps: int) -> None:
        """Updates the average after step number `steps`, counted from 1."""
        decay = min(self.decay, steps / (steps + 9))
        current = [p.detach().float() for p in self._parameters]
        torch._foreach_lerp_(list(self.values.values()), current, 1 - decay)

    def load(self, values: dict[str, Tensor]) -> None:
        """Replaces the average by saved values."""
        for name, value in self.values.items():
            value.copy_(values[name])


@contextmanager
def using(parameters: Named, values: dict[str, Tensor] | None) -> Iterator[None]:
    """A context in which parameters have other values; `None` changes nothing."""
    if values is None:
        yield
        return
    original = {name: p.detach().clone() for name, p in parameters.items()}
    put(parameters, values)
    try:
        yield
    finally:
        put(parameters, original)


@torch.no_grad()
def put(parameters: Named, values: dict[str, Tensor]) -> None:
    """Copies values into parameters."""
    for name, parameter in parameters.items():
        parameter.copy_(values[name].to(parameter))


def shape_of(model: nn.Module) -> str:
    """A fingerprint of the names and shapes of a network's parameters, which identifies checkpoints of another one."""
    import hashlib

    layout = sorted((name, tuple(p.shape)) for name, p in model.named_parameters())
    return hashlib.sha256(repr((type(model).__name__, layout)).encode()).hexdigest()[:16]
