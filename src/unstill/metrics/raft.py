"""
RAFT optical flow (Teed and Deng, ECCV 2020) in plain torch, both sizes.

Written from the paper and checked value by value against the released network. Parameter names are those of the
released `raft-things.pth` family; checkpoints of torchvision (`raft_large`, `raft_small`) are renamed on loading.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from unstill.errors import UnstillError
from unstill.metrics.video_checks import check_uint8
from unstill.metrics.weights import read_weights


_LEVELS = 4  # correlation pyramid, both sizes


def _norm(kind: str, channels: int) -> nn.Module:
    if kind == "instance":
        return nn.InstanceNorm2d(channels)
    return nn.BatchNorm2d(channels) if kind == "batch" else nn.Identity()


class _Residual(nn.Module):
    """Two 3x3 convolutions, or 1x1-3x3-1x1 at a quarter of the width, beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int, norm: str, bottleneck: bool) -> None:
        super().__init__()
        if bottleneck:
            width = outputs // 4
            plan = [(inputs, width, 1, 1), (width, width, 3, stride), (width, outputs, 1, 1)]
        else:
            plan = [(inputs, outputs, 3, stride), (outputs, outputs, 3, 1)]
        self.depth = len(plan)
        for number, (before, after, kernel, step) in enumerate(plan, start=1):
            self.add_module(f"conv{number}", nn.Conv2d(before, after, kernel, step, kernel // 2))
            self.add_module(f"norm{number}", _norm(norm, after))
        self.downsample = None
        if stride > 1:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride), _norm(norm, outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for number in range(1, self.depth + 1):
            y = getattr(self, f"norm{number}")(getattr(self, f"conv{number}")(y)).relu()
        return ((x if self.downsample is None else self.downsample(x)) + y).relu()


class _Encoder(nn.Module):
    """(N, 3, H, W) in [-1, 1] to (N, outputs, H/8, W/8)."""

    def __init__(self, outputs: int, norm: str, small: bool) -> None:
        super().__init__()
        widths = (32, 32, 64, 96) if small else (64, 64, 96, 128)
        self.conv1 = nn.Conv2d(3, widths[0], 7, 2, 3)
        self.norm1 = _norm(norm, widths[0])
        layers = []
        for before, after, stride in zip(widths, widths[1:], (1, 2, 2), strict=False):
            blocks = (_Residual(before, after, stride, norm, small), _Residual(after, after, 1, norm, small))
            layers.append(nn.Sequential(*blocks))
        self.layer1, self.layer2, self.layer3 = layers
        self.conv2 = nn.Conv2d(widths[-1], outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(self.conv1(x)).relu()
        for layer in (self.layer1, self.layer2, self.layer3):
            x = layer(x)
        return self.conv2(x)


class _MotionEncoder(nn.Module):
    def __init__(self, correlations: int, small: bool) -> None:
        super().__init__()
        self.convc1 = nn.Conv2d(correlations, 96 if small else 256, 1)
        if not small:
            self.convc2 = nn.Conv2d(256, 192, 3, padding=1)
        first, second = (64, 32) if small else (128, 64)
        self.convf1 = nn.Conv2d(2, first, 7, padding=3)
        self.convf2 = nn.Conv2d(first, second, 3, padding=1)
        self.conv = nn.Conv2d((96 if small else 192) + second, 80 if small else 126, 3, padding=1)
        self.small = small

    def forward(self, flow: Tensor, correlation: Tensor) -> Tensor:
        c = self.convc1(correlation).relu()
        if not self.small:
            c = self.convc2(c).relu()
        f = self.convf2(self.convf1(flow).relu()).relu()
        return torch.cat([self.conv(torch.cat([c, f], 1)).relu(), flow], 1)


class _GRU(nn.Module):
    """One 3x3 convolutional GRU (names `convz` ...), or a 1x5 after which a 5x1 (`convz1`, `convz2` ...)."""

    def __init__(self, hidden: int, inputs: int, small: bool) -> None:
        super().__init__()
        self.passes = [("", (3, 3))] if small else [("1", (1, 5)), ("2", (5, 1))]
        for suffix, kernel in self.passes:
            padding = (kernel[0] // 2, kernel[1] // 2)
            for gate in ("convz", "convr", "convq"):
                self.add_module(gate + suffix, nn.Conv2d(hidden + inputs, hidden, kernel, padding=padding))

    def forward(self, h: Tensor, x: Tensor) -> Tensor:
        for suffix, _ in self.passes:
            hx = torch.cat([h, x], 1)
            z = getattr(self, "convz" + suffix)(hx).sigmoid()
            r = getattr(self, "convr" + suffix)(hx).sigmoid()
            q = getattr(self, "convq" + suffix)(torch.cat([r * h, x], 1)).tanh()
            h = (1 - z) * h + z * q
        return h


class _FlowHead(nn.Module):
    def __init__(self, hidden: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(hidden, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.conv1(x).relu())


class _Update(nn.Module):
    def __init__(self, hidden: int, context: int, correlations: int, small: bool) -> None:
        super().__init__()
        self.encoder = _MotionEncoder(correlations, small)
        self.gru = _GRU(hidden, context + (82 if small else 128), small)
        self.flow_head = _FlowHead(hidden, 128 if small else 256)
        if not small:
            self.mask = nn.Sequential(nn.Conv2d(128, 256, 3, padding=1), nn.ReLU(), nn.Conv2d(256, 64 * 9, 1))

    def forward(self, h: Tensor, context: Tensor, correlation: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
        h = self.gru(h, torch.cat([context, self.encoder(flow, correlation)], 1))
        return h, self.flow_head(h)


class _Correlation:
    """
    Correlations of every position of one feature map with a (2r+1)^2 window of the other, on 4 pyramid levels.

    Averaging the all-pairs volume over the second picture equals correlating with averaged features, so that the whole
    volume is not needed: with `low_memory` it is computed for a few rows at a time, in every iteration.
    """

    def __init__(self, first: Tensor, second: Tensor, radius: int, low_memory: bool) -> None:
        self.batch, channels, self.height, self.width = first.shape
        self.first = first.flatten(2).transpose(1, 2) / channels**0.5  # (N, h*w, C)
        self.second = [second]
        for _ in range(_LEVELS - 1):
            self.second.append(functional.avg_pool2d(self.second[-1], 2))
        steps = torch.arange(-radius, radius + 1, device=first.device, dtype=first.dtype)
        # The window is read column by column: the released weights expect x to vary slowest.
        self.window = torch.stack(torch.meshgrid(steps, steps, indexing="ij"), -1)  # (2r+1, 2r+1, 2) as (x, y)
        self.volumes = None if low_memory else [self._volume(level, self.first) for level in range(_LEVELS)]

    def _volume(self, level: int, first: Tensor) -> Tensor:
        second = self.second[level]
        return (first @ second.flatten(2)).unflatten(2, second.shape[2:])  # (N, p, h2, w2)

    def __call__(self, coordinates: Tensor) -> Tensor:
        """`coordinates` (N, h, w, 2) as (x, y) to correlations (N, 4*(2r+1)^2, h, w)."""
        points = coordinates.flatten(1, 2)  # (N, h*w, 2)
        rows = points.shape[1] if self.volumes is not None else 8 * self.width
        parts = [
            torch.cat([self._look(level, points, start, rows) for level in range(_LEVELS)], -1)
            for start in range(0, points.shape[1], rows)
        ]
        return torch.cat(parts, 1).transpose(1, 2).unflatten(2, (self.height, self.width))

    def _look(self, level: int, points: Tensor, start: int, rows: int) -> Tensor:
        points = points[:, start : start + rows]
        if self.volumes is not None:
            volume = self.volumes[level]
        else:
            volume = self._volume(level, self.first[:, start : start + rows])
        height, width = volume.shape[2:]
        positions = points[:, :, None, None] / 2**level + self.window  # (N, p, 2r+1, 2r+1, 2)
        # (Pixel centres at whole numbers; outside the picture the correlation counts as 0.)
        grid = positions * positions.new_tensor([2 / max(width - 1, 1), 2 / max(height - 1, 1)]) - 1
        sampled = functional.grid_sample(volume.flatten(0, 1)[:, None], grid.flatten(0, 1), align_corners=True)
        return sampled.reshape(self.batch, points.shape[1], -1)


class RAFT(nn.Module):
    """
    Recurrent all-pairs field transforms. `small=True` is the variant of one million parameters.

    `low_memory=True` does not hold the all-pairs correlation volume, for some more time; the flow is the same.
    """

    def __init__(self, small: bool = False, low_memory: bool = False) -> None:
        super().__init__()
        self.low_memory = low_memory
        self.hidden, context, self.radius = (96, 64, 3) if small else (128, 128, 4)
        self.fnet = _Encoder(128 if small else 256, "instance", small)
        self.cnet = _Encoder(self.hidden + context, "none" if small else "batch", small)
        self.update_block = _Update(self.hidden, context, _LEVELS * (2 * self.radius + 1) ** 2, small)
        self.small = small

    def encode(self, frame: Tensor) -> Tensor:
        """Matching features (N, C, H/8, W/8) of frames (N, 3, H, W) in 0..255, H and W multiples of 8."""
        return self.fnet(frame * (2 / 255) - 1)

    def forward(
        self, first: Tensor, second: Tensor, iterations: int = 20, features: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """
        Flow from `first` to `second`, both (N, 3, H, W) in 0..255: (N, 2, H/8, W/8) and (N, 2, H, W).

        `features`: the results of `encode` for the two, so that every frame of a video is encoded once.
        """
        before, after = features or (self.encode(first), self.encode(second))
        correlation = _Correlation(before, after, self.radius, self.low_memory)
        state = self.cnet(first * (2 / 255) - 1)
        h, context = state[:, : self.hidden].tanh(), state[:, self.hidden :].relu()
        rows, columns = (torch.arange(n, device=first.device, dtype=first.dtype) for n in before.shape[2:])
        origin = torch.stack(torch.meshgrid(columns, rows, indexing="xy"))  # (2, h, w) as (x, y)
        flow = torch.zeros_like(origin).expand(len(first), -1, -1, -1)
        for _ in range(iterations):
            correlations = correlation((origin + flow).permute(0, 2, 3, 1))
            h, change = self.update_block(h, context, correlations, flow)
            flow = flow + change
        return flow, self._upsample(flow, h)

    def _upsample(self, flow: Tensor, h: Tensor) -> Tensor:
        if self.small:
            return 8 * functional.interpolate(flow, scale_factor=8, mode="bilinear", align_corners=True)
        n, _, height, width = flow.shape
        # Every fine pixel is a convex mixture of the 3x3 coarse ones around it; 0.25 balances gradients in training.
        mixture = (0.25 * self.update_block.mask(h)).view(n, 1, 9, 8, 8, height, width).softmax(2)
        around = functional.unfold(8 * flow, 3, padding=1).view(n, 2, 9, 1, 1, height, width)
        fine = (mixture * around).sum(2)  # (N, 2, 8, 8, h, w)
        return fine.permute(0, 1, 4, 2, 5, 3).reshape(n, 2, 8 * height, 8 * width)

    @classmethod
    def load(cls, path: str | Path, low_memory: bool = False) -> RAFT:
        """The network of a checkpoint file (.pth, .pt or .safetensors) of princeton-vl/RAFT or torchvision."""
        return cls.of(read_weights(path), low_memory)

    @classmethod
    def of(cls, weights: dict[str, Tensor], low_memory: bool = False) -> RAFT:
        """The network of a state dict; the names show which of the two sizes it is."""
        weights = _released_names(weights)
        model = cls(small="update_block.gru.convz.weight" in weights, low_memory=low_memory)
        try:
            model.load_state_dict(weights)
        except RuntimeError as error:
            raise UnstillError(
                "These weights are not of RAFT (neither size fits); expected a checkpoint of princeton-vl/RAFT, such "
                "as raft-things.pth, or of torchvision's raft_large or raft_small."
            ) from error
        return model.eval().requires_grad_(False)


_TORCHVISION = [
    (r"^feature_encoder\.", "fnet."),
    (r"^context_encoder\.", "cnet."),
    (r"(?<=net\.)convnormrelu\.0", "conv1"),
    (r"(?<=net\.)convnormrelu\.1", "norm1"),
    (r"(?<=net\.)conv\.", "conv2."),
    (r"convnormrelu(\d)\.0", r"conv\1"),
    (r"convnormrelu(\d)\.1", r"norm\1"),
    (r"motion_encoder\.conv(c|f)(orr|low)(\d)\.0", r"encoder.conv\1\3"),
    (r"motion_encoder\.conv\.0", "encoder.conv"),
    (r"^mask_predictor\.convrelu\.0", "update_block.mask.0"),
    (r"^mask_predictor\.conv\.", "update_block.mask.2."),
]


def _released_names(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    weights = {key.removeprefix("module."): value for key, value in weights.items()}  # saved from DataParallel
    if any(key.startswith("feature_encoder.") for key in weights):
        passes = any(".convgru2." in key for key in weights)  # two passes are numbered, a single one is not
        for pattern, replacement in _TORCHVISION:
            weights = {re.sub(pattern, replacement, key): value for key, value in weights.items()}
        gate = (r"recurrent_block\.convgru(\d)\.(conv[zrq])", r"gru.\2\1" if passes else r"gru.\2")
        return {re.sub(*gate, key): value for key, value in weights.items()}
    # The release registers the norm of a shortcut twice: as norm3 of its block and inside `downsample`.
    return {re.sub(r"\.norm3\.", ".downsample.1.", key): value for key, value in weights.items()}


class RaftFlow:
    """
    A flow engine (see `unstill.metrics.flow`) of a RAFT network; 20 iterations, as in its own demonstration.

    Frames are padded to multiples of 8 by their border, evenly on both sides, and the flow is cut back.
    """

    def __init__(self, model: RAFT, iterations: int = 20) -> None:
        self.model, self.iterations = model, iterations

    @torch.no_grad()
    def __call__(self, video: Tensor) -> Iterator[Tensor]:
        video = check_uint8(video, frames=2)
        height, width = video.shape[2:]
        # Below 128 pixels the coarsest level of correlations (1/64) is one position wide: the released code divides by
        # zero there and returns NaN, here the positions outside count as 0 as on every other level.
        if min(height, width) < 64:
            raise UnstillError(f"RAFT needs frames of at least 64 x 64 pixels, got {height} x {width}; enlarge them.")
        wide, high = -width % 8, -height % 8
        left, top = wide // 2, high // 2
        parameter = next(self.model.parameters())

        def prepared(frame: Tensor) -> Tensor:
            return functional.pad(frame[None].to(parameter), (left, wide - left, top, high - top), mode="replicate")

        first = prepared(video[0])
        first_features = self.model.encode(first)
        for frame in video[1:]:
            second = prepared(frame)
            second_features = self.model.encode(second)
            flow = self.model(first, second, self.iterations, (first_features, second_features))[1][0]
            yield flow[:, top : top + height, left : left + width]
            first, first_features = second, second_features
