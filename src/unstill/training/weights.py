"""The weights that are trained, all of a denoiser or a low-rank addition, and their running average."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from unstill.data.files import replacing
from unstill.errors import UnstillError


Named = dict[str, nn.Parameter]


def select(model: nn.Module, lora: tuple[int, float, tuple[str, ...]] | None = None) -> Named:
    """
    Sets what requires a gradient, and returns it by name.

    Args:
        lora: rank, alpha, and the names of the linear layers that are given an addition; `None` trains everything.

    Raises:
        UnstillError: no layer of these names, or peft is not installed.
    """
    model.requires_grad_(lora is None)
    if lora is not None:
        rank, alpha, targets = lora
        try:
            from peft import LoraConfig, inject_adapter_in_model
        except ImportError as error:
            raise UnstillError("A LoRA needs peft, which is not installed: pip install 'unstill[train]'.") from error
        try:
            inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(targets)), model)
        except ValueError as error:
            raise UnstillError(
                f"{type(model).__name__} has no linear layers called {', '.join(targets)}; name some in lora.targets."
            ) from error
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    for parameter in trained.values():
        parameter.data = parameter.data.float()  # small steps are lost in half precision
    return trained


def merge(model: nn.Module) -> None:
    """Adds a LoRA to the layers that it stands beside, and takes it out."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, module in list(model.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge()
            parent = model.get_submodule(name.rpartition(".")[0])
            setattr(parent, name.rpartition(".")[2], module.get_base_layer())


def save_lora(model: nn.Module, path: Path) -> None:
    """Only the addition, under peft's names."""
    from peft import get_peft_model_state_dict

    weights = {k: v.detach().cpu().contiguous() for k, v in get_peft_model_state_dict(model).items()}
    with replacing(path) as part:
        save_file(weights, part)


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
