"""How a pipeline is watched: what its methods return, and what the block of a modular one has made."""

import copy
import functools
import inspect
from collections.abc import Callable
from typing import Any

from unstill.attach.scheduler import Arguments
from unstill.errors import UnstillError


# Gets the name of a method, the arguments of its call and what it returned; gives what it is to return instead.
Watch = Callable[[str, Arguments, Any], Any]


def watch_method(pipe: Any, name: str, watch: Watch) -> Callable[[], None]:
    """Lets `watch` see, and replace, what the pipeline's method `name` returns; gives the way back."""
    attributes = vars(pipe)
    before = {name: attributes[name]} if name in attributes else {}
    method = getattr(pipe, name)
    signature = inspect.signature(method)

    @functools.wraps(method)
    def watched(*args: Any, **kwargs: Any) -> Any:
        return watch(name, signature.bind(*args, **kwargs).arguments, method(*args, **kwargs))

    def undo() -> None:
        del attributes[name]
        attributes.update(before)

    attributes[name] = watched
    return undo


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
    home[name] = _Watched(block, condition, watch)

    def undo() -> None:
        home[name] = block

    return undo


def _find(blocks: Any, ending: str) -> tuple[dict[str, Any], str] | None:
    for name, block in blocks.sub_blocks.items():
        if type(block).__name__.endswith(ending):
            return blocks.sub_blocks, name
        if (found := _find(block, ending)) is not None:
            return found
    return None


class _Watched:
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
