"""How methods get into a diffusers pipeline; the only floor that touches a pipeline's insides."""

from unstill.attach.adapter import Adapter
from unstill.attach.adapters import ADAPTERS, adapter_for
from unstill.attach.apply import Applied, apply
from unstill.attach.loop import free_init, sampling


__all__ = ["ADAPTERS", "Adapter", "Applied", "adapter_for", "apply", "free_init", "sampling"]
