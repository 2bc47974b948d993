"""
Changes and measures the attention to the first latent frame in a network, at PyTorch's
`scaled_dot_product_attention`, through which the attention of diffusers' networks goes by default.

A bias b on the logits of some keys is one more feature of queries and keys, [q, 1] . [k, b / scale], and not a mask:
flash kernels take no mask, networks that have a mask of their own keep it, and rows of the batch without a bias have
a zero there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.functional import pad, scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from unstill.families.reference_keys import ReferenceKeys


_NAMES = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa")
ALIGNMENT = 8  # flash kernels require head dimensions that are multiples of it
QUERIES = 256  # maximum number of queries of which the attention mass is measured, evenly spaced


def biased(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    keys: slice,
    bias: torch.Tensor,
    scale: float | None = None,
    **options: Any,
) -> torch.Tensor:
    """
    Attention whose logits have `bias` added at the keys `keys`, without a mask.

    Args:
        query, key, value: `(N, heads, tokens, d)`; keys may have fewer heads.
        keys: which tokens.
        bias: one number for every row of the batch, `(N,)`.
        scale: of the logits; by default `1 / sqrt(d)`.
        **options: further arguments of `scaled_dot_product_attention`.

    Returns:
        `(N, heads, tokens, d)`.
    """
    width, values = query.shape[-1], value.shape[-1]
    scale = width**-0.5 if scale is None else scale
    extra = -width % ALIGNMENT or ALIGNMENT  # columns: the feature, then zeros
    query, key = pad(query, (0, extra)), pad(key, (0, extra))
    query[..., width] = 1
    key[..., keys, width] = (bias.to(key) / scale).view(-1, *[1] * (key.ndim - 2))
    value = pad(value, (0, query.shape[-1] - values))
    return scaled_dot_product_attention(query, key, value, scale=scale, **options)[..., :values]


def attention_mass(
    query: torch.Tensor, key: torch.Tensor, keys: slice, queries: slice, scale: float | None = None
) -> torch.Tensor:
    """
    The share of attention that goes to the keys `keys`, `(N,)`: the mean over heads and over at most `QUERIES` of the
    queries `queries`.
    """
    selected = query[..., queries, :]
    index = torch.linspace(0, selected.shape[-2] - 1, min(QUERIES, selected.shape[-2])).long()
    selected = selected[..., index.to(selected.device), :].float()
    groups = query.shape[-3] // key.shape[-3]
    logits = selected @ key.float().repeat_interleave(groups, -3).mT * (scale or query.shape[-1] ** -0.5)
    return logits.softmax(-1)[..., keys].sum(-1).flatten(1).mean(1)


class ReferenceAttention(TorchFunctionMode):
    """
    While entered, in this thread, adds `bias` to the logits of the reference keys in every self-attention over all
    video tokens.

    Args:
        keys: where the tokens of the first latent frame are.
        bias: one number for each row of the network's batch.
        measured: receives the attention mass of every such attention, a number for each row of the network's batch,
            before the bias; `None`: it is not measured.

    Attributes:
        count: self-attentions over all video tokens so far.
        inside: whether the current attention is one whose keys are meant; with temporal keys only temporal attention.
    """

    def __init__(
        self, keys: ReferenceKeys, bias: Sequence[float], measured: Callable[[torch.Tensor], Any] | None = None
    ) -> None:
        super().__init__()
        self.keys, self.bias, self.measured = keys, tuple(bias), measured
        self.count, self.inside = 0, not keys.temporal

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not scaled_dot_product_attention or not self.inside:
            return func(*args, **kwargs)
        arguments = dict(zip(_NAMES, args, strict=False)) | kwargs
        query, key, value = arguments.pop("query"), arguments.pop("key"), arguments.pop("value")
        tokens = key.shape[-2]
        offset = self.keys.offset(tokens)
        if query.shape[-2] != tokens or offset is None:
            return func(*args, **kwargs)
        self.count += 1
        keys = slice(offset, offset + self.keys.reference)
        if self.measured is not None:
            later = slice(keys.stop, offset + self.keys.tokens)
            mass = attention_mass(query, key, keys, later, arguments.get("scale"))
            self.measured(mass.view(len(self.bias), -1).mean(1))
        if not any(self.bias):
            return func(*args, **kwargs)
        bias = torch.tensor(self.bias, device=key.device).repeat_interleave(len(key) // len(self.bias))
        return biased(query, key, value, keys, bias, **arguments)


@contextmanager
def reference_attention(network: torch.nn.Module, mode: ReferenceAttention, temporal: str = "") -> Iterator[None]:
    """
    Enters `mode` for one call of a network, which runs without compilation: a compiled graph does not see the mode.

    Args:
        network: the network.
        mode: with bias and measure.
        temporal: the class name of the modules whose attention is meant, where the keys are temporal ones.
    """

    def enter(module: torch.nn.Module, args: Any) -> None:
        mode.inside = True

    def leave(module: torch.nn.Module, args: Any, output: Any) -> None:
        mode.inside = False

    handles = []
    if temporal:
        for module in network.modules():
            if type(module).__name__ == temporal:
                handles += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
    try:
        with torch.compiler.set_stance("force_eager"), mode:
            yield
    finally:
        for handle in handles:
            handle.remove()


def attends_by_torch(module: torch.nn.Module) -> bool:
    """Whether no attention processor of a network was given a backend other than PyTorch's own."""
    backends = [getattr(getattr(layer, "processor", None), "_attention_backend", None) for layer in module.modules()]
    return all(backend is None or "native" in str(getattr(backend, "value", backend)) for backend in backends)
