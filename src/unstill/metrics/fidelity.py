"""
Fidelity of a video to its image, without any network.

Only `first_frame_error` and `ssim` are established measures. The functions called `proxy_...` replace CLIP and DINO
scores where no weights are available: they show a trend between two runs of one model and are not comparable to
published numbers. All proxies are in [0, 1], and 1 for a frame identical to the image. They are computed on pictures
averaged down to a shorter side of about 256 pixels, as the authors of SSIM recommend.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from unstill.errors import UnstillError
from unstill.metrics.registry import metric
from unstill.metrics.video_checks import as_float, check_uint8


_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


def _pair(video: Tensor, image: Tensor | None) -> tuple[Tensor, Tensor]:
    """The video and its conditional image (by default frame 0) as float (F, 3, H, W) and (1, 3, H, W)."""
    frames = as_float(video)
    if image is None:
        return frames, frames[:1]
    if image.ndim != 3 or image.shape[-2:] != frames.shape[-2:]:
        raise UnstillError(
            f"The image must be (3, H, W) at the size of the video {tuple(frames.shape[-2:])}, got "
            f"{tuple(image.shape)}; resize and crop it as it was for the model."
        )
    return frames, as_float(image[None]).to(frames.device)


def _reduced(pictures: Tensor) -> Tensor:
    """Blocks of n x n pixels averaged, n = round(shorter side / 256)."""
    n = max(1, round(min(pictures.shape[-2:]) / 256))
    return functional.avg_pool2d(pictures, n) if n > 1 else pictures


@metric(
    "first_frame_error",
    label="first frame differs from the image",
    topic="image",
    unit="of 1",
    better="lower",
    needs={"image"},
)
def first_frame_error(video: Tensor, image: Tensor) -> float:
    """Root-mean-square difference of frame 0 of `video` (F, 3, H, W) and `image` (3, H, W), in units of [0, 1]."""
    frames, picture = _pair(video, image)
    return float((frames[:1] - picture).square().mean(dtype=torch.float64).sqrt())


def ssim(x: Tensor, y: Tensor) -> Tensor:
    """
    Structural similarity (Wang et al. 2004) of float pictures (N, C, H, W) in [0, 1], averaged over C, H, W: (N,).

    Gaussian window of 11 pixels and sigma 1.5, K1 = 0.01, K2 = 0.03; only positions where the window fits count.
    """
    if min(x.shape[-2:]) < 11:
        raise UnstillError(f"SSIM needs pictures of at least 11 x 11 pixels, got {tuple(x.shape[-2:])}.")
    x, y = torch.broadcast_tensors(x.double(), y.double())
    bell = torch.exp(-torch.arange(-5.0, 6.0, dtype=torch.float64).square() / (2 * 1.5**2))
    weights = (bell / bell.sum()).tolist()

    def blur(z: Tensor) -> Tensor:
        # Eleven shifted sums along each axis: on a CPU many times as fast as a convolution with one channel.
        for axis in (2, 3):
            size = z.shape[axis] - 10
            total = torch.zeros_like(z.narrow(axis, 0, size))
            for shift, weight in enumerate(weights):
                total.add_(z.narrow(axis, shift, size), alpha=weight)
            z = total
        return z

    mean_x, mean_y = blur(x), blur(y)
    var_x, var_y, cov = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2, blur(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * cov + c2) / (var_x + var_y + c2)
    return (luminance * structure).mean((1, 2, 3))


def _histogram(video: Tensor, bins: int) -> Tensor:
    """Joint RGB histogram of a uint8 video, (F, bins^3), each row summing to 1."""
    level = torch.div(video.long() * bins, 256, rounding_mode="floor")  # (F, 3, H, W)
    index = ((level[:, 0] * bins + level[:, 1]) * bins + level[:, 2]).flatten(1)  # (F, H*W)
    counts = torch.zeros(len(video), bins**3, dtype=torch.float64, device=video.device)
    counts.scatter_add_(1, index, torch.ones_like(index, dtype=torch.float64))
    return counts / index.shape[1]


def _edges(video: Tensor) -> Tensor:
    """Sobel gradient magnitude of the luma of a float video, (F, H-2, W-2)."""
    luma = (video * video.new_tensor(_LUMA)[:, None, None]).sum(1, keepdim=True)
    sobel = video.new_tensor([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 8
    gradient = functional.conv2d(luma, torch.stack([sobel, sobel.T])[:, None])  # (F, 2, H-2, W-2)
    return gradient.norm(dim=1)


@metric(
    "proxy_colour_fidelity",
    label="keeps the image's colours",
    topic="image",
    better="higher",
    proxy=True,
    optional={"image"},
)
def proxy_colour_fidelity(video: Tensor, image: Tensor | None = None, bins: int = 8) -> float:
    """Proxy: mean over frames of the intersection of the joint RGB histograms of frame and image. Blind to layout."""
    frames, picture = map(_reduced, _pair(video, image))
    reference = _histogram(check_uint8(picture), bins)
    return float(torch.minimum(_histogram(check_uint8(frames), bins), reference).sum(1).mean())


@metric(
    "proxy_structure_fidelity",
    label="keeps the image's layout",
    topic="image",
    better="higher",
    proxy=True,
    optional={"image"},
)
def proxy_structure_fidelity(video: Tensor, image: Tensor | None = None) -> float:
    """Proxy: mean over frames of SSIM with the image, negative values counted as 0. Falls with any displacement."""
    frames, picture = map(_reduced, _pair(video, image))
    return float(ssim(frames, picture).clamp_min(0).mean())


@metric(
    "proxy_edge_fidelity",
    label="keeps the image's detail",
    topic="image",
    better="higher",
    proxy=True,
    optional={"image"},
)
def proxy_edge_fidelity(video: Tensor, image: Tensor | None = None) -> float:
    """
    Proxy: mean over frames of the agreement of the sorted gradient magnitudes of frame and image, 2ab / (a² + b²).

    Sorting makes it blind to where edges are, so that motion costs little, while blur and melted detail do.
    """
    frames, picture = map(_reduced, _pair(video, image))
    profile = _edges(frames).flatten(1).sort(dim=1).values.double()
    reference = _edges(picture).flatten(1).sort(dim=1).values.double()
    # 2ab / (a^2 + b^2) instead of a cosine: a uniform loss of contrast counts as well.
    alike = 2 * (profile * reference).sum(1) + 1e-12
    return float((alike / (profile.square().sum(1) + reference.square().sum(1) + 1e-12)).mean())


@metric(
    "proxy_coherence",
    label="neighbouring frames are alike",
    topic="coherence",
    better="higher",
    proxy=True,
)
def proxy_coherence(video: Tensor) -> float:
    """Proxy: mean SSIM of neighbouring frames, negative values counted as 0. Flicker, cuts and speed lower it."""
    frames = _reduced(as_float(video, frames=2))
    return float(ssim(frames[:-1], frames[1:]).clamp_min(0).mean())
