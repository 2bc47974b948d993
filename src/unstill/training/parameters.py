"""The weights that are trained, all of a denoiser or a LoRA (`unstill.training.lora`), and their running average."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from unstill.training.lora import Addition, add


Named = dict[str, nn.Parameter]


def select(model: nn.Module, addition: Addition | None = None) -> Named:
    """
    Sets what requires a gradient, and returns it by name.

    Args:
        addition: the LoRA that is trained in place of the model; `None` trains everything.

    Raises:
        UnstillError: no layer of the LoRA's names, or peft is not installed.
    """
    model.requires_grad_(addition is None)
    if addition is not None:
        add(model, addition)
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    for parameter in trained.values():
        parameter.data = parameter.data.float()  # small steps are lost in half precision
    return trained


class Average:
    """An exponential moving average of parameters, float32, with warm-up: after n steps at most n / (n + 9) stays."""

    def __init__(self, parameters: Named, decay: float) -> None:
        self.decay = decay
        self._parameters = list(parameters.values())
        self.values: dict[str, Tensor] = {k: p.detach().float().clone() for k, p in parameters.items()}

    @torch.no_grad()
    def update(self, steps: int) -> None:
        """After step number `steps`, counted from 1."""
        decay = min(self.decay, steps / (steps + 9))
        current = [p.detach().float() for p in self._parameters]
        torch._foreach_lerp_(list(self.values.values()), current, 1 - decay)

    def load(self, values: dict[str, Tensor]) -> None:
        """Takes over saved values."""
        for name, value in self.values.items():
            value.copy_(values[name])


@contextmanager
def using(parameters: Named, values: dict[str, Tensor] | None) -> Iterator[None]:
    """The model with other values of its parameters, for a while; `None` leaves them."""
    if values is None:
        yield
        return
    kept = {name: p.detach().clone() for name, p in parameters.items()}
    put(parameters, values)
    try:
        yield
    finally:
        put(parameters, kept)


@torch.no_grad()
def put(parameters: Named, values: dict[str, Tensor]) -> None:
    """Copies values into parameters."""
    for name, parameter in parameters.items():
        parameter.copy_(values[name].to(parameter))


def shape_of(model: nn.Module) -> str:
    """A fingerprint of a network's parameters, by which a checkpoint of another one is told."""
    import hashlib

    layout = sorted((name, tuple(p.shape)) for name, p in model.named_parameters())
    return hashlib.sha256(repr((type(model).__name__, layout)).encode()).hexdigest()[:16]
