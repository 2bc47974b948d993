"""
The passes of classifier-free guidance: which call of the denoiser is which, and methods that change the conditional
prediction between the denoiser and the pipeline's guidance, with further calls of the denoiser where they ask for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch

from unstill.errors import UnstillError
from unstill.families.base import Adapter
from unstill.hooks.condition_hooks import input_of
from unstill.methods.base import Method, Passes, Run


@dataclass(slots=True)
class Calls:
    """
    The denoiser's calls in the current step.

    Attributes:
        step: `run.step`, with which the count begins anew.
        count: how many came before the current one.
        shown: the condition view of the conditional pass, `(B, C, F or 1, h, w)`, as the denoiser saw it.
        conditional: the conditional prediction, which the pipeline holds, where it comes in a call of its own.
        again: whether the current call was made for a method, not by the pipeline.
    """

    step: int = -1
    count: int = -1
    shown: torch.Tensor | None = None
    conditional: torch.Tensor | None = None
    again: bool = False

    def next(self, step: int) -> int:
        """Counts a call; the number of those before it in this step."""
        if step != self.step:
            self.step, self.count, self.shown, self.conditional = step, -1, None, None
        self.count += 1
        return self.count


@dataclass(slots=True)
class Call:
    """
    One call of a denoiser.

    Attributes:
        network: the denoiser.
        args, kwargs: of the call; tensors in them may be the pipeline's own.
        rows: of its batch.
        unconditional: whether all of them are without the prompt.
    """

    network: torch.nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    rows: int
    unconditional: bool = field(default=False)


def first_input(adapter: Adapter, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> torch.Tensor:
    """The noisy latents in a call of a network: its first argument."""
    named = [kwargs[name] for name in ("hidden_states", "sample") if name in kwargs]
    latents: torch.Tensor = (*named, *args)[0]
    return latents


def guided(
    adapter: Adapter, pipe: Any, run: Run, methods: Sequence[Method], calls: Calls, call: Call, output: Any
) -> Any:
    """
    Applies `on_guidance` of `methods` after a call of the denoiser.

    Where guidance makes two calls, the conditional one comes first, and its prediction, which the pipeline holds, is
    rewritten in place after the second.

    Returns:
        The output to use in place of `output`.
    """
    batch = len(run.noise)
    prediction: torch.Tensor = output[0] if isinstance(output, tuple) else output.sample
    if adapter.two_calls and not call.unconditional:
        if calls.count == 0:
            calls.conditional = prediction.clone()
            calls.shown = adapter.condition_view(input_of(adapter, call.args, call.kwargs), run.noise.shape[1]).clone()
            return _with(output, calls.conditional)
        return output
    if adapter.two_calls:
        conditional = calls.conditional
        if conditional is None or calls.count != 1:
            return output
        new = _guide(adapter, pipe, run, methods, calls, call, conditional, prediction)
        conditional.copy_(new)
        return output
    if call.rows > 2 * batch:
        raise UnstillError(
            f"{type(pipe).__name__} guides with {call.rows // batch} passes in this call, and "
            f"{methods[0].name} knows two; leave out what adds one, or remove the method."
        )
    parts = prediction.split(batch)
    x = adapter.condition_view(input_of(adapter, call.args, call.kwargs), run.noise.shape[1])
    calls.shown = x[-batch:].clone()
    new = _guide(adapter, pipe, run, methods, calls, call, parts[-1], parts[0] if len(parts) > 1 else None)
    return output if new is parts[-1] else _with(output, torch.cat([*parts[:-1], new]))


def _guide(
    adapter: Adapter,
    pipe: Any,
    run: Run,
    methods: Sequence[Method],
    calls: Calls,
    call: Call,
    conditional: torch.Tensor,
    unconditional: torch.Tensor | None,
) -> torch.Tensor:
    """The conditional prediction that `methods` make, in the network's layout; the same object where none acts."""
    turn: Callable[[torch.Tensor], torch.Tensor] = lambda x: x.transpose(1, 2) if adapter.frames_first else x  # noqa: E731
    batch, channels = run.noise.shape[:2]

    def unconditional_again() -> torch.Tensor:
        args, kwargs = _rows(call, slice(0, batch), run.frames)
        assert calls.shown is not None
        adapter.condition_view(input_of(adapter, args, kwargs), channels).copy_(calls.shown)
        return turn(_call(calls, call.network, args, kwargs)).float()

    def without_image(keep_prompt: bool = False) -> torch.Tensor:
        args, kwargs = _rows(call, slice(call.rows - batch, call.rows), run.frames)
        args, kwargs = adapter.drop_image(input_of(adapter, args, kwargs), channels, args, kwargs, keep_prompt)
        return turn(_call(calls, call.network, args, kwargs)).float()

    own = current = turn(conditional).float()
    for method in methods:
        passes = Passes(
            conditional=current,
            unconditional=None if unconditional is None else turn(unconditional).float(),
            scale=adapter.guidance_scale(pipe),
            unconditional_again=unconditional_again,
            without_image=without_image if adapter.zero_unconditional else None,
        )
        current = method.on_guidance(run, passes)
    return conditional if current is own else turn(current).to(conditional.dtype)


def _rows(call: Call, rows: slice, frames: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """
    Arguments for some rows of a call's batch; tensors among them are copies. PIA repeats prompts for every frame.
    """

    def part(value: Any) -> Any:
        if isinstance(value, torch.Tensor) and value.ndim and len(value) in (call.rows, call.rows * frames):
            each = len(value) // call.rows
            return value[rows.start * each : rows.stop * each].clone()
        return value

    return tuple(map(part, call.args)), {name: part(value) for name, value in call.kwargs.items()}


def _call(calls: Calls, network: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
    """One more call of the denoiser, in a cache context of its own, so that feature caches do not mix it up."""
    context: AbstractContextManager[Any] = nullcontext()
    if hasattr(network, "cache_context"):
        context = network.cache_context("unstill")
    calls.again = True
    try:
        with context:
            output = network(*args, **kwargs)
    finally:
        calls.again = False
    prediction: torch.Tensor = output[0] if isinstance(output, tuple) else output.sample
    return prediction


def _with(output: Any, prediction: torch.Tensor) -> Any:
    """The output of a network with another prediction."""
    if isinstance(output, tuple):
        return (prediction, *output[1:])
    return type(output)(**{**output, "sample": prediction})
