"""
A pipeline with methods: an instance of a subclass, made at run time, of the pipeline's own class.

Schedulers and networks may be shared between pipelines. The subclass tells when a call of *this* pipeline begins and
ends, so that methods act in no other one. What is made from the pipeline (`components`, `from_pipe`, copies, pickles)
has no methods. The subclass has the name and the module of its base.
"""

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

from unstill.hooks.method_hooks import without_watching


class PipelineHooks(Protocol):
    """What a pipeline with methods asks."""

    def calling(self) -> AbstractContextManager[None]:
        """Entered around every call of the pipeline."""

    def own(self, scheduler: Any) -> Any:
        """The scheduler without hooks in place of the hooked one; any other scheduler as it is."""


def hook_pipeline(pipe: Any, hooks: PipelineHooks) -> Callable[[], None]:
    """Lets `pipe` ask `hooks`; gives the way back."""
    base: Any = type(pipe)
    # A class that someone has made of an earlier subclass of ours asks the hooks already.
    cls = base if hasattr(base, "_asks_unstill_hooks") else _subclass(base)
    pipe.__class__ = cls
    vars(pipe)["_unstill_hooks"] = hooks

    def undo() -> None:
        vars(pipe).pop("_unstill_hooks", None)
        if type(pipe) is cls:  # else someone has made a subclass of it since, which stays
            pipe.__class__ = base

    return undo


def hooks_of(pipe: Any) -> Any:
    """What `hook_pipeline` was given, or `None`."""
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
    @functools.wraps(method)  # the signature tells defaults
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        hooks = hooks_of(self)
        if hooks is None:
            return method(self, *args, **kwargs)
        with hooks.calling():
            return method(self, *args, **kwargs)

    return call


def _reduce(self: Any, base: Any) -> tuple[Any, ...]:
    """Copies, deep copies and pickles."""
    state = _plain(self, without_watching(vars(self)))
    state.pop("_unstill_hooks", None)
    return object.__new__, (base,), state


def _plain(self: Any, attributes: dict[str, Any]) -> dict[str, Any]:
    hooks = hooks_of(self)
    if hooks is not None and "scheduler" in attributes:
        attributes["scheduler"] = hooks.own(attributes["scheduler"])
    return attributes
