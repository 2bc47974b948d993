"""What caches of attention (`diffusers.hooks`) need of the noise levels that a video begins at."""

from __future__ import annotations

from typing import Any

from torch import nn

from unstill.errors import UnstillError


def check_caches(pipe: Any, timestep: float) -> None:
    """
    Checks that every layer with FasterCache computes its attention at the first timestep of a video.

    For networks with distilled guidance, diffusers' FasterCache reads its cache at every timestep of its skip range,
    also when nothing is in it yet. PyramidAttentionBroadcast and the other caches compute what they have not stored.

    Args:
        pipe: a pipeline whose denoisers may have caches.
        timestep: the first one.

    Raises:
        UnstillError: the timestep is in the skip range, and the cache is empty.
    """
    for name, component in pipe.components.items():
        if not isinstance(component, nn.Module) or _hook(component, "faster_cache_denoiser") is None:
            continue
        for layer in component.modules():
            hook = _hook(layer, "faster_cache_block")
            if hook is None or not hook.is_guidance_distilled or hook.state.cache is not None:
                continue
            lowest, highest = hook.timestep_skip_range
            if lowest < timestep < highest:
                raise UnstillError(
                    f"FasterCache of the {name} reuses attention at timesteps between {lowest} and {highest}, but the "
                    f"first timestep with these methods is {timestep:g}, where nothing is stored yet; enable it with "
                    f"a timestep skip range that ends at {int(timestep)} or below, or begin at a higher level."
                )


def _hook(module: nn.Module, name: str) -> Any:
    registry: Any = getattr(module, "_diffusers_hook", None)
    return None if registry is None else registry.get_hook(name)
