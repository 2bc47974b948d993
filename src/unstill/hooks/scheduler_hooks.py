"""
A scheduler with hooks: its class is a subclass of the scheduler's own class that is created at run time.

A proxy object would hide `eta` and `generator` from pipelines that look for them in the signature of `step`, fail
`isinstance`, and could not be saved. The subclass keeps the name and the module of its base, so that a pipeline saves
and reports the scheduler it was built with.
"""

import copy
import functools
import inspect
from collections.abc import Callable
from typing import Any, Protocol

import torch
from diffusers.schedulers.scheduling_utils import SchedulerOutput


Arguments = dict[str, Any]


class SchedulerHooks(Protocol):
    """The callbacks of a hooked scheduler."""

    def on_set_timesteps(self, scheduler: Any) -> None:
        """Called after the scheduler's own `set_timesteps`."""

    def on_step(self, scheduler: Any, arguments: Arguments, call: Callable[[], Any]) -> Any:
        """
        Called instead of the scheduler's own `step`.

        Args:
            scheduler: the hooked scheduler.
            arguments: of the call, by name; may be changed in place.
            call: runs the scheduler's own `step` with `arguments`.

        Returns:
            What `step` is to return.
        """

    def copied(self) -> "SchedulerHooks | None":
        """The hooks for a deep copy of the scheduler; `None` makes the copy a plain scheduler."""


def hooked(scheduler: Any, hooks: SchedulerHooks) -> Any:
    """A copy of `scheduler` in the same state that calls `hooks`."""
    new = copy.deepcopy(scheduler)
    base: Any = type(new)
    new.__class__ = _subclass(base)
    new._unstill_hooks = hooks
    return new


def unhook(scheduler: Any) -> None:
    """Turns a hooked scheduler, in place, into an instance of its own class again."""
    if is_hooked(scheduler):
        del scheduler._unstill_hooks
        vars(scheduler).pop("_unstill_own_sigmas", None)
        scheduler.__class__ = type(scheduler).__base__


def is_hooked(scheduler: Any) -> bool:
    return getattr(scheduler, "_unstill_hooks", None) is not None


def skip_step(scheduler: Any, arguments: Arguments, sample: torch.Tensor, index: int) -> Any:
    """
    Replaces `scheduler.step` when the next sample is already known.

    The solver does not run, so its multistep history stays unchanged.

    Args:
        scheduler: the hooked scheduler; its next step is `index` afterwards.
        arguments: of `scheduler.step`, by name.
        sample: the next sample, in the pipeline's layout.
        index: of the step after this one.

    Returns:
        What `scheduler.step` would return, with `sample` as the previous sample.
    """
    set_step_index(scheduler, index)
    if arguments.get("return_dict", True):
        return SchedulerOutput(prev_sample=sample)
    # The second value is an x0 that pipelines ignore, except CogVideoXDPMScheduler's, which is an argument of the next
    # step; None makes that step first order.
    return sample, None


def set_step_index(scheduler: Any, index: int) -> None:
    """Sets the index of the scheduler's next step; does nothing for schedulers without a step counter."""
    if hasattr(scheduler, "_step_index"):
        scheduler._step_index = index


@functools.cache
def _subclass(base: Any) -> Any:
    namespace = {
        "__module__": base.__module__,
        "__qualname__": base.__qualname__,
        "__doc__": base.__doc__,
        "__deepcopy__": _deepcopy,
        "__reduce_ex__": _reduce,
        "set_timesteps": _set_timesteps(base.set_timesteps),
        "step": _step(base.step),
    }
    if hasattr(base, "precondition_inputs"):
        namespace["init_noise_sigma"] = _init_noise_sigma(base.init_noise_sigma)
    return type(base.__name__, (base,), namespace)


def _deepcopy(self: Any, memo: dict[int, Any]) -> Any:
    """A pipeline may deep-copy its scheduler, as LTX 2 does for audio: `copied()` decides the hooks of the copy."""
    base: Any = type(self).__base__
    new: Any = object.__new__(base)
    memo[id(self)] = new
    vars(new).update({k: copy.deepcopy(v, memo) for k, v in vars(self).items() if not k.startswith("_unstill_")})
    if (hooks := self._unstill_hooks.copied()) is not None:
        new.__class__ = type(self)
        new._unstill_hooks = hooks
    return new


def _reduce(self: Any, protocol: int) -> tuple[Any, ...]:
    """Pickles and shallow copies are plain schedulers without hooks."""
    state = {k: v for k, v in vars(self).items() if not k.startswith("_unstill_")}
    return object.__new__, (type(self).__base__,), state


def _set_timesteps(method: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(method)  # pipelines look for `sigmas`, `timesteps` and `mu` in the signature
    def set_timesteps(self: Any, *args: Any, **kwargs: Any) -> None:
        method(self, *args, **kwargs)
        self._unstill_own_sigmas = getattr(self, "sigmas", None)
        self._unstill_hooks.on_set_timesteps(self)

    return set_timesteps


def _init_noise_sigma(own: property) -> property:
    """
    EDM schedulers compute this from the configuration; where methods have set other levels, from the first of them.
    """

    def init_noise_sigma(self: Any) -> Any:
        plain = getattr(self, "_unstill_own_sigmas", None)  # none before the first set_timesteps
        if plain is None or self.sigmas is plain:
            return own.__get__(self)
        return (self.sigmas[0].item() ** 2 + 1) ** 0.5

    return property(init_noise_sigma, doc=own.__doc__)


def _step(method: Callable[..., Any]) -> Callable[..., Any]:
    signature = inspect.signature(method)

    @functools.wraps(method)  # pipelines look for `eta` and `generator` in the signature
    def step(self: Any, *args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(self, *args, **kwargs)  # by name: CogVideoXDPMScheduler has another order
        return self._unstill_hooks.on_step(self, bound.arguments, lambda: method(*bound.args, **bound.kwargs))

    return step
