"""How methods get into a diffusers pipeline; the only floor that touches a pipeline's insides."""

from unstill.families.base import Adapter
from unstill.families.registry import ADAPTERS, adapter_for
from unstill.hooks.apply import Applied, apply
from unstill.hooks.free_init import free_init, sampling


__all__ = ["ADAPTERS", "Adapter", "Applied", "adapter_for", "apply", "free_init", "sampling"]
