"""
A scheduler with hooks: a subclass, made at run time, of the scheduler's own class.

A proxy object would hide `eta` and `generator` from pipelines that look for them in the signature of `step`, fail
`isinstance`, and could not be saved. The subclass has the name and the module of its base: a pipeline saves, and
reports, the scheduler it was built with.
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
    """What a hooked scheduler calls."""

    def on_set_timesteps(self, scheduler: Any) -> None:
        """After the scheduler's own `set_timesteps`."""

    def on_step(self, scheduler: Any, arguments: Arguments, call: Callable[[], Any]) -> Any:
        """Instead of the scheduler's own `step`: that is `call()`, with `arguments` (by name; changed in place)."""

    def copied(self) -> "SchedulerHooks | None":
        """The hooks that a deep copy of the scheduler gets; `None`: it is a plain scheduler."""


def hooked(scheduler: Any, hooks: SchedulerHooks) -> Any:
    """A copy of `scheduler`, in the same state, that calls `hooks`."""
    new = copy.deepcopy(scheduler)
    base: Any = type(new)
    new.__class__ = _subclass(base)
    new._unstill_hooks = hooks
    return new


def unhook(scheduler: Any) -> None:
    """Makes a hooked scheduler an instance of its own class again, whoever has it."""
    if is_hooked(scheduler):
        del scheduler._unstill_hooks
        vars(scheduler).pop("_unstill_own_sigmas", None)
        scheduler.__class__ = type(scheduler).__base__


def is_hooked(scheduler: Any) -> bool:
    return getattr(scheduler, "_unstill_hooks", None) is not None


def skip_step(scheduler: Any, arguments: Arguments, sample: torch.Tensor, index: int) -> Any:
    """
    What `scheduler.step` returns when the next sample is already known. The solver does not run, so its multistep
    history stays as it is; the scheduler stands at step `index` afterwards.
    """
    stand_at(scheduler, index)
    if arguments.get("return_dict", True):
        return SchedulerOutput(prev_sample=sample)
    # The second value is an x0 that pipelines ignore; CogVideoXDPMScheduler's they hand back to the next step, which
    # None makes first order.
    return sample, None


def stand_at(scheduler: Any, index: int) -> None:
    """Makes `index` the step that the scheduler takes next; one that does not count its steps needs no telling."""
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
    """A pipeline may copy its scheduler, as LTX 2 does for the audio: the hooks know what becomes of them there."""
    base: Any = type(self).__base__
    new: Any = object.__new__(base)
    memo[id(self)] = new
    vars(new).update({k: copy.deepcopy(v, memo) for k, v in vars(self).items() if not k.startswith("_unstill_")})
    if (hooks := self._unstill_hooks.copied()) is not None:
        new.__class__ = type(self)
        new._unstill_hooks = hooks
    return new


def _reduce(self: Any, protocol: int) -> tuple[Any, ...]:
    """Pickles and shallow copies are plain schedulers: hooks belong to a living pipeline."""
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
    """EDM schedulers read this from the configuration. Once methods set other levels, it is that of the first one."""

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
