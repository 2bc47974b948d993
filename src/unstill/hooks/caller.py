"""
A pipeline with methods: its class is replaced by a subclass that is created at run time.

Schedulers and networks may be shared between pipelines. The subclass reports when a call of *this* pipeline begins and
ends, so that methods act in no other one. `components`, `from_pipe`, copies and pickles of the pipeline have no
methods. The subclass keeps the name and the module of its base.
"""

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

from unstill.hooks.method_hooks import without_watching


class PipelineHooks(Protocol):
    """The callbacks of a pipeline with methods."""

    def calling(self) -> AbstractContextManager[None]:
        """Entered around every call of the pipeline."""

    def call_arguments(
        self, method: Callable[..., Any], pipe: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments to call the pipeline with in place of those given."""

    def own(self, scheduler: Any) -> Any:
        """The original scheduler where `scheduler` is the hooked one; else `scheduler` unchanged."""


def hook_pipeline(pipe: Any, hooks: PipelineHooks) -> Callable[[], None]:
    """
    Makes `pipe` call `hooks`.

    Args:
        pipe: a pipeline without hooks.
        hooks: its callbacks.

    Returns:
        An undo function.
    """
    base: Any = type(pipe)
    # A subclass that other code has derived from an earlier one of ours calls the hooks already.
    cls = base if hasattr(base, "_asks_unstill_hooks") else _subclass(base)
    pipe.__class__ = cls
    vars(pipe)["_unstill_hooks"] = hooks

    def undo() -> None:
        vars(pipe).pop("_unstill_hooks", None)
        if type(pipe) is cls:  # a subclass that other code has derived from it since stays
            pipe.__class__ = base

    return undo


def hooks_of(pipe: Any) -> Any:
    """The hooks that `hook_pipeline` has set on a pipeline, or `None`."""
    return vars(pipe).get("_unstill_hooks")


@functools.cache
def _subclass(base: Any) -> Any:
    namespace: dict[str, Any] = {
        "__module__": base.__module__,
        "__qualname__": base.__qualname__,
        "__doc__": base.__doc__,
        "_asks_unstill_hooks": True,
        "__new__": lambda cls, *args, **kwargs: base(*args, **kwargs),  # type(pipe)(...) is a pipeline of the base
        "__reduce_ex__": lambda self, protocol: _reduce(self, base),
        "__call__": _call(base.__call__),
    }
    if hasattr(base, "components"):
        namespace["components"] = property(lambda self: _plain(self, base.components.fget(self)))
    return type(base.__name__, (base,), namespace)


def _call(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)  # keeps the signature, from which defaults are read
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        hooks = hooks_of(self)
        if hooks is None:
            return method(self, *args, **kwargs)
        with hooks.calling():
            args, kwargs = hooks.call_arguments(method, self, args, kwargs)
            return method(self, *args, **kwargs)

    return call


def _reduce(self: Any, base: Any) -> tuple[Any, ...]:
    """State for copies, deep copies and pickles: those of a plain pipeline."""
    state = _plain(self, without_watching(vars(self)))
    state.pop("_unstill_hooks", None)
    return object.__new__, (base,), state


def _plain(self: Any, attributes: dict[str, Any]) -> dict[str, Any]:
    hooks = hooks_of(self)
    if hooks is not None and "scheduler" in attributes:
        attributes["scheduler"] = hooks.own(attributes["scheduler"])
    return attributes
