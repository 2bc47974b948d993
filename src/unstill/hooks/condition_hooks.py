"""The image latents in a denoiser's input, rewritten before each of its calls: beside a compiled module, not in it."""

import functools
import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch

from unstill.families.base import Adapter
from unstill.methods.base import Method, Run


# Gets the arguments of a call; gives what to do after it, if anything.
Around = Callable[[tuple[Any, ...], dict[str, Any]], Callable[[], Any] | None]


def around_calls(module: torch.nn.Module, around: Around) -> Callable[[], None]:
    """
    Lets `around` act on every call of `module`; gives the way back.

    `module.compile()` compiles forward hooks along with the module: one with a state would be compiled anew at every
    step, and with `fullgraph=True` not at all. There the compiled call is wrapped instead.
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
    ours = threading.local()  # the module may be another pipeline's as well, in another thread

    def before(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        ours.afterwards = around(args, kwargs)

    def after(module: torch.nn.Module, args: tuple[Any, ...], output: Any) -> None:
        action, ours.afterwards = ours.afterwards, None
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
    """A forward hook; in copies of the module it does nothing."""

    def __init__(self, function: Callable[..., None]) -> None:
        self._function = function

    def __call__(self, *args: Any) -> None:
        self._function(*args)

    def __reduce__(self) -> tuple[Any, ...]:
        return _Hook, (_nothing,)


def _nothing(*args: Any) -> None: ...


def edit_condition(
    adapter: Adapter,
    pipe: Any,
    run: Run,
    methods: Sequence[Method],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Callable[[], Any] | None:
    """
    Lets `methods` change the image latents in a denoiser's input, in place: under guidance a copy of it would be
    larger than all that methods keep. Gives what takes the change back, where the pipeline uses that tensor again.
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
    put_back = functools.partial(rows.copy_, rows.clone()) if adapter.reuses_input else None
    for part in rows.split(batch):
        part.copy_(edited / scale)
    reset = None if run.image_noise is None else adapter.set_image_noise(pipe, run.image_noise, args, kwargs)
    changes = [undo for undo in (put_back, reset) if undo is not None]

    def undo_all() -> None:
        for undo in changes:
            undo()

    return undo_all if changes else None
