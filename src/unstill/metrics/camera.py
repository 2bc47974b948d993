"""
Camera and object motion: how much of a flow is explained by one affine motion of the whole picture.

This distinguishes a video that only zooms from one in which objects move. Panning, zooming, rolling and shearing are
affine; deviations from the best robust affine fit count as objects. A camera that moves through a deep scene causes
parallax, which is not affine and therefore also counts as objects.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from unstill.metrics.flow import FlowEngine, optical_flow
from unstill.metrics.motion import PAPER_SIZE, VISIBLE_SHARE
from unstill.metrics.onset import onset_time
from unstill.metrics.registry import Value, metric_group


_POINTS = 48  # the fit uses about 48 x 48 positions
_TRIPLES = 100  # at 40 % of outliers one in five triples is clean
_REFINEMENTS = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class MotionParts:
    """Mean over pairs of frames; pixels of the frames that the flow was computed on."""

    total: float
    """Mean magnitude of the whole flow: the motion score per pair."""
    camera: float
    """Mean magnitude of the affine part."""
    objects: float
    """Mean magnitude of the rest."""
    pan: tuple[float, float]
    """Motion of the picture's centre in pixels per frame, right and downwards; the camera pans the other way."""
    zoom: float
    """Growth of the picture per frame: 0.01 is one percent larger with every frame."""
    roll: float
    """Rotation in radians per frame, clockwise as seen."""


def fit_affine(flow: Tensor) -> Tensor:
    """
    Robust affine fit of a flow (2, H, W): (2, 3) float64, flow = A (x, y, 1) with x, y in pixels from the centre.

    Least median of squares over exact fits to three positions, which is unaffected by anything that covers less than
    half of the picture, then least squares with the Geman-McClure weight, which averages over positions that agree.
    """
    height, width = flow.shape[1:]
    rows, columns = slice(None, None, max(1, height // _POINTS)), slice(None, None, max(1, width // _POINTS))
    motion = flow[:, rows, columns].double().flatten(1).T  # (p, 2)
    positions = _positions(flow)[:, rows, columns].flatten(1).T
    radius = max(height, width) / 2
    design = torch.cat([positions / radius, torch.ones_like(positions[:, :1])], 1)  # (p, 3), well conditioned

    generator = torch.Generator().manual_seed(0)
    triples = torch.randint(len(design), (_TRIPLES, 3), generator=generator).to(flow.device)
    corners = design[triples]  # (n, 3, 3)
    corners = corners + 1e-6 * torch.eye(3, dtype=corners.dtype, device=corners.device)  # three positions on one line
    fits = torch.linalg.solve(corners, motion[triples])  # (n, 3, 2)
    # (Squared distances: `norm` over an axis of two is ten times as slow.)
    medians = torch.stack([(motion - design @ fit).square().sum(1).median() for fit in fits])
    fit = fits[medians.argmin()]
    for _ in range(_REFINEMENTS):
        squared = (motion - design @ fit).square().sum(1)
        scale = (1.4826 * squared.median().sqrt()).clamp_min(1e-2)  # no estimator is more accurate than 0.01 px
        weight = 1 / (1 + squared / (2 * scale).square()).square()
        fit = torch.linalg.solve(design.T @ (weight[:, None] * design), design.T @ (weight[:, None] * motion))
    return torch.cat([fit[:2] / radius, fit[2:]]).T


def _positions(flow: Tensor) -> Tensor:
    height, width = flow.shape[1:]
    rows = torch.arange(height, dtype=torch.float64, device=flow.device) - (height - 1) / 2
    columns = torch.arange(width, dtype=torch.float64, device=flow.device) - (width - 1) / 2
    return torch.stack(torch.meshgrid(columns, rows, indexing="xy"))  # (2, H, W) as (x, y)


def affine_flow(fit: Tensor, like: Tensor) -> Tensor:
    """The flow (2, H, W) of an affine motion (2, 3), at the size and in the type of `like`."""
    return (torch.einsum("ij,jhw->ihw", fit[:, :2], _positions(like)) + fit[:, 2, None, None]).to(like.dtype)


def motion_parts(
    video: Tensor,
    flow: str | FlowEngine = "dis",
    size: tuple[int, int] | None = PAPER_SIZE,
    weights: str | Path | None = None,
) -> MotionParts:
    """
    Splits the motion of a video into camera and objects; arguments as in `unstill.metrics.optical_flow`.

    `size` does not keep the aspect ratio: with it, a roll of the camera appears as roll and shear.
    """
    rows = _pair_parts(video, flow, size, weights).mean(0).tolist()
    total, camera, objects, right, down, zoom, roll = rows
    return MotionParts(total=total, camera=camera, objects=objects, pan=(right, down), zoom=zoom, roll=roll)


@metric_group(
    Value("motion_score", "moves, summed over the frames", "motion", "px"),
    Value("motion_per_pair", "moves, between neighbouring frames", "motion", "px"),
    Value("camera_motion", "camera part of the motion", "kind of motion", "px"),
    Value("object_motion", "object part of the motion", "kind of motion", "px"),
    Value("zoom", "grows or shrinks per frame (zoom)", "kind of motion"),
    Value("motion_onset", "stands still before it moves", "kind of motion", "s", "lower"),
    needs={"flow", "size", "fps"},
)
def flow_scores(video: Tensor, flow: FlowEngine, size: tuple[int, int] | None, fps: float) -> dict[str, float | None]:
    """
    All scores from the optical flow of a video, which is computed once.

    Args:
        video: uint8 (F, 3, H, W).
        flow, size: as `unstill.metrics.optical_flow`.
        fps: frames per second.

    Returns:
        `motion_score` with the reduction "sum"; its mean over the pairs; parts of `motion_parts`; `motion_onset` in
        seconds, None for a video that does not move.
    """
    pairs = _pair_parts(video, flow, size)
    total, camera, objects, _, _, zoom, _ = pairs.mean(0).tolist()
    return {
        "motion_score": total * len(pairs),
        "motion_per_pair": total,
        "camera_motion": camera,
        "object_motion": objects,
        "zoom": zoom,
        "motion_onset": onset_time(pairs[:, 0], fps, VISIBLE_SHARE * min(size or video.shape[2:])),
    }


def _pair_parts(
    video: Tensor, flow: str | FlowEngine, size: tuple[int, int] | None, weights: str | Path | None = None
) -> Tensor:
    """(F-1, 7) float64: total, camera, objects, right, down, zoom, roll of every pair; see `MotionParts`."""
    rows = []
    for field in optical_flow(video, flow, size, weights):
        fit = fit_affine(field)
        camera = affine_flow(fit, field)
        sizes = torch.stack([part.norm(dim=0).mean(dtype=torch.float64) for part in (field, camera, field - camera)])
        growth, turn = (fit[0, 0] + fit[1, 1]) / 2, (fit[1, 0] - fit[0, 1]) / 2
        rows.append(torch.cat([sizes, fit[:, 2], torch.stack([growth, turn])]).cpu())
    return torch.stack(rows)
