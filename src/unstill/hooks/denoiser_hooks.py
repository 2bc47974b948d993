"""What methods do around one call of a denoiser: its image latents, its attention, and its prediction."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch

from unstill.errors import UnstillError
from unstill.families.base import Adapter
from unstill.hooks.attention_hooks import ReferenceAttention, attends_by_torch, reference_attention
from unstill.hooks.condition_hooks import After, edit_condition
from unstill.hooks.guidance_hooks import Call, Calls, first_input, guided
from unstill.methods.base import Method, Run


CONDITION = ("on_condition", "on_condition_clip")
ATTENTION = ("on_attention", "on_attention_mass")


def with_hooks(methods: Sequence[Method], *hooks: str) -> list[Method]:
    """Those of `methods` that implement one of `hooks`, in order."""
    return [method for method in methods if any(map(method.implements, hooks))]


def denoiser_names(adapter: Adapter, methods: Sequence[Method]) -> set[str]:
    """The components whose calls `methods` act on: one network, or two (Wan 2.2 A14B)."""
    names: set[str] = set()
    if with_hooks(methods, *CONDITION, "on_guidance"):
        names.update(adapter.denoisers)
    if with_hooks(methods, *ATTENTION):
        names.update(adapter.attends)
    return names


def around_denoiser(
    adapter: Adapter,
    pipe: Any,
    run: Run,
    methods: Sequence[Method],
    calls: Calls,
    network: torch.nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> After | None:
    """
    Applies the hooks of `methods` that come before a call of a denoiser.

    Args:
        adapter: the adapter of the pipeline's class.
        pipe: the pipeline.
        run: state of the current pipeline call.
        methods: all methods, in order.
        calls: the calls of denoisers in the current step; this one is counted.
        network: the denoiser.
        args: positional arguments of its call.
        kwargs: keyword arguments of its call; image latents among the arguments are edited in place.

    Returns:
        What to run after the call, with its output (`None` where it failed): it returns the output to use instead, or
        `None`. `None` where no method acts on this call.
    """
    run.second_network = network is getattr(pipe, "transformer_2", None)
    latents = first_input(adapter, args, kwargs)
    second = calls.next(run.step) > 0
    call = Call(network, args, kwargs, rows=len(latents), unconditional=second and adapter.two_calls)
    on_condition = with_hooks(methods, *CONDITION)
    restore = on_condition and edit_condition(adapter, pipe, run, on_condition, args, kwargs, call.unconditional)
    mode = _attention_mode(adapter, pipe, run, methods, call, latents)
    on_guidance = with_hooks(methods, "on_guidance")
    if not (restore or mode or on_guidance):
        return None
    entered = ExitStack()
    if mode is not None:
        entered.enter_context(reference_attention(network, mode, adapter.temporal_attention))

    def after(output: Any) -> Any:
        if mode is not None:
            entered.close()
            if output is not None and mode.count == 0 and any(mode.bias):
                raise UnstillError(
                    f"No attention over the frames was seen in {type(network).__name__}; it goes by another way "
                    "than PyTorch's attention. Leave out ReferenceBias."
                )
        try:
            if on_guidance and output is not None:
                return guided(adapter, pipe, run, on_guidance, calls, call, output)
        finally:
            if restore:
                restore()
        return None

    return after


def _attention_mode(
    adapter: Adapter, pipe: Any, run: Run, methods: Sequence[Method], call: Call, latents: torch.Tensor
) -> ReferenceAttention | None:
    """The mode in which this call of a network computes its attention; `None` where that stays as it is."""
    biasing, measuring = with_hooks(methods, "on_attention"), with_hooks(methods, "on_attention_mass")
    if call.unconditional or not (measuring or biasing):
        return None
    bias = sum(method.on_attention(run) for method in biasing)
    if bias == 0 and not measuring:
        return None
    if not attends_by_torch(call.network):
        raise UnstillError(
            f"{type(call.network).__name__} was given an attention backend of its own, in which no bias can be "
            "added or measured; call its reset_attention_backend(), or leave out ReferenceBias."
        )
    batch, channels, frames, *size = run.noise.shape
    shape = torch.Size((batch, channels, frames + run.conditioning_frames, *size))
    keys = adapter.reference_keys(pipe, call.network, latents, shape)
    without = batch if call.rows > batch else 0  # rows without the prompt, which come first

    def measured(mass: torch.Tensor) -> None:
        for method in measuring:
            method.on_attention_mass(run, mass[-batch:])

    biases = [0.0] * without + [bias] * (call.rows - without)
    return ReferenceAttention(keys, biases, measured if measuring else None)
