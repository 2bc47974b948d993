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

_LATENTS_BLOCK = "PrepareLatentsStep"  # the end of the class names of blocks that make the first latents


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
    """Lets `watch` see, and replace, what the pipeline's method `name` returns. Returns an undo function."""
    watched = vars(pipe)[name] = _WatchedMethod(pipe, name, watch)
    return lambda: watched.take_out(vars(pipe))


def without_watching(attributes: dict[str, Any]) -> dict[str, Any]:
    """A copy of a pipeline's attributes as they are without `watch_method`."""
    plain = dict(attributes)
    for value in attributes.values():
        if isinstance(value, _WatchedMethod):
            value.take_out(plain)
    return plain


def watch_block(pipe: Any, name: str, watch: Watch) -> Callable[[], None]:
    """
    The same for a modular pipeline, whose block `PrepareLatentsStep` makes the first latents: `watch` sees them and
    the image latents of the pipeline's state, as if a method `name` returned both.
    """
    home, key = _find(pipe._blocks, _LATENTS_BLOCK) or (None, "")
    if home is None:
        raise UnstillError(
            f"This {type(pipe).__name__} has no block {_LATENTS_BLOCK}, so its first latents cannot be changed."
        )
    block = home[key]
    watched = home[key] = _WatchedBlock(block, name, watch)

    def undo() -> None:
        if home.get(key) is watched:  # else someone has put another one there, which stays
            home[key] = block

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

    def __init__(self, block: Any, name: str, watch: Watch) -> None:
        self.block, self.name, self.watch = block, name, watch

    def __getattr__(self, name: str) -> Any:
        return getattr(self.block, name)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return copy.deepcopy(self.block, memo)

    def __call__(self, components: Any, state: Any) -> Any:
        components, state = self.block(components, state)
        result = state.get("latents"), state.get("image_condition_latents")
        latents, _ = self.watch(self.name, {"generator": state.get("generator")}, result)
        state.set("latents", latents)
        return components, state
