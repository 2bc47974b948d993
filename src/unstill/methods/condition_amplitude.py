"""
Condition amplitude: what the condition latents of the empty frames differ by from the image is enlarged.

The practice of two ComfyUI nodes for Wan, https://github.com/princepainter/ComfyUI-PainterI2V and kijai's
`augment_empty_frames`; neither has a paper.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from unstill.errors import UnstillError, shown
from unstill.methods.base import Method, Run, Target


LIMIT = 6.0
"""Latents of the VAE are clamped to this, as in PainterI2V."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ConditionAmplitude(Method):
    """
    Enlarges how the grey frames after the image differ from it, in the clip of latents that Wan's denoiser sees.

    Wan is shown its image encoded as a clip whose other frames are grey. Of every grey frame, the difference from the
    image without its mean over the frame is multiplied by `amplitude`, in the units of the VAE.

    Args:
        amplitude: factor of the image that the denoiser sees, from 0 to 2; 1 changes nothing. Released: 1.15. kijai's
            parameter is this minus 1.
        first_network_only: whether the second network of Wan 2.2 A14B, which samples the low noise levels, sees the
            condition as it is.
    """

    amplitude: float = 1.15
    first_network_only: bool = False

    summary = "Enlarges what Wan's empty frames differ by from the image: more motion."
    use_when = "comes from Wan and stands still, even with a 4-step model"
    cost = "nothing; colours may shift"
    rank = 36
    presets = {"paper": {}, "released": {}, "advanced": {"amplitude": 1.3, "first_network_only": True}}

    def __post_init__(self) -> None:
        if not 0 <= self.amplitude <= 2:
            raise UnstillError(
                "ConditionAmplitude takes an amplitude from 0 to 2, where 1 changes nothing and 1.15 is usual, not "
                f"{shown(self.amplitude)}."
            )

    def check(self, others: Sequence[Method], target: Target) -> None:
        if target.conditioning_frames:
            raise UnstillError(
                f"ConditionAmplitude changes a clip of image latents, and this {target.pipeline} (Wan 2.2 5B) puts "
                "the image in the place of frame 0 instead; use ReferenceBias or EarlyStart."
            )

    def on_condition_clip(self, run: Run, clip: torch.Tensor) -> torch.Tensor:
        if self.amplitude == 1 or clip.shape[2] == 1 or (self.first_network_only and run.second_network):
            return clip
        return amplify(clip, self.amplitude)


def amplify(clip: torch.Tensor, amplitude: float) -> torch.Tensor:
    """
    e0 + a (d - m) + m for the frames after e0, clamped, with d = e - e0 and m its mean over channels, rows, columns.

    Args:
        clip: latents of the VAE, not normalised, `(B, C, F, H, W)`.
        amplitude: a.
    """
    image, others = clip[:, :, :1], clip[:, :, 1:]
    difference = others - image
    mean = difference.mean((1, 3, 4), keepdim=True)
    changed = (image + amplitude * (difference - mean) + mean).clamp(-LIMIT, LIMIT)
    return torch.cat([image, changed], 2)
