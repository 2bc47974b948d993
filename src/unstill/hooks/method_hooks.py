"""Wrappers around single methods of a pipeline instance, or a block of a modular one, that see and replace results."""

import copy
import functools
import inspect
from collections.abc import Callable
from typing import Any

from unstill.errors import UnstillError
from unstill.hooks.scheduler_hooks import Arguments


# Receives a method's name, the arguments of the call and its result; returns the result to use instead.
Watch = Callable[[str, Arguments, Any], Any]

_LATENTS_BLOCK = "PrepareLatentsStep"  # the end of the class names of blocks that make the first latents


class _WatchedMethod:
    """Replaces a method of a pipeline as an attribute of the instance."""

    def __init__(self, pipe: Any, name: str, watch: Watch) -> None:
        self._method, self._watch, self._name = getattr(pipe, name), watch, name
        self._before = {name: vars(pipe)[name]} if name in vars(pipe) else {}
        functools.update_wrapper(self, self._method)  # keeps the signature
        self._signature = inspect.signature(self._method)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        arguments = self._signature.bind(*args, **kwargs).arguments
        return self._watch(self._name, arguments, self._method(*args, **kwargs))

    def restore(self, attributes: dict[str, Any]) -> None:
        """Restores the original entry in `attributes`, unless other code has replaced this wrapper since."""
        if attributes.get(self._name) is self:
            del attributes[self._name]
            attributes.update(self._before)


def watch_method(pipe: Any, name: str, watch: Watch) -> Callable[[], None]:
    """
    Passes every result of the pipeline's method `name` through `watch`.

    Args:
        pipe: a pipeline.
        name: of one of its methods.
        watch: receives the name, the arguments and the result; returns the result to use.

    Returns:
        An undo function.
    """
    watched = vars(pipe)[name] = _WatchedMethod(pipe, name, watch)
    return lambda: watched.restore(vars(pipe))


def without_watching(attributes: dict[str, Any]) -> dict[str, Any]:
    """A copy of a pipeline's attributes without the wrappers of `watch_method`."""
    plain = dict(attributes)
    for value in attributes.values():
        if isinstance(value, _WatchedMethod):
            value.restore(plain)
    return plain


def watch_block(pipe: Any, name: str, watch: Watch) -> Callable[[], None]:
    """
    `watch_method` for a modular pipeline, where a block `PrepareLatentsStep` makes the initial latents.

    Args:
        pipe: a modular pipeline.
        name: passed to `watch` as the method's name.
        watch: receives (initial latents, image latents) of the pipeline's state as the result.

    Returns:
        An undo function.

    Raises:
        UnstillError: the pipeline has no such block.
    """
    parent, key = _find(pipe._blocks, _LATENTS_BLOCK) or (None, "")
    if parent is None:
        raise UnstillError(
            f"This {type(pipe).__name__} has no block {_LATENTS_BLOCK}, so its first latents cannot be changed."
        )
    block = parent[key]
    watched = parent[key] = _WatchedBlock(block, name, watch)

    def undo() -> None:
        if parent.get(key) is watched:  # a block that other code has put there since stays
            parent[key] = block

    return undo


def _find(blocks: Any, ending: str) -> tuple[dict[str, Any], str] | None:
    for name, block in blocks.sub_blocks.items():
        if type(block).__name__.endswith(ending):
            return blocks.sub_blocks, name
        if (place := _find(block, ending)) is not None:
            return place
    return None


class _WatchedBlock:
    """Replaces a block of a modular pipeline; a deep copy is the plain block."""

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
