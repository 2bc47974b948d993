"""How a pipeline is watched: what its methods return, and what the block of a modular one has made."""

import copy
import functools
import inspect
from collections.abc import Callable
from typing import Any

from unstill.errors import UnstillError
from unstill.hooks.scheduler_hooks import Arguments


# Gets the name of a method, the arguments of its call and what it returned; gives what it is to return instead.
Watch = Callable[[str, Arguments, Any], Any]


class _WatchedMethod:
    """In the place of a method of a pipeline, among the attributes of the instance."""

    def __init__(self, pipe: Any, name: str, watch: Watch) -> None:
        self._method, self._watch, self._name = getattr(pipe, name), watch, name
        self._before = {name: vars(pipe)[name]} if name in vars(pipe) else {}
        functools.update_wrapper(self, self._method)  # the signature
        self._signature = inspect.signature(self._method)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        arguments = self._signature.bind(*args, **kwargs).arguments
        return self._watch(self._name, arguments, self._method(*args, **kwargs))

    def take_out(self, attributes: dict[str, Any]) -> None:
        """Puts back into `attributes` what was there before; what someone else has put there since stays."""
        if attributes.get(self._name) is self:
            del attributes[self._name]
            attributes.update(self._before)


def watch_method(pipe: Any, name: str, watch: Watch) -> Callable[[], None]:
    """Lets `watch` see, and replace, what the pipeline's method `name` returns; gives the way back."""
    watched = vars(pipe)[name] = _WatchedMethod(pipe, name, watch)
    return lambda: watched.take_out(vars(pipe))


def without_watching(attributes: dict[str, Any]) -> dict[str, Any]:
    """A copy of a pipeline's attributes as they are without `watch_method`."""
    plain = dict(attributes)
    for value in attributes.values():
        if isinstance(value, _WatchedMethod):
            value.take_out(plain)
    return plain


def watch_block(pipe: Any, ending: str, condition: str, watch: Watch) -> Callable[[], None]:
    """
    The same for the block of a modular pipeline that makes `latents`, by the end of its class name: `watch` sees them
    and what the pipeline's state has under `condition`, as if `prepare_latents` returned both.
    """
    home, name = _find(pipe._blocks, ending) or (None, "")
    if home is None:
        raise UnstillError(
            f"This {type(pipe).__name__} has no block {ending}, so its first latents cannot be changed."
        )
    block = home[name]
    watched = home[name] = _WatchedBlock(block, condition, watch)

    def undo() -> None:
        if home.get(name) is watched:  # else someone has put another one there, which stays
            home[name] = block

    return undo


def _find(blocks: Any, ending: str) -> tuple[dict[str, Any], str] | None:
    for name, block in blocks.sub_blocks.items():
        if type(block).__name__.endswith(ending):
            return blocks.sub_blocks, name
        if (found := _find(block, ending)) is not None:
            return found
    return None


class _WatchedBlock:
    """In the place of a block; a copy is the block alone."""

    def __init__(self, block: Any, condition: str, watch: Watch) -> None:
        self.block, self.condition, self.watch = block, condition, watch

    def __getattr__(self, name: str) -> Any:
        return getattr(self.block, name)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return copy.deepcopy(self.block, memo)

    def __call__(self, components: Any, state: Any) -> Any:
        components, state = self.block(components, state)
        made = state.get("latents"), state.get(self.condition)
        latents, _ = self.watch("prepare_latents", {"generator": state.get("generator")}, made)
        state.set("latents", latents)
        return components, state
