"""How methods get into a diffusers pipeline; the only floor that touches a pipeline's insides."""

from .adapters import ADAPTERS, Adapter, adapter_for
from .apply import Applied, apply


__all__ = ["ADAPTERS", "Adapter", "Applied", "adapter_for", "apply"]
