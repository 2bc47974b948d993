"""
FrameInit: the first latents have the low frequencies of the noised image, repeated over time, and noise above.

Ren et al., "ConsistI2V: Enhancing Visual Consistency for Image-to-Video Generation",
https://huggingface.co/papers/2402.04324.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from unstill.errors import UnstillError
from unstill.methods.base import Method, Run, Target
from unstill.methods.frequency import FilterKind, low_pass, mix
from unstill.methods.noise_levels import check_signal, diffuse


@dataclass(frozen=True, kw_only=True, slots=True)
class FrameInit(Method):
    """
    Starts from latents whose layout is the image's, so that the video keeps it. Sampling begins where it always does.

    Args:
        level: how far the repeated image is noised, as a fraction of the training time in (0, 1].
        filter: how low and high frequencies are told apart: `"gaussian"`, `"butterworth"`, `"ideal"` or `"box"`.
        spatial: up to which frequency of height and width the image is kept, as a share of the highest; 0 leaves the
            noise as it is.
        temporal: the same over time.
        order: steepness of the Butterworth filter.
        parity: the released filters with their quirks, see `low_pass`.
        keep_variance: whether mixed noise keeps its strength: variance 1 (FreqPrior), see `mix`.
    """

    level: float = 0.85
    filter: FilterKind = "gaussian"
    spatial: float = 0.25
    temporal: float = 0.25
    order: int = 4
    parity: bool = False
    keep_variance: bool = False

    summary = "Gives the first latents the layout (low frequencies) of the image."
    use_when = "loses the layout of the image"
    cost = "nothing; some motion"
    rank = 40
    owns = frozenset({"latents"})
    needs = frozenset({"image"})
    presets = {"paper": {}, "released": {"parity": True}}

    def __post_init__(self) -> None:
        if not 0 < self.level <= 1:
            raise UnstillError(f"level of FrameInit is a fraction of the training time in (0, 1], not {self.level}.")
        low_pass((1, 1, 1), self.filter, self.spatial, self.temporal, self.order)  # raises for what is no filter

    def check(self, others: Sequence[Method], target: Target) -> None:
        check_signal(target.process, self.level, "FrameInit")

    def on_noise(self, run: Run, noise: torch.Tensor) -> torch.Tensor:
        if self.spatial == 0 or self.temporal == 0:
            return noise
        assert run.image_latents is not None
        mask = low_pass(noise.shape[2:], self.filter, self.spatial, self.temporal, self.order, self.parity)
        image = run.image_latents[:, :, :1].expand_as(noise)
        return mix(diffuse(run.process, image, noise, self.level), noise, mask, self.keep_variance)
