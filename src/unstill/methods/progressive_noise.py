"""
Noise that is correlated over time: mixed and progressive noise.

Ge et al., "Preserve Your Own Correlation" (PYoCo), https://huggingface.co/papers/2305.10474.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch

from unstill.errors import UnstillError, shown
from unstill.methods.base import Method, Run


@dataclass(frozen=True, kw_only=True, slots=True)
class ProgressiveNoise(Method):
    """
    Starts from noise whose frames resemble each other, so that the frames of the video do as well.

    Made for models fine-tuned with such noise; on others it is a plug-in that trades motion for coherence. The
    pipeline's own noise serves as the independent part: with `alpha=0` nothing changes.

    Args:
        kind: `"progressive"` (each frame continues the one before) or `"mixed"` (all frames share a part).
        alpha: how much is shared; frames i and j correlate by `alpha^2 / (1 + alpha^2)` (mixed) or by the |i - j|-th
            power of `alpha / sqrt(1 + alpha^2)` (progressive). The paper found 1 best for mixed, 2 for progressive.
    """

    kind: Literal["progressive", "mixed"] = "progressive"
    alpha: float = 2.0

    summary = "Starts from noise that the frames share: coherent, with less motion."
    use_when = "flickers, and sampling several times is too slow"
    cost = "nothing; much motion"
    rank = 60
    presets = {
        "paper": {},
        "mixed": {"kind": "mixed", "alpha": 1.0},
        "released": {"kind": "mixed", "alpha": 1.0},  # ConsistI2V's default; PYoCo has no code
    }

    def __post_init__(self) -> None:
        if self.kind not in ("progressive", "mixed"):
            raise UnstillError(f"ProgressiveNoise is of kind 'progressive' or 'mixed', not {self.kind!r}.")
        if not 0 <= self.alpha <= 1e6:
            raise UnstillError(
                f"alpha of ProgressiveNoise is how much frames share, from 0 to a million, not {shown(self.alpha)}."
            )

    def on_noise(self, run: Run, noise: torch.Tensor) -> torch.Tensor:
        if self.alpha == 0:
            return noise
        if self.kind == "mixed":
            return mixed(run.draw((*noise.shape[:2], 1, *noise.shape[3:])), noise, self.alpha)
        return progressive(noise[:, :, :1], noise, self.alpha)


def mixed(shared: torch.Tensor, independent: torch.Tensor, alpha: float) -> torch.Tensor:
    """Noise with a part common to all frames.

    Args:
        shared: unit noise `(B, C, 1, H, W)`.
        independent: unit noise `(B, C, F, H, W)`.
        alpha: weight of the shared part, at least 0.

    Returns:
        `torch.Tensor` of shape `(B, C, F, H, W)`, unit variance.
    """
    a, b = _weights(alpha)
    return a * shared + b * independent


def progressive(first: torch.Tensor, independent: torch.Tensor, alpha: float) -> torch.Tensor:
    """Noise in which every frame continues the one before, an autoregression.

    Args:
        first: unit noise whose first frame is frame 0, `(B, C, 1 or F, H, W)`.
        independent: unit noise `(B, C, F, H, W)`; its frame 0 is not used.
        alpha: weight of the previous frame, at least 0.

    Returns:
        `torch.Tensor` of shape `(B, C, F, H, W)`, unit variance.
    """
    a, b = _weights(alpha)
    frames = [first[:, :, 0]]
    for new in independent[:, :, 1:].unbind(2):
        frames.append(a * frames[-1] + b * new)
    return torch.stack(frames, dim=2)


def _weights(alpha: float) -> tuple[float, float]:
    """Weights of the shared and of the new part; their squares sum to 1."""
    return alpha / math.sqrt(1 + alpha**2), 1 / math.sqrt(1 + alpha**2)
