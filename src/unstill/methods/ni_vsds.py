"""
NI-VSDS: score distillation that sets a still video in motion, then a regeneration from the result (I4VGen).

Guo et al., "I4VGen: Image as Free Stepping Stone for Text-to-Video Generation",
https://huggingface.co/papers/2406.02230.
"""

import torch


def update(
    video: torch.Tensor, eps: torch.Tensor, noise: torch.Tensor, weight: float, step_size: float
) -> torch.Tensor:
    """
    Eq. 5: `video - step_size * weight * (eps - noise)`.

    Args:
        video: latents `(B, C, F, H, W)` that are distilled.
        eps: noise predicted, with guidance, for `alpha * video + sigma * noise`.
        noise: the noise that was added, the same in every iteration.
        weight: w(t), see `weight`.
        step_size: alpha in the paper.
    """
    return video - step_size * weight * (eps - noise)


def weight(alpha: float, sigma: float) -> float:
    """w(t) = 1 - abar_t, for forward processes of any scale: `sigma^2 / (alpha^2 + sigma^2)`."""
    return sigma**2 / (alpha**2 + sigma**2)


def share(alpha: float, sigma: float, step_size: float) -> float:
    """
    What one iteration replaces of the video by the predicted x0: Eq. 5 is `video + share * (x0 - video)` with
    `share = step_size * sqrt(abar_t (1 - abar_t))`. It is 0 at both ends of the process, where eps or x0 is unknown.
    """
    return step_size * alpha * sigma / (alpha**2 + sigma**2)
