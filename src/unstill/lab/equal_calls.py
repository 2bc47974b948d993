"""
Plain sampling in as many steps as a method spends calls of the network: the baseline of methods that cost calls.

"Sampling Headroom Is Not Selection Gain", https://huggingface.co/papers/2609.13257, found that a gain over plain
sampling in the same number of steps can be none over plain sampling at the same cost.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from PIL import Image

from unstill.hooks import sampling
from unstill.methods.base import Method
from unstill.models.call_arguments import parameters


NETWORKS = ("unet", "transformer", "transformer_2")
"""Components of pipelines that are denoisers."""
CALLING = ("on_schedule", "on_noise", "on_start", "on_step", "on_guidance")
"""Hooks that can change how often the network is called."""


def count_rows(
    pipe: Any, call: dict[str, Any], methods: Sequence[Method] = (), image: Image.Image | None = None
) -> int:
    """
    Counts the rows of batches that the denoisers compute for one call: under classifier-free guidance a step has two.

    The denoisers really compute only the first batch of every size. Methods whose decisions depend on predictions
    (`PredictAndPerturb` with `stop`) are counted with those.

    Args:
        pipe: a pipeline that `apply` supports, not compiled.
        call: arguments of its call.
        methods: of the setting, at most one of them a loop.
        image: for methods, where the pipeline takes none.

    Raises:
        UnstillError: as `apply`.
    """
    # Methods that only change attention or image do not change the number, and may look for what is not computed here.
    calling = [method for method in methods if method.stage == "loop" or any(map(method.implements, CALLING))]
    arguments = {**call, "output_type": "latent", "generator": torch.Generator().manual_seed(0)}
    with ExitStack() as entered:
        counts = [
            entered.enter_context(_counted(network))
            for name in NETWORKS
            if isinstance(network := getattr(pipe, name, None), torch.nn.Module)
        ]
        with torch.no_grad(), sampling(pipe, *calling, image=image) as sampler:
            sampler(**arguments)
    return sum(rows for (rows,) in counts)


def equal_steps(
    pipe: Any, call: dict[str, Any], methods: Sequence[Method], image: Image.Image | None = None
) -> tuple[int, int]:
    """
    The number of steps of the call, and a number of steps in which plain sampling computes at least as many rows as
    the methods do in the former, and hardly more; arguments as of `count_rows`.
    """
    steps = call.get("num_inference_steps") or parameters(type(pipe))["num_inference_steps"].default
    plain_rows, method_rows = count_rows(pipe, call, (), image), count_rows(pipe, call, methods, image)
    if method_rows <= plain_rows:
        return steps, steps
    more_steps = -(-method_rows * steps // plain_rows)
    while count_rows(pipe, {**call, "num_inference_steps": more_steps}, (), image) < method_rows:
        more_steps += 1  # where not every step has the same number of passes
    return steps, more_steps


@contextmanager
def _counted(network: torch.nn.Module) -> Iterator[list[int]]:
    """Counts the rows that a network is given, and repeats its first output for batches of the same size."""
    forward, own = network.forward, "forward" in vars(network)
    rows, outputs = [0], dict[tuple[int, ...], Any]()

    def counted(*args: Any, **kwargs: Any) -> Any:
        batch = next(value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor))
        rows[0] += len(batch)
        if batch.shape not in outputs:
            outputs[batch.shape] = forward(*args, **kwargs)
        return _copied(outputs[batch.shape])

    network.forward = counted
    try:
        yield rows
    finally:
        if own:
            network.forward = forward
        else:
            del network.forward


def _copied(output: Any) -> Any:
    """An output of a network whose tensors may be written into."""
    copied = lambda value: value.clone() if isinstance(value, torch.Tensor) else value  # noqa: E731
    if isinstance(output, tuple):
        return tuple(map(copied, output))
    return type(output)(**{name: copied(value) for name, value in output.items()})
