"""
C3D (Tran et al., ICCV 2015) fine-tuned on UCF101: class probabilities for the inception score of videos.

Reads `conv3d_deepnetA_ucf.npz` of pfnet-research/tgan2 together with its `mean2.npz`, or the scripted
`c3d_ucf101.pt` that StyleGAN-V made of them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from unstill.errors import UnstillError
from unstill.metrics.registry import metric
from unstill.metrics.video_checks import check_uint8
from unstill.metrics.weights import file_hash, is_torchscript, read_torchscript, read_weights


FRAMES, SIDE, CLASSES = 16, 112, 101


class C3DNetwork(nn.Sequential):
    """(N, 3, 16, 112, 112), BGR in 0..256 less the mean clip, to logits (N, 101) of UCF101."""

    def __init__(self) -> None:
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        blocks = [("1a", 3, 64), ("2a", 64, 128), ("3a", 128, 256), ("3b", 256, 256)]
        blocks += [("4a", 256, 512), ("4b", 512, 512), ("5a", 512, 512), ("5b", 512, 512)]
        for name, inputs, outputs in blocks:
            layers[f"conv{name}"] = nn.Conv3d(inputs, outputs, 3, padding=1)
            layers[f"relu{name}"] = nn.ReLU()
            if name in ("1a", "2a", "3b", "4b", "5b"):
                step = (1, 2, 2) if name == "1a" else (2, 2, 2)
                layers[f"pool{name[0]}"] = nn.MaxPool3d(step, step, ceil_mode=True)
        layers["flatten"] = nn.Flatten()
        layers["fc6"], layers["relu6"] = nn.Linear(512 * 4 * 4, 4096), nn.ReLU()
        layers["fc7"], layers["relu7"] = nn.Linear(4096, 4096), nn.ReLU()
        layers["fc8"] = nn.Linear(4096, CLASSES)
        super().__init__(layers)


def torch_names(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names of chainer's .npz (conv1a/W, conv1a/b) to those of `C3DNetwork`."""
    return {key.replace("/W", ".weight").replace("/b", ".bias"): value for key, value in weights.items()}


def preprocess_for_c3d(video: Tensor, mean: Tensor) -> Tensor:
    """uint8 (16, 3, H, W) to the network's input (3, 16, 112, 112); `mean` (3, 16, 128, 171), BGR, is cropped at 8."""
    pixels = check_uint8(video).float() * (2 / 255) - 1
    # Corners stay corners in the resize of the original.
    pixels = functional.interpolate(pixels, (SIDE, SIDE), mode="bilinear", align_corners=True)
    blue_first = pixels.flip(1).transpose(0, 1) * 128 + 128  # (3, 16, 112, 112)
    return blue_first - mean[:, :, 8 : 8 + SIDE, 8 : 8 + SIDE]


class C3D:
    """Class probabilities: uint8 video (16, 3, H, W) to (101,). Longer videos count by their first 16 frames."""

    def __init__(self, probabilities: Callable[[Tensor], Tensor], name: str) -> None:
        self.probabilities = probabilities
        self.name = f"c3d-{name}"

    @classmethod
    def load(cls, path: str | Path, mean: str | Path | None = None, device: str = "cpu") -> C3D:
        """From `conv3d_deepnetA_ucf.npz` with `mean2.npz`, or from `c3d_ucf101.pt`, which contains its mean."""
        if is_torchscript(path):
            script = read_torchscript(path).to(device)
            return cls(lambda video: script(video.transpose(0, 1)[None].to(device))[0], file_hash(path))
        weights = read_weights(path)
        if mean is None:
            raise UnstillError(f"The weights {path} need their mean clip: pass mean2.npz as well.")
        means = read_weights(mean).get("mean")
        if means is None or means.numel() != 3 * FRAMES * 128 * 171:
            raise UnstillError(f"{mean} does not hold a mean clip of 3 x 16 x 128 x 171 under the name 'mean'.")
        means = means.float().reshape(3, FRAMES, 128, 171)
        network = C3DNetwork()
        try:
            network.load_state_dict(torch_names(weights))
        except RuntimeError as error:
            raise UnstillError(
                f"{path} does not hold the weights of C3D; expected conv3d_deepnetA_ucf.npz or c3d_ucf101.pt."
            ) from error
        network = network.eval().requires_grad_(False).to(device)
        return cls(
            lambda video: network(preprocess_for_c3d(video, means)[None].to(device))[0].softmax(0),
            f"{file_hash(path)}-{file_hash(mean)}",
        )

    @torch.no_grad()
    def __call__(self, video: Tensor) -> Tensor:
        if len(video) < FRAMES:
            raise UnstillError(f"C3D needs {FRAMES} frames, the video has {len(video)}.")
        return self.probabilities(check_uint8(video[:FRAMES])).float().cpu()


@metric("c3d_probabilities", label=None, needs={"c3d"})
def c3d_probabilities(video: Tensor, c3d: C3D) -> Tensor:
    """The class probabilities of `C3D`, for the inception score."""
    return c3d(video)
