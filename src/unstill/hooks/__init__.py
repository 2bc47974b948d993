"""How methods get into a diffusers pipeline; the only floor that touches a pipeline's insides."""

from unstill.hooks.adapter import Adapter
from unstill.hooks.apply import Applied, apply
from unstill.hooks.free_init import free_init, sampling
from unstill.hooks.registry import ADAPTERS, adapter_for


__all__ = ["ADAPTERS", "Adapter", "Applied", "adapter_for", "apply", "free_init", "sampling"]
