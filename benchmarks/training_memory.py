"""Memory of fine-tuning, by calculation: no accelerator and no weights are needed; and measured on tiny networks.

    python benchmarks/training_memory.py              # full size, a minute on one core
    python benchmarks/training_memory.py --tiny       # the calculation against one measured step, per family

The networks are built on torch's meta device, which knows shapes and holds no numbers, and run forwards once. Counted
are the bytes that autograd keeps for the backward pass. With gradient checkpointing these are the inputs of the
checkpointed blocks, what lies outside of them, and, for a moment, the inside of the largest block. Attention counts as
a fused kernel keeps it: queries, keys, values, output, one number per row, and the mask in their precision.
Activations in bf16; autocast keeps the inputs of normalisations in float32 as well, so the truth lies up to a third
higher. Batch 1.

Measured is the largest sum of what torch's allocator gave out at a time (its profiler reports every allocation),
during the forward pass, the backward pass and the update of Adam, of the tiny random networks of the tests in float32
on the CPU.
"""

import argparse
import copy
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    CogVideoXTransformer3DModel,
    HunyuanVideo15Transformer3DModel,
    LTXVideoTransformer3DModel,
    UNetSpatioTemporalConditionModel,
    WanTransformer3DModel,
)
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.profiler import ProfilerActivity, profile

from unstill.models.dynamicrafter import DynamiCrafterUNet


GB = 1e9
CLIPS = 16  # of a step of the tiny networks, so that activations count beside the weights
MORE_CLIPS = {"hunyuanvideo-1.5": 128}  # a layer of it is 2048 wide whatever its size


class FusedAttention(torch.autograd.Function):
    """What a fused kernel keeps; the result has the right shape and no meaning."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        out = torch.empty((*q.shape[:-1], v.shape[-1]), device=q.device, dtype=q.dtype)
        kept = () if mask is None else (mask.to(q.dtype),)
        ctx.save_for_backward(q, k, v, out, torch.empty(q.shape[:-1], device=q.device), *kept)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        raise NotImplementedError


class Shapes(TorchFunctionMode):
    """On the meta device: fused attention, and what depends on numbers as if no token were padding."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is functional.scaled_dot_product_attention:
            given = dict(zip(("query", "key", "value", "attn_mask"), args, strict=False)) | kwargs
            return FusedAttention.apply(given["query"], given["key"], given["value"], given.get("attn_mask"))
        if func is Tensor.__getitem__ and isinstance(args[1], Tensor) and args[1].dtype == torch.bool:
            return args[0][:0] if hasattr(args[1], "inverted") else args[0][:]
        made = func(*args, **kwargs)
        if func is Tensor.__invert__:
            made.inverted = True
        return torch.tensor(False) if func is torch.all else made


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
    with Shapes(), torch.autograd.graph.saved_tensors_hooks(outside, lambda x: x):
        call()
    return (outside.bytes + largest) / GB


def peak_beside_the_weights(numbers: int, kept: float) -> float:
    """
    Gigabytes beside weights, gradients and moments: what is kept for the backward pass, or, after that is gone, what
    Adam's update of these numbers takes, which is the root of the second moments of all of them at a time.
    """
    return max(kept, 4 * numbers / GB)


def calculated(network: nn.Module, given: dict[str, Tensor], call: Callable[..., Any]) -> tuple[float, float]:
    """Gigabytes of one step of a network in float32, and those of its weights, gradients and moments alone."""
    numbers = sum(p.numel() for p in network.parameters())
    shapes = copy.deepcopy(network).to("meta")
    batch = {name: value.to("meta") for name, value in given.items()}
    kept = activations(shapes, lambda: call(shapes, batch), checkpointing=False)
    return 16 * numbers / GB + peak_beside_the_weights(numbers, kept), 16 * numbers / GB


