"""
Runs code before and after each call of a denoiser, outside the graph that `torch.compile` sees, and edits the image
latents in its input.
"""

import functools
import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch

from unstill.families.base import Adapter
from unstill.methods.base import Method, Run


# Called after a call with its output, None if it failed; returns the output to use instead, or None.
After = Callable[[Any], Any]
# Called with the positional and keyword arguments of a call; returns a function to call after it, or None.
Around = Callable[[tuple[Any, ...], dict[str, Any]], After | None]


def around_calls(module: torch.nn.Module, around: Around) -> Callable[[], None]:
    """
    Runs `around` at every call of `module`.

    `module.compile()` compiles forward hooks together with the module: a hook with state would be recompiled at every
    step, and `fullgraph=True` rejects it. For a compiled module the compiled call is wrapped instead.

    Args:
        module: a network of the pipeline.
        around: called before the module; the function it returns, if any, is called afterwards, also after an error.

    Returns:
        An undo function.
    """
    compiled = module._compiled_call_impl
    if compiled is None:
        return _hooked(module, around)

    def call(*args: Any, **kwargs: Any) -> Any:
        after = around(args, kwargs)
        if after is None:
            return compiled(*args, **kwargs)
        result = None
        try:
            result = compiled(*args, **kwargs)
        finally:
            changed = after(result)
        return result if changed is None else changed

    def undo() -> None:
        if module._compiled_call_impl is call:  # else someone has compiled it again
            module._compiled_call_impl = compiled

    module._compiled_call_impl = call
    return undo


def _hooked(module: torch.nn.Module, around: Around) -> Callable[[], None]:
    local = threading.local()  # another pipeline may call the same module from another thread

    def before(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        local.afterwards = around(args, kwargs)

    def after(module: torch.nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        action, local.afterwards = getattr(local, "afterwards", None), None  # none, where `before` has failed
        return None if action is None else action(output)

    handles = [
        module.register_forward_pre_hook(_Hook(before), with_kwargs=True),
        module.register_forward_hook(_Hook(after), always_call=True),
    ]

    def undo() -> None:
        for handle in handles:
            handle.remove()

    return undo


class _Hook:
    """A forward hook that is a no-op in copies and pickles of the module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)

    def __reduce__(self) -> tuple[Any, ...]:
        return _Hook, (_no_op,)


def _no_op(*args: Any) -> None: ...


def input_of(adapter: Adapter, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
    """The argument of a denoiser's call that holds the image latents."""
    x: torch.Tensor = kwargs[adapter.condition_input] if adapter.condition_input in kwargs else args[0]
    return x


def edit_condition(
    adapter: Adapter,
    pipe: Any,
    run: Run,
    methods: Sequence[Method],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    unconditional: bool = False,
) -> Callable[[], Any] | None:
    """
    Applies `on_condition` and `on_condition_clip` of `methods` to the image latents in a denoiser's input, in place.

    In place because a copy of the input under classifier-free guidance would be larger than all other state of the
    methods.

    Args:
        adapter: the adapter of the pipeline's class.
        pipe: the pipeline.
        run: state of the current pipeline call.
        methods: those with such a hook, in order.
        args: positional arguments of the denoiser's call.
        kwargs: keyword arguments of the denoiser's call.
        unconditional: whether this is a call of its own for the unconditional pass.

    Returns:
        A function that restores the input after the call, or `None` where the pipeline does not use it again.
    """
    x = input_of(adapter, args, kwargs)
    batch, channels = run.noise.shape[:2]
    undos: list[Callable[[], Any]] = []
    if in_clip := [method for method in methods if method.implements("on_condition_clip")]:
        clip, mean, deviation = adapter.condition_clip_view(pipe, x, channels)
        clean = changed = clip[:batch].float() * deviation + mean
        for method in in_clip:
            changed = method.on_condition_clip(run, changed)
        if changed is not clean:
            normalised = (changed - mean) / deviation
            undos += _write(adapter, clip, [normalised] * (len(clip) // batch))

    rows = adapter.condition_view(x, channels)
    if adapter.zero_unconditional:
        rows = rows[-batch:]
    scale = adapter.condition_scale(pipe)
    clean = rows[:batch].float() * scale
    passes = [_edited(run, methods, clean, conditional=not unconditional)] * (len(rows) // batch)
    if len(passes) > 1 and not unconditional and any(method.conditional_only for method in methods):
        passes[0] = _edited(run, methods, clean, conditional=False)
    if any(edited is not clean for edited in passes):
        undos += _write(adapter, rows, [edited / scale for edited in passes])
        reset = None if run.image_noise is None else adapter.set_image_noise(pipe, run.image_noise, args, kwargs)
        undos += [] if reset is None else [reset]
    if not undos:
        return None

    def undo_all() -> None:
        for undo in reversed(undos):
            undo()

    return undo_all


def _edited(run: Run, methods: Sequence[Method], clean: torch.Tensor, conditional: bool) -> torch.Tensor:
    """The image latents for one pass: the conditional or the unconditional one."""
    edited = clean
    for method in methods:
        if method.implements("on_condition") and (conditional or not method.conditional_only):
            edited = method.on_condition(run, edited)
    return edited


def _write(adapter: Adapter, view: torch.Tensor, parts: Sequence[torch.Tensor]) -> list[Callable[[], Any]]:
    """Writes parts of the batch into a view of the input. Returns undo functions if the pipeline reads it again."""
    undos: list[Callable[[], Any]] = []
    if adapter.reuses_input:
        undos.append(functools.partial(view.copy_, view.clone()))
    for rows, part in zip(view.split(len(parts[0])), parts, strict=True):
        rows.copy_(part)
    return undos
