"""Memory of fine-tuning at full size, by calculation: no accelerator and no weights are needed.

    python benchmarks/training_memory.py              # half a minute on one core

The networks are built on torch's meta device, which knows shapes and holds no numbers, and run forwards once. Counted
are the bytes that autograd keeps for the backward pass. With gradient checkpointing these are the inputs of the
checkpointed blocks, what lies outside of them, and, for a moment, the inside of the largest block. Attention counts as
a fused kernel keeps it: queries, keys, values, output and one number per row. Activations in bf16; autocast keeps the
inputs of normalisations in float32 as well, so the truth lies up to a third higher. Batch 1.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import CogVideoXTransformer3DModel, UNetSpatioTemporalConditionModel, WanTransformer3DModel
from torch import Tensor, nn
from torch.nn import functional

from unstill.models.dynamicrafter import DynamiCrafterUNet


GB = 1e9


class FusedAttention(torch.autograd.Function):
    """What a fused kernel keeps; the result has the right shape and no meaning."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = torch.empty((*q.shape[:-1], v.shape[-1]), device=q.device, dtype=q.dtype)
        ctx.save_for_backward(q, k, v, out, torch.empty(q.shape[:-1], device=q.device))
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        raise NotImplementedError


class Count:
    """Bytes kept for the backward pass, each storage once; weights do not count."""

    def __init__(self, network: nn.Module) -> None:
        self._weights = {p.untyped_storage()._cdata for p in network.parameters()}
        self._seen: list[Tensor] = []  # alive, so that a storage's address stays taken
        self._keys: set[int] = set()
        self.bytes = 0

    def __call__(self, x: Tensor) -> Tensor:
        key = x.untyped_storage()._cdata
        if key not in self._keys and key not in self._weights:
            self._keys.add(key)
            self._seen.append(x)
            self.bytes += x.untyped_storage().nbytes()
        return x


def activations(network: Any, call: Callable[[], Any], checkpointing: bool) -> float:
    """Gigabytes of one clip."""
    outside, largest = Count(network), 0

    def block(function: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal largest
        for x in (*args, *kwargs.values()):
            if isinstance(x, Tensor):
                outside(x)
        inside = Count(network)
        with torch.autograd.graph.saved_tensors_hooks(inside, lambda x: x):
            made = function(*args, **kwargs)
        largest = max(largest, inside.bytes)
        return made

    network.disable_gradient_checkpointing()
    if checkpointing:
        network.enable_gradient_checkpointing(block)
    real = functional.scaled_dot_product_attention
    functional.scaled_dot_product_attention = lambda query, key, value, *_, **__: FusedAttention.apply(
        query, key, value
    )
    try:
        with torch.autograd.graph.saved_tensors_hooks(outside, lambda x: x):
            call()
    finally:
        functional.scaled_dot_product_attention = real
    return (outside.bytes + largest) / GB


def _fused(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> Any:
    return FusedAttention.apply(query, key, value)


def svd(frames: int, height: int, width: int) -> tuple[Any, Callable[[], Any]]:
    with torch.device("meta"):
        network = UNetSpatioTemporalConditionModel().to(torch.bfloat16).to("meta").train()
        x = torch.empty(1, frames, 8, height // 8, width // 8, dtype=torch.bfloat16)
        tokens, ids = torch.empty(1, 1, 1024, dtype=torch.bfloat16), torch.empty(1, 3)
        t = torch.empty(1)
    return network, lambda: network(x, t, tokens, ids, return_dict=False)


def dynamicrafter(frames: int, height: int, width: int) -> tuple[Any, Callable[[], Any]]:
    import unstill.models.dynamicrafter.layers as layers

    layers.scaled_dot_product_attention = lambda q, k, v: FusedAttention.apply(q, k, v)  # type: ignore[assignment]
    with torch.device("meta"):
        network = DynamiCrafterUNet(num_frames=frames).to(torch.bfloat16).train()
        x = torch.empty(1, 8, frames, height // 8, width // 8, dtype=torch.bfloat16)
        context = torch.empty(1, 77 + 16 * frames, 1024, dtype=torch.bfloat16)
        t, fps = torch.zeros(1, dtype=torch.long), torch.zeros(1, dtype=torch.long)
    return network, lambda: network(x, t, context, fps, return_dict=False)


def wan(frames: int, height: int, width: int) -> tuple[Any, Callable[[], Any]]:
    """Wan 2.1 image-to-video, 14 B."""
    latents = 1 + (frames - 1) // 4
    with torch.device("meta"):
        network = (
            WanTransformer3DModel(in_channels=36, image_dim=1280, added_kv_proj_dim=5120).to(torch.bfloat16).train()
        )
        x = torch.empty(1, 36, latents, height // 8, width // 8, dtype=torch.bfloat16)
        text, tokens = (torch.empty(1, n, width, dtype=torch.bfloat16) for n, width in ((512, 4096), (257, 1280)))
        t = torch.empty(1)
    return network, lambda: network(x, t, text, tokens, return_dict=False)


def cogvideox(frames: int, height: int, width: int) -> tuple[Any, Callable[[], Any]]:
    """CogVideoX 5B image-to-video; its rotary positions keep nothing."""
    latents = 1 + (frames - 1) // 4
    with torch.device("meta"):
        network = CogVideoXTransformer3DModel(
            num_attention_heads=48,
            in_channels=32,
            num_layers=42,
            use_rotary_positional_embeddings=True,
            use_learned_positional_embeddings=True,
        )
        network = network.to(torch.bfloat16).train()
        x = torch.empty(1, latents, 32, height // 8, width // 8, dtype=torch.bfloat16)
        text, t = torch.empty(1, 226, 4096, dtype=torch.bfloat16), torch.zeros(1, dtype=torch.long)
    return network, lambda: network(x, text, t, return_dict=False)


def lora_parameters(network: nn.Module, rank: int = 32) -> int:
    """Of a LoRA beside to_q, to_k, to_v and to_out."""
    found = 0
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Linear) and name.endswith(("to_q", "to_k", "to_v", "to_out.0")):
            found += rank * (layer.in_features + layer.out_features)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    rows = []
    for name, build, frames, height, width in (
        ("SVD", svd, 14, 320, 512),
        ("SVD", svd, 14, 576, 1024),
        ("DynamiCrafter", dynamicrafter, 16, 320, 512),
        ("CogVideoX 5B", cogvideox, 49, 480, 720),
        ("Wan 2.1 14B", wan, 49, 480, 832),
    ):
        network, call = build(frames, height, width)
        n = sum(p.numel() for p in network.parameters())
        added = lora_parameters(network)
        plain, checkpointed = (activations(network, call, on) for on in (False, True))
        full = 16 * n / GB  # weights, gradients and two moments in float32
        copy = 2 * n / GB  # autocast's, in bf16
        rows.append(
            {
                "network": f"{name}, {frames} x {width}x{height}",
                "parameters": n,
                "weights, gradients, Adam (float32)": full,
                "bf16 copy of the weights": copy,
                "average (float32)": 4 * n / GB,
                "activations": plain,
                "activations, checkpointed": checkpointed,
                "all weights": full + copy + 4 * n / GB + checkpointed,
                "LoRA of rank 32": copy + 16 * added / GB + checkpointed,  # the weights themselves in bf16
            }
        )
    columns = list(rows[0])
    print("| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|")
    for row in rows:
        cells = [
            f"{v / GB:.2f} B" if k == "parameters" else v if isinstance(v, str) else f"{v:.1f} GB"
            for k, v in row.items()
        ]
        print("| " + " | ".join(cells) + " |")
    if chosen.json:
        chosen.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
