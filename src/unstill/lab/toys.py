"""
Measures of the toys of the synthetic world in a video. Unlike optical flow, they do not rise with flicker.

The toys of the image are known exactly. In every frame the pixels of a toy are found by its colours, as likelihoods
against those of the rest of the image (chromaticity, so that light and shadow do not matter). The toy's outline in the
image is then fitted to them: the shift and turn of the largest intersection over union (IoU) within the picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, avg_pool2d, conv2d, grid_sample, interpolate, max_pool2d

from unstill.data.synthetic_drawing import depth_inside
from unstill.data.synthetic_world import Scene


FITTED = 0.6
"""IoU below which a toy counts as lost in a frame; it does not travel there, because its position is unknown."""
BINS = 24
"""Bins of the histograms along each of the two axes of chromaticity."""
TURNS = (-0.24, -0.16, -0.08, 0.0, 0.08, 0.16, 0.24)
"""Rotations since the previous frame that are tried, in radians; toys of the world turn less than 0.2 per frame."""


@dataclass(frozen=True, slots=True)
class ToyMeasures:
    """
    Measures of one video, means over its toys and its frames after the first.

    Attributes:
        travel: path of the centre, % of the picture's side per frame, while the toy is not lost.
        outline: IoU of the toy and its outline in the image, shifted and turned to fit; 1 keeps its shape, a lost or
            dissolved toy is near 0.
        colour: overlap of the histograms of chromaticity on the toy, with the image; in [0, 1].
        background_error: RMS change of the background from frame to frame that no shift, turn, zoom or shear of the
            camera explains; of colours in [0, 1].
    """

    travel: float
    outline: float
    colour: float
    background_error: float


def toy_masks(scene: Scene, size: int) -> Tensor:
    """Where the toys of one scene are visible in its first frame: (S, size, size) bool, only those present.

    Args:
        scene: of one clip.
        size: side in pixels.
    """
    axis = (torch.arange(size) + 0.5) / size
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    masks: list[Tensor] = []
    for s in range(scene.present.shape[1]):
        if scene.present[0, s] <= 0:
            continue
        dx, dy = x - scene.centre[0, s, 0], y - scene.centre[0, s, 1]
        radius, angle = torch.hypot(dx, dy), torch.atan2(dy, dx) - scene.angle[0, s]
        shape, size_of_toy = (value[0, s].expand(1, 1, 1, 1) for value in (scene.shape, scene.radius))
        inside = depth_inside(shape, size_of_toy, radius[None, None], angle[None, None])[0, 0] > 0
        masks = [mask & ~inside for mask in masks] + [inside]  # later toys are drawn in front
    return torch.stack(masks) if masks else torch.zeros(0, size, size, dtype=torch.bool)


def measure_toys(video: Tensor, image: Tensor, masks: Tensor) -> ToyMeasures | None:
    """
    Measures a video of the synthetic world.

    Args:
        video: (F, 3, H, W) in [0, 1].
        image: (3, H, W), the picture that it should start from.
        masks: (S, H, W) bool, the toys of the picture, see `toy_masks`.

    Returns:
        The measures; `None` for a picture without toys.
    """
    masks = masks[masks.flatten(1).any(1)]
    if not len(masks):
        return None
    frames = torch.cat([image[None], video])
    chroma = _chromaticity(frames)
    bins = _bins(chroma)
    travels, outlines, colours = [], [], []
    for mask in masks:
        segments = _segment(bins, mask)
        centres, overlap, regions = _fit(segments, mask)
        fitted = overlap[1:] >= FITTED
        steps = (centres[2:] - centres[1:-1]).norm(dim=-1)
        travels.append(float((steps * (fitted[1:] & fitted[:-1])).sum()) / max(len(steps), 1))
        outlines.append(float(overlap[2:].mean()))
        in_image = _histogram(bins[0], mask.float())
        shares = [torch.minimum(in_image, _histogram(b, r)).sum() for b, r in zip(bins[2:], regions[2:], strict=True)]
        colours.append(float(torch.stack(shares).mean()))
    any_toy = torch.stack([_segment(bins, mask) for mask in masks]).amax(0)
    return ToyMeasures(
        travel=100 * _mean(travels),
        outline=_mean(outlines),
        colour=_mean(colours),
        background_error=_background_error(video, any_toy[1:]),
    )


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _chromaticity(frames: Tensor) -> Tensor:
    """(F, 3, H, W) to two opponent colours over intensity, (F, 2, H, W) in about [-1.5, 1.5]."""
    smooth = avg_pool2d(frames, 3, 1, 1, count_include_pad=False)  # the chromaticity of single dark pixels is noise
    red, green, blue = smooth.unbind(1)
    light = smooth.mean(1) + 0.05
    return torch.stack([(red - green) / light, ((red + green) / 2 - blue) / light], 1)


def _bins(chroma: Tensor) -> Tensor:
    """Chromaticity (F, 2, H, W) to indices of histogram cells, (F, H, W)."""
    cell = ((chroma + 1.5) / 3 * BINS).long().clamp(0, BINS - 1)
    return cell[:, 0] * BINS + cell[:, 1]


def _histogram(bins: Tensor, weight: Tensor) -> Tensor:
    """The histogram of one frame, smoothed over neighbouring cells; sums to 1, or to 0 without any pixel."""
    counts = torch.zeros(BINS * BINS).index_add_(0, bins.flatten(), weight.flatten().float())
    kernel = torch.tensor([1.0, 2.0, 1.0]) / 4
    smooth = conv2d(counts.view(1, 1, BINS, BINS), (kernel[:, None] * kernel)[None, None], padding=1).flatten()
    return smooth / smooth.sum().clamp(min=1e-9)


def _segment(bins: Tensor, mask: Tensor) -> Tensor:
    """(F, H, W) in {0, 1}: pixels whose colours are more likely on the toy than elsewhere in the picture, frame 0."""
    inner, outer = _eroded(mask, 1), 1 - _dilated(mask, 3)
    toy = _histogram(bins[0], inner if inner.any() else mask.float())
    rest = _histogram(bins[0], outer)
    likely = (toy > rest) & (toy > 2e-4)
    segments = likely[bins].float()
    return (avg_pool2d(segments[:, None], 3, 1, 1, count_include_pad=False)[:, 0] > 0.5).float()


def _dilated(mask: Tensor, by: int) -> Tensor:
    return max_pool2d(mask[None, None].float(), 2 * by + 1, 1, by)[0, 0]


def _eroded(mask: Tensor, by: int) -> Tensor:
    return 1 - _dilated(~mask, by)


def _fit(segments: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """
    Fits the toy's outline in the image, `mask`, to the segmented frames.

    Returns:
        Centres (F, 2) in picture sides, IoU (F,), and the fitted outlines (F, H, W).
    """
    height, width = mask.shape
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    centre = torch.stack([(value * mask).sum() / mask.sum() for value in (y, x)])
    reference = torch.roll(
        _padded(mask.float()), [round(float(c)) for c in -centre + torch.tensor([height, width])], (0, 1)
    )
    inside = torch.fft.rfft2(_padded(torch.ones(height, width)))
    turn, centres, overlaps, regions = 0.0, [], [], []
    for frame in segments:
        spectrum = torch.fft.rfft2(_padded(frame))
        turned = _turned(reference, [turn + step for step in TURNS])
        conjugate = torch.fft.rfft2(turned).conj()
        common = torch.fft.irfft2(spectrum * conjugate, s=turned.shape[-2:])
        visible = torch.fft.irfft2(inside * conjugate, s=turned.shape[-2:])
        overlap = common / (frame.sum() + visible - common).clamp(min=1.0)
        best = int(overlap.flatten().argmax())
        index, row, column = (int(i) for i in torch.unravel_index(torch.tensor(best), overlap.shape))
        turn += TURNS[index]
        shift = torch.tensor([_peak(overlap[index], row, column, axis) for axis in (0, 1)])
        shift = torch.remainder(shift + height, 2 * torch.tensor([height, width])) - height
        placed = torch.roll(turned[index], [row, column], (0, 1))[:height, :width]
        centres.append(shift / min(height, width))
        overlaps.append(overlap[index, row, column])
        regions.append(placed)
    return torch.stack(centres), torch.stack(overlaps), torch.stack(regions)


def _padded(frame: Tensor) -> Tensor:
    height, width = frame.shape
    return torch.nn.functional.pad(frame, (0, width, 0, height))


def _turned(reference: Tensor, angles: list[float]) -> Tensor:
    """Rotates a reference (2H, 2W) about its middle, and shifts the middle to the origin, as circular correlation
    requires; returns (n, 2H, 2W)."""
    height, width = reference.shape
    angle = torch.tensor(angles)
    cos, sin, aspect = angle.cos(), angle.sin(), width / height
    zero = torch.zeros_like(angle)
    theta = torch.stack([torch.stack([cos, sin / aspect, zero], -1), torch.stack([-sin * aspect, cos, zero], -1)], 1)
    # The middle of the grid is half a pixel before the pixel that the object is centred on.
    grid = affine_grid(theta, [len(angles), 1, height, width], align_corners=False)
    grid = (
        grid
        + torch.tensor([1 / width, 1 / height])
        - torch.einsum("nij,j->ni", theta[:, :, :2], torch.tensor([1 / width, 1 / height])).view(-1, 1, 1, 2)
    )
    turned = grid_sample(reference.expand(len(angles), 1, -1, -1), grid, align_corners=False)[:, 0]
    return torch.roll((turned > 0.5).float(), (-(height // 2), -(width // 2)), (1, 2))


def _peak(overlap: Tensor, row: int, column: int, axis: int) -> float:
    """The position of a maximum along an axis, interpolated between pixels by a parabola."""
    line = overlap[:, column] if axis == 0 else overlap[row]
    at = row if axis == 0 else column
    before, here, after = (float(line[(at + step) % len(line)]) for step in (-1, 0, 1))
    bend = before - 2 * here + after
    return at + (0.5 * (before - after) / bend if bend < -1e-9 else 0.0)


def _background_error(video: Tensor, toys: Tensor) -> float:
    """RMS change between frames that an affine camera motion does not explain, away from toys and their shadows."""
    size = 48
    frames = interpolate(video, (size, size), mode="area")
    away = 1 - max_pool2d(interpolate(toys[:, None], (size, size), mode="area"), 9, 1, 4).ceil()[:, 0]
    axis = torch.linspace(-1, 1, size)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    basis = torch.stack([torch.ones_like(x), x, y])  # (3, h, w)
    errors = []
    for before, after, free in zip(frames[:-1], frames[1:], away[:-1] * away[1:], strict=True):
        free = free.clone()
        free[[0, 1, -2, -1]] = free[:, [0, 1, -2, -1]] = 0.0
        if free.sum() < 25:
            continue
        middle = (before + after) / 2
        down, right = torch.gradient(middle, dim=(1, 2))
        slopes = torch.cat([right[:, None] * basis, down[:, None] * basis], 1)  # (3, 6, h, w)
        weighted = (slopes * free).permute(0, 2, 3, 1).reshape(-1, 6).double()
        change = ((after - before) * free).reshape(-1).double()
        normal = weighted.T @ weighted + 1e-6 * torch.eye(6, dtype=torch.float64)
        motion = torch.linalg.solve(normal, weighted.T @ change)
        unexplained = change - weighted @ motion
        errors.append(float((unexplained.square().sum() / (3 * free.sum())).sqrt()))
    return _mean(errors) if errors else float("nan")
