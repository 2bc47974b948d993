"""
Low-pass filters over a video's three frequency axes, and the mix of two videos' bands (FreeInit, FrameInit).

Wu et al., "FreeInit", https://huggingface.co/papers/2312.07537; Ren et al., "ConsistI2V",
https://huggingface.co/papers/2402.04324.
"""

from collections.abc import Sequence
from typing import Literal, get_args

import torch

from unstill.errors import UnstillError, shown


FilterKind = Literal["butterworth", "gaussian", "ideal", "box"]


def low_pass(
    shape: Sequence[int],
    kind: FilterKind,
    spatial: float,
    temporal: float,
    order: int = 4,
    parity: bool = False,
) -> torch.Tensor:
    """The mask of a low-pass filter, zero frequency in the middle (the layout of `torch.fft.fftshift`).

    Args:
        shape: `(F, H, W)` of the latents.
        kind: `"butterworth"`, `"gaussian"`, `"ideal"` or `"box"`.
        spatial: stop frequency of height and width, as a share of the highest one (1 = Nyquist).
        temporal: stop frequency of time, likewise. A stop frequency of 0 lets nothing pass.
        order: steepness of the Butterworth filter.
        parity: reproduce the released filters, quirks included: with an odd number of frames, rows or columns they are
            half a bin off the zero frequency (which they then damp); the ideal filter compares with `2 * spatial` in
            place of `spatial**2`; the box has rounded half-widths, its spatial one taken from the height for both
            axes, and leaves out its upper edge.

    Returns:
        `torch.Tensor` of shape `(F, H, W)`, float32, values in [0, 1].
    """
    if kind not in get_args(FilterKind):
        raise UnstillError(f"{kind!r} is not a filter; use one of {', '.join(get_args(FilterKind))}.")
    if len(shape) != 3 or min(shape) < 1:
        raise UnstillError(f"A filter needs a shape (frames, height, width) of sizes above 0, but got {tuple(shape)}.")
    if not all(stop == 0 or 1e-4 <= stop <= 10_000 for stop in (spatial, temporal)) or not 1 <= order <= 1000:
        raise UnstillError(
            "A filter needs stop frequencies of 0 or from 0.0001 to 10,000 and an order from 1 to 1000, but got "
            f"spatial={shown(spatial)}, temporal={shown(temporal)}, order={shown(order)}."
        )
    if spatial == 0 or temporal == 0:
        return torch.zeros(tuple(shape))
    if kind == "box":
        return _box(shape, spatial, temporal, parity)

    frames, rows, columns = (_frequencies(size, parity) for size in shape)
    # Squared distance from the zero frequency; time is stretched so that its stop frequency falls on the spatial one.
    distance = (
        (spatial / temporal * frames[:, None, None]) ** 2 + rows[None, :, None] ** 2 + columns[None, None, :] ** 2
    )
    if kind == "gaussian":
        mask = torch.exp(-distance / (2 * spatial**2))
    elif kind == "butterworth":
        mask = 1 / (1 + (distance / spatial**2) ** order)
    else:
        mask = distance <= (2 * spatial if parity else spatial**2)
    return mask.float()


def mix(low: torch.Tensor, high: torch.Tensor, mask: torch.Tensor, keep_variance: bool = False) -> torch.Tensor:
    """Low frequencies of one video, high frequencies of another: `Re F^-1(mask * F(low) + (1 - mask) * F(high))`.

    Args:
        low: `(..., F, H, W)`, the video whose low band is kept.
        high: same shape, the video whose high band is kept.
        mask: `(F, H, W)` of `low_pass`.
        keep_variance: mix with `sqrt(1 - mask^2)` in place of `1 - mask`, which keeps the variance of independent
            unit noises at 1 ("FreqPrior", https://huggingface.co/papers/2502.03496).

    Returns:
        `torch.Tensor` of the same shape and of `high`'s dtype, computed in float32 (float64 inputs in float64).
    """
    if low.shape != high.shape or low.shape[-3:] != mask.shape:
        raise UnstillError(
            "Mixing bands needs two videos of one shape and a mask of their (frames, height, width), but got "
            f"{tuple(low.shape)}, {tuple(high.shape)} and {tuple(mask.shape)}."
        )
    dtype = torch.promote_types(high.dtype, torch.float32)
    high_ = high.to(dtype)
    if keep_variance:
        kept, dims = torch.fft.ifftshift(mask.to(high.device, dtype)), (-3, -2, -1)
        bands = kept * torch.fft.fftn(low.to(dtype), dim=dims) + (1 - kept**2).sqrt() * torch.fft.fftn(high_, dim=dims)
        return torch.fft.ifftn(bands, dim=dims).real.to(high.dtype)
    # The transform is linear: only the difference has to be transformed.
    band = torch.fft.fftn(low.to(dtype) - high_, dim=(-3, -2, -1))
    band *= torch.fft.ifftshift(mask.to(high.device, dtype))
    return (high_ + torch.fft.ifftn(band, dim=(-3, -2, -1)).real).to(high.dtype)


def _frequencies(size: int, parity: bool) -> torch.Tensor:
    """Frequencies of one axis in units of Nyquist, ascending, float64. Exact for even sizes either way."""
    index = torch.arange(size, dtype=torch.float64)
    if parity:
        return 2 * index / size - 1
    return 2 * (index - size // 2) / size


def _box(shape: Sequence[int], spatial: float, temporal: float, parity: bool) -> torch.Tensor:
    if not parity:
        frames, rows, columns = (
            _frequencies(size, parity=False).abs() <= stop
            for size, stop in zip(shape, (temporal, spatial, spatial), strict=True)
        )
        return (frames[:, None, None] & rows[None, :, None] & columns[None, None, :]).float()
    half_t, half_s = round(shape[0] // 2 * temporal), round(shape[1] // 2 * spatial)
    middle = [size // 2 for size in shape]
    mask = torch.zeros(tuple(shape))
    # Plain slices as in the released code: a half-width beyond the edge wraps around.
    mask[tuple(slice(m - half, m + half) for m, half in zip(middle, (half_t, half_s, half_s), strict=True))] = 1
    return mask
