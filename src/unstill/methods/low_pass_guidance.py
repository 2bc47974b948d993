"""
Low-pass guidance: in the first steps the conditional pass sees a blurred image, and cannot copy what is not there.

Choi et al., "Enhancing Motion Dynamics of Image-to-Video Models via Adaptive Low-Pass Guidance" (ALG),
https://huggingface.co/papers/2506.08456.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch.nn.functional import interpolate

from unstill.errors import UnstillError, shown
from unstill.methods.base import Method, Passes, Run, Target


@dataclass(frozen=True, kw_only=True, slots=True)
class LowPassGuidance(Method):
    """
    Guides with a low-pass filtered image in the first steps: `u(c) + w (t(L c) - u(L c))`, plain guidance afterwards.

    u and t are the predictions without and with the prompt, c the image latents, w the pipeline's guidance scale and
    L the filter. Without guidance (scale 1), and where the pass without the prompt has no image either (Stable Video
    Diffusion, pico), the formula leaves `t(L c)`, and no further call is made.

    Args:
        factor: how much detail the image keeps, in (0, 1]: its latents are shrunk to this share of their side and
            enlarged again; 1 changes nothing.
        until: share of the steps, from the first on, in which the image is filtered, in [0, 1]: step i of N where i /
            (N - 1) <= until.
        passes: which passes see the filtered image: `"conditional"` is the formula, at the cost of one more
            unconditional pass in each filtered step; `"all"` costs nothing, and the paper calls it unstable.
    """

    factor: float = 0.4
    until: float = 0.2
    passes: Literal["conditional", "all"] = "conditional"

    summary = "Shows a blurred image in the first steps: more motion."
    use_when = "stands still, and you can pay for some more calls"
    cost = "one more pass in the first steps, where there is guidance"
    rank = 32
    needs = frozenset({"condition"})
    presets = {
        "paper": {},
        "wan": {},
        "cogvideox": {"factor": 0.25, "until": 0.04},
        "hunyuan-video": {"factor": 0.625, "until": 0.04},
        "all-passes": {"passes": "all"},
    }

    def __post_init__(self) -> None:
        if not (0 < self.factor <= 1 and 0 <= self.until <= 1):
            raise UnstillError(
                "LowPassGuidance takes a factor in (0, 1] and until in [0, 1], but got "
                f"factor={shown(self.factor)}, until={shown(self.until)}."
            )
        if self.passes not in ("conditional", "all"):
            raise UnstillError(f"passes of LowPassGuidance is 'conditional' or 'all', not {self.passes!r}.")

    def check(self, others: Sequence[Method], target: Target) -> None:
        if self.passes == "conditional" and not target.guidance:
            raise UnstillError(
                f"LowPassGuidance corrects the denoiser's output, and {target.pipeline} guides with something made "
                "from it; give passes='all'."
            )

    @property
    def conditional_only(self) -> bool:
        return self.passes == "conditional"

    def on_condition(self, run: Run, image_latents: torch.Tensor) -> torch.Tensor:
        return low_pass_image(image_latents, self.factor) if self._acts(run) else image_latents

    def on_guidance(self, run: Run, passes: Passes) -> torch.Tensor:
        # Where the pass without the prompt has no image, filtering it changes nothing.
        if passes.unconditional is None or passes.without_image or not self._acts(run) or not self.conditional_only:
            return passes.conditional
        return passes.conditional + passes.unconditional - passes.unconditional_again()

    def _acts(self, run: Run) -> bool:
        if self.factor == 1:
            return False
        order = run.grid.order  # calls of the denoiser for each step of the solver
        steps = math.ceil(len(run.grid.timesteps) / order)
        return run.step // order <= self.until * (steps - 1) * (1 + 1e-9)


def low_pass_image(latents: torch.Tensor, factor: float) -> torch.Tensor:
    """
    `(B, C, F, H, W)` shrunk frame by frame to `factor` of its sides and enlarged again, bilinearly with antialiasing.
    """
    size = latents.shape[-2:]
    smaller = tuple(max(1, int(side * factor + 1e-9)) for side in size)
    frames = latents.transpose(1, 2).flatten(0, 1)
    for target in (smaller, size):
        frames = interpolate(frames, size=target, mode="bilinear", antialias=True, align_corners=False)
    return frames.unflatten(0, (len(latents), -1)).transpose(1, 2)
