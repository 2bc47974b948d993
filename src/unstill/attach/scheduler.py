"""
A scheduler with hooks: a subclass, made at run time, of the scheduler's own class.

A proxy object would hide `eta` and `generator` from pipelines that look for them in the signature of `step`, fail
`isinstance`, and could not be saved. The subclass carries the name and module of its base, so that a pipeline saves and
reports the scheduler it was built with.
"""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable
from typing import Any, Protocol

import torch
from diffusers import SchedulerMixin
from diffusers.schedulers.scheduling_utils import SchedulerOutput


Arguments = dict[str, Any]


class SchedulerHooks(Protocol):
    """What a hooked scheduler calls. `copied` gives the hooks of a copy of the scheduler."""

    def on_set_timesteps(self, scheduler: SchedulerMixin) -> None:
        """After the scheduler's own `set_timesteps`."""

    def on_step(self, scheduler: SchedulerMixin, arguments: Arguments, call: Callable[[], Any]) -> Any:
        """Instead of the scheduler's own `step`, which is `call()` with `arguments` (by name, to be changed in place)."""

    def copied(self) -> SchedulerHooks: ...


def hooked(scheduler: SchedulerMixin, hooks: SchedulerHooks) -> SchedulerMixin:
    """A copy of `scheduler` in the same state whose `set_timesteps` and `step` go through `hooks`; the original is not touched."""
    new = copy.deepcopy(scheduler)
    new.__class__ = _subclass(type(scheduler))
    new._unstill_hooks = hooks
    return new


def is_hooked(scheduler: SchedulerMixin) -> bool:
    return getattr(scheduler, "_unstill_hooks", None) is not None


def step_result(scheduler: SchedulerMixin, arguments: Arguments, sample: torch.Tensor, index: int) -> Any:
    """
    What `scheduler.step` returns when `sample` is the next sample and the solver is not run: the scheduler moves on to
    `index`, its multistep history stays empty.
    """
    if hasattr(scheduler, "_step_index"):
        scheduler._step_index = index
    if arguments.get("return_dict", True):
        return SchedulerOutput(prev_sample=sample)
    # CogVideoXDPMScheduler's second value is the previous x0, which the pipeline hands back: None makes the next step
    # first order. The other schedulers' second value, where there is one, is not read by any pipeline.
    return (sample, None)


@functools.cache
def _subclass(base: type[SchedulerMixin]) -> type[SchedulerMixin]:
    namespace = {
        "__module__": base.__module__,
        "__qualname__": base.__qualname__,
        "__doc__": base.__doc__,
        "__deepcopy__": _deepcopy,
        "__reduce_ex__": _reduce,
        "_unstill_hooks": None,
        "set_timesteps": _set_timesteps(base.set_timesteps),
        "step": _step(base.step),
    }
    return type(base.__name__, (base,), namespace)


def _deepcopy(self: Any, memo: dict[int, Any]) -> Any:
    """LTX2 copies its scheduler for the audio, SkyReels V2 DF one for every frame: the hooks say what they do there."""
    new = object.__new__(type(self))
    vars(new).update({k: copy.deepcopy(v, memo) for k, v in vars(self).items() if k != "_unstill_hooks"})
    new._unstill_hooks = self._unstill_hooks and self._unstill_hooks.copied()
    return new


def _reduce(self: Any, protocol: int) -> tuple[Any, ...]:
    """Pickles and shallow copies are plain schedulers: hooks belong to a living pipeline."""
    state = {k: v for k, v in vars(self).items() if k != "_unstill_hooks"}
    return object.__new__, (type(self).__base__,), state


def _set_timesteps(method: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(method)  # retrieve_timesteps looks for `sigmas`, `timesteps`, `mu` in the signature
    def set_timesteps(self: Any, *args: Any, **kwargs: Any) -> None:
        method(self, *args, **kwargs)
        if self._unstill_hooks is not None:
            self._unstill_hooks.on_set_timesteps(self)

    return set_timesteps


def _step(method: Callable[..., Any]) -> Callable[..., Any]:
    signature = inspect.signature(method)

    @functools.wraps(method)  # pipelines look for `eta` and `generator` in the signature
    def step(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self._unstill_hooks is None:
            return method(self, *args, **kwargs)
        # By name: CogVideoXDPMScheduler takes its arguments in another order.
        bound = signature.bind(self, *args, **kwargs)
        return self._unstill_hooks.on_step(self, bound.arguments, lambda: method(*bound.args, **bound.kwargs))

    return step