def measured(network: nn.Module, given: dict[str, Tensor], call: Callable[..., Any]) -> float:
    """Gigabytes that the same step takes: the weights and the peak of what is allocated beside them."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-6, foreach=True)  # as on an accelerator

    def step() -> None:
        loss = call(network, given).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()  # allocates the moments
        step()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    now, peak = 0, 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return (peak + sum(p.numel() * p.element_size() for p in network.parameters())) / GB


def tiny(name: str, clips: int) -> tuple[nn.Module, dict[str, Tensor], Callable[..., Any]]:
    """A tiny network of the tests, a batch for it, and its call in training."""
    from tests.training.test_families import PIPELINES, sample
    from unstill.data.seeding import generator_for
    from unstill.families.registry import training_for
    from unstill.training.encoded_dataset import Encoder
    from unstill.training.loss import batch_of
    from unstill.training.setup import schedule_for

    torch.manual_seed(0)
    factory, size, frames = PIPELINES[name]
    pipe = factory()
    family = training_for(pipe)
    network = getattr(pipe, family.denoiser).train().requires_grad_(True)
    clip = Encoder(pipe, family)(sample(size, frames), generator_for(0))
    given = batch_of([clip] * clips, torch.device("cpu"))
    levels = schedule_for(pipe, family, clip["latents"].shape).at(torch.full((clips,), 0.5))
    given |= {"noisy": levels.model_input(given["latents"]), "timestep": levels.timestep}

    def call(network: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        noise = torch.zeros_like(batch["timestep"])
        return family.predict(network, batch["noisy"], batch["timestep"], batch, noise)

    return network, given, call


def svd(frames: int, height: int, width: int) -> tuple[Any, Callable[[], Any]]:
    with torch.device("meta"):
        network = UNetSpatioTemporalConditionModel().to(torch.bfloat16).to("meta").train()
        x = torch.empty(1, frames, 8, height // 8, width // 8, dtype=torch.bfloat16)
        tokens, ids = torch.empty(1, 1, 1024, dtype=torch.bfloat16), torch.empty(1, 3)
        t = torch.empty(1)
    return network, lambda: network(x, t, tokens, ids, return_dict=False)


def dynamicrafter(frames: int, height: int, width: int) -> tuple[Any, Callable[[], Any]]:
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


def ltx(layers: int, head: int) -> Callable[..., Any]:
    """LTX-Video: 2 B with 28 layers of 32 heads of 64, 13 B with 48 of 128."""

    def build(frames: int, height: int, width: int) -> tuple[Any, Callable[[], Any]]:
        size = 1 + (frames - 1) // 8, height // 32, width // 32
        tokens = size[0] * size[1] * size[2]
        with torch.device("meta"):
            network = LTXVideoTransformer3DModel(
                num_layers=layers, attention_head_dim=head, cross_attention_dim=32 * head
            )
            network = network.to(torch.bfloat16).train()
            x = torch.empty(1, tokens, 128, dtype=torch.bfloat16)
            text, mask = torch.empty(1, 128, 4096, dtype=torch.bfloat16), torch.empty(1, 128)
            t = torch.empty(1, tokens)
        return network, lambda: network(x, text, t, mask, *size, (8 / 24, 32, 32), return_dict=False)

    return build


def hunyuan(frames: int, height: int, width: int) -> tuple[Any, Callable[[], Any]]:
    """HunyuanVideo 1.5: its attention has a mask for every pair of tokens."""
    latents = 1 + (frames - 1) // 4
    with torch.device("meta"):
        network = HunyuanVideo15Transformer3DModel().to(torch.bfloat16).train()
        x = torch.empty(1, 65, latents, height // 16, width // 16, dtype=torch.bfloat16)
        shapes = {"text": (1000, 3584), "glyphs": (256, 1472), "image": (729, 1152)}
        text, glyphs, image = (torch.empty(1, *shape, dtype=torch.bfloat16) for shape in shapes.values())
        t = torch.empty(1)
        masks = [torch.ones(1, n) for n in (1000, 256)]
    return network, lambda: network(
        x,
        t,
        text,
        masks[0],
        encoder_hidden_states_2=glyphs,
        encoder_attention_mask_2=masks[1],
        image_embeds=image,
        return_dict=False,
    )


def lora_parameters(network: nn.Module, rank: int = 32) -> int:
    """Of a LoRA beside to_q, to_k, to_v and to_out."""
    found = 0
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Linear) and name.endswith(("to_q", "to_k", "to_v", "to_out.0")):
            found += rank * (layer.in_features + layer.out_features)
    return found


def tiny_rows() -> None:
    """Prints the calculated and the measured memory of a step of every tiny network."""
    sys.path.insert(0, str(Path(__file__).parents[1]))  # for the tiny pipelines of the tests
    from tests.training.test_families import PIPELINES

    print("| network | clips | weights, gradients, Adam | calculated | measured | measured / calculated |")
    print("|---" * 6 + "|")
    for name in PIPELINES:
        clips = MORE_CLIPS.get(name, CLIPS)
        made = tiny(name, clips)
        (calculation, weights), truth = calculated(*made), measured(*made)
        cells = (f"{1e3 * x:.2f} MB" for x in (weights, calculation, truth))
        print(f"| {name} | {clips} | {' | '.join(cells)} | {truth / calculation:.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--tiny", action="store_true", help="measure the tiny networks instead")
    chosen = parser.parse_args()
    if chosen.tiny:
        tiny_rows()
        return
    rows = []
    for name, build, frames, height, width in (
        ("SVD", svd, 14, 320, 512),
        ("SVD", svd, 14, 576, 1024),
        ("DynamiCrafter", dynamicrafter, 16, 320, 512),
        ("CogVideoX 5B", cogvideox, 49, 480, 720),
        ("Wan 2.1 14B", wan, 49, 480, 832),
        ("LTX-Video 2B", ltx(28, 64), 97, 480, 704),
        ("LTX-Video 13B", ltx(48, 128), 97, 480, 704),
        ("HunyuanVideo 1.5", hunyuan, 61, 480, 832),
    ):
        network, call = build(frames, height, width)
        n = sum(p.numel() for p in network.parameters())
        added = lora_parameters(network)
        plain, checkpointed = (activations(network, call, on) for on in (False, True))
        full = 16 * n / GB  # weights, gradients and two moments in float32
        cast = 2 * n / GB  # autocast's copy, in bf16
        rows.append(
            {
                "network": f"{name}, {frames} x {width}x{height}",
                "parameters": n,
                "weights, gradients, Adam (float32)": full,
                "bf16 copy of the weights": cast,
                "average (float32)": 4 * n / GB,
                "activations": plain,
                "activations, checkpointed": checkpointed,
                "all weights": full + 4 * n / GB + peak_beside_the_weights(n, cast + checkpointed),
                "LoRA of rank 32": cast + 16 * added / GB + checkpointed,  # the weights themselves in bf16
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
