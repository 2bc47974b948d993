"""How much of a training step the encoding of its clip is, where latents are not cached: by counting, at full size.

    python benchmarks/encoder_share.py  # half a minute on one core

Networks and autoencoders are built on torch's meta device, which holds no numbers, and run forwards once; torch counts
the multiplications and additions of matrix products, convolutions and attention. The backward pass counts as two
forward passes. Text and image encoders, and the precision (the autoencoder runs in float32), are left out.
"""

import json
from collections.abc import Callable
from typing import Any

import torch
from diffusers import AutoencoderKLCogVideoX, AutoencoderKLTemporalDecoder, AutoencoderKLWan
from torch.utils.flop_counter import FlopCounterMode
from training_memory import cogvideox, svd, wan


STABLE_DIFFUSION = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
}
COGVIDEOX = {
    "down_block_types": ("CogVideoXDownBlock3D",) * 4,
    "up_block_types": ("CogVideoXUpBlock3D",) * 4,
    "block_out_channels": (128, 256, 256, 512),
    "layers_per_block": 3,
    "latent_channels": 16,
}


def operations(call: Callable[[], Any]) -> float:
    """Multiplications and additions of a call, in units of 10^12."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        call()
    return counter.get_total_flops() / 1e12


def encoding(kind: Any, settings: dict[str, Any], frames: int, height: int, width: int) -> float:
    with torch.device("meta"):
        autoencoder = kind(**settings)
        frame_by_frame = kind is AutoencoderKLTemporalDecoder
        shape = (1, 3, height, width) if frame_by_frame else (1, 3, frames, height, width)
        pixels = torch.empty(shape)
    return operations(lambda: autoencoder.encode(pixels)) * (frames if frame_by_frame else 1)


def main() -> None:
    rows = []
    for name, build, kind, settings, frames, height, width in (
        ("SVD", svd, AutoencoderKLTemporalDecoder, STABLE_DIFFUSION, 14, 320, 512),
        ("SVD", svd, AutoencoderKLTemporalDecoder, STABLE_DIFFUSION, 14, 576, 1024),
        ("CogVideoX 5B", cogvideox, AutoencoderKLCogVideoX, COGVIDEOX, 49, 480, 720),
        ("Wan 2.1 14B", wan, AutoencoderKLWan, {}, 49, 480, 832),
    ):
        _, call = build(frames, height, width)
        forward, encoder = operations(call), encoding(kind, settings, frames, height, width)
        rows.append(
            {
                "clip": f"{name}, {frames} frames of {width}x{height}",
                "forward pass, 10^12": round(forward, 1),
                "encoding, 10^12": round(encoder, 1),
                "encoding / step": round(encoder / (3 * forward), 3),
            }
        )
    print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
