"""
Edits the image latents in a denoiser's input before each of its calls, outside the graph that `torch.compile` sees.
"""

import functools
import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch

from unstill.families.base import Adapter
from unstill.methods.base import Method, Run


# Receives the positional and keyword arguments of a call; returns a function to run after it, or None.
Around = Callable[[tuple[Any, ...], dict[str, Any]], Callable[[], Any] | None]


def around_calls(module: torch.nn.Module, around: Around) -> Callable[[], None]:
    """
    Runs `around` at every call of `module`.

    `module.compile()` compiles forward hooks together with the module: a hook with state would be recompiled at every
    step, and `fullgraph=True` rejects it. For a compiled module the compiled call is wrapped instead.

    Args:
        module: a network of the pipeline.
        around: called before the module; what it returns, if not `None`, is called afterwards.

    Returns:
        An undo function.
    """
    compiled = module._compiled_call_impl
    if compiled is None:
        return _hooked(module, around)

    def call(*args: Any, **kwargs: Any) -> Any:
        after = around(args, kwargs)
        result = compiled(*args, **kwargs)
        if after is not None:
            after()
        return result

    def undo() -> None:
        if module._compiled_call_impl is call:  # else someone has compiled it again
            module._compiled_call_impl = compiled

    module._compiled_call_impl = call
    return undo


def _hooked(module: torch.nn.Module, around: Around) -> Callable[[], None]:
    local = threading.local()  # another pipeline may call the same module from another thread

    def before(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        local.afterwards = around(args, kwargs)

    def after(module: torch.nn.Module, args: tuple[Any, ...], output: Any) -> None:
        action, local.afterwards = local.afterwards, None
        if action is not None:
            action()

    handles = [
        module.register_forward_pre_hook(_Hook(before), with_kwargs=True),
        module.register_forward_hook(_Hook(after)),
    ]

    def undo() -> None:
        for handle in handles:
            handle.remove()

    return undo


class _Hook:
    """A forward hook that becomes a no-op in copies and pickles of the module."""

    def __init__(self, function: Callable[..., None]) -> None:
        self._function = function

    def __call__(self, *args: Any) -> None:
        self._function(*args)

    def __reduce__(self) -> tuple[Any, ...]:
        return _Hook, (_no_op,)


def _no_op(*args: Any) -> None: ...


def edit_condition(
    adapter: Adapter,
    pipe: Any,
    run: Run,
    methods: Sequence[Method],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Callable[[], Any] | None:
    """
    Applies `on_condition` of `methods` to the image latents in a denoiser's input, in place.

    In place because a copy of the input under classifier-free guidance would be larger than all other state of the
    methods.

    Args:
        adapter: the adapter of the pipeline's class.
        pipe: the pipeline.
        run: state of the current pipeline call.
        methods: those with an `on_condition` hook, in order.
        args: positional arguments of the denoiser's call.
        kwargs: keyword arguments of the denoiser's call.

    Returns:
        A function that restores the input after the call, or `None` where the pipeline does not use it again.
    """
    name = adapter.condition_input
    x = kwargs[name] if name in kwargs else args[0]
    batch, channels = run.noise.shape[:2]
    rows = adapter.condition_view(x, channels)
    if adapter.zero_unconditional:
        rows = rows[-batch:]
    scale = adapter.condition_scale(pipe)
    edited = clean = rows[:batch].float() * scale
    for method in methods:
        edited = method.on_condition(run, edited)
    if edited is clean:
        return None
    restore = functools.partial(rows.copy_, rows.clone()) if adapter.reuses_input else None
    for part in rows.split(batch):
        part.copy_(edited / scale)
    reset = None if run.image_noise is None else adapter.set_image_noise(pipe, run.image_noise, args, kwargs)
    undos = [undo for undo in (restore, reset) if undo is not None]

    def undo_all() -> None:
        for undo in undos:
            undo()

    return undo_all if undos else None
