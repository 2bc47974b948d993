"""Weights and lists that the tests of the papers' models share."""

import gzip
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


GOLDEN = Path(__file__).parents[1] / "golden" / "models"
DC_TINY: dict[str, Any] = {
    "sample_size": (16, 16),
    "num_frames": 4,
    "block_out_channels": (32, 64),
    "layers_per_block": 1,
    "attention_levels": 2,
    "attention_head_dim": 16,
    "cross_attention_dim": 24,
}
VC_TINY = DC_TINY | {"in_channels": 4, "default_fps": 16}
LAVIE: dict[str, Any] = {"cross_attention_dim": 768}
LAVIE_TINY: dict[str, Any] = {
    "block_out_channels": (40, 80),
    "layers_per_block": 1,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "norm_num_groups": 8,
    "cross_attention_dim": 24,
    "attention_head_dim": (1, 2),
}


def released(name: str, prefix: str = "") -> dict[str, list[int]]:
    """Keys and shapes of a released checkpoint, those that begin with `prefix`, without it."""
    shapes = json.loads(gzip.decompress((GOLDEN / f"{name}.json.gz").read_bytes()))
    return {key.removeprefix(prefix): shape for key, shape in shapes.items() if key.startswith(prefix)}


def shapes(module: nn.Module) -> dict[str, list[int]]:
    return {key: list(value.shape) for key, value in module.state_dict().items()}


def golden_weights(layout: dict[str, list[int]], seed: int) -> dict[str, Tensor]:
    """The weights that the goldens were made with, by the recipe of tests/golden/models/README.md."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for key in sorted(layout):
        shape = layout[key]
        r = torch.randn(shape, generator=generator)
        if not shape:
            weights[key] = 0.3 + 0.1 * r
        elif len(shape) == 1:
            weights[key] = 1 + 0.1 * r if key.endswith("weight") else 0.05 * r
        else:
            weights[key] = r * 0.7 / r[0].numel() ** 0.5
    return weights


def with_golden_weights(module: nn.Module, seed: int) -> Any:
    module.load_state_dict(golden_weights(shapes(module), seed))
    return module.eval()
