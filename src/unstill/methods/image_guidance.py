"""
Image guidance with a schedule: the weight of the image differs between frames and steps.

Open-Sora 2.0, https://huggingface.co/papers/2503.09642; Stable Video Diffusion's weights from 1 to 3 over the frames
are the case that is constant over steps, https://huggingface.co/papers/2311.15127.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from unstill.errors import UnstillError, shown
from unstill.methods.base import Method, Passes, Run, Target


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageGuidance(Method):
    """
    Guides away from the prediction that knows no image, `n + g(i, f) (t - n)`, with a weight for each step and frame.

    The largest weight of step i falls from `scale` in the first step to 1 in the last; over the frames of a step the
    weight rises from 1 to it. For models that were trained with a dropped image (Stable Video Diffusion, pico): there
    it replaces the weight of the pipeline's guidance, and adds that pass where the call has no guidance.

    Args:
        scale: the largest weight, from 0 to 100. 1 leaves the image alone: no guidance.
        over_frames: whether the weight rises over the frames; otherwise it is the same in all.
        over_steps: whether it falls over the steps.
        oscillate: whether every second step, from the eleventh on, goes without: weight 1.
    """

    scale: float = 3.0
    over_frames: bool = True
    over_steps: bool = True
    oscillate: bool = False

    summary = "Weighs the image by frame and step in guidance: closer to it."
    use_when = "loses its image in later frames, from a model trained without it too"
    cost = "a second pass in every step, where there is no guidance yet"
    rank = 42
    presets = {
        "paper": {},
        "oscillating": {"oscillate": True},
        "svd": {"over_steps": False},
    }

    def __post_init__(self) -> None:
        if not 0 <= self.scale <= 100:
            raise UnstillError(f"scale of ImageGuidance is a weight from 0 to 100, not {shown(self.scale)}.")

    def check(self, others: Sequence[Method], target: Target) -> None:
        if not target.drops_image:
            raise UnstillError(
                f"ImageGuidance needs a model that was trained without its image, too, and {target.pipeline}'s is not "
                "known to be; use Stable Video Diffusion or pico."
            )

    def on_guidance(self, run: Run, passes: Passes) -> torch.Tensor:
        t, n = passes.conditional, passes.unconditional
        order = run.grid.order  # calls of the denoiser for each step of the solver
        steps = math.ceil(len(run.grid.timesteps) / order)
        weight = self.weights(run.step // order, steps, t.shape[2]).to(t).view(1, 1, -1, 1, 1)
        if n is None:
            if bool((weight == 1).all()):
                return t
            assert passes.without_image is not None  # guaranteed by `check`
            n = passes.without_image()
            return n + weight * (t - n)
        if passes.scale is None or bool((torch.as_tensor(passes.scale) == 0).any()):
            raise UnstillError("ImageGuidance replaces the weight of the pipeline's guidance; give one above 0.")
        return n + weight / passes.scale * (t - n)  # the pipeline multiplies the difference by its own weight

    def weights(self, step: int, steps: int, frames: int) -> torch.Tensor:
        """g(i, f) of all frames `(F,)` at step i of so many."""
        if self.oscillate and step >= 10 and step % 2 == 1:
            return torch.ones(frames)
        largest = self.scale
        if self.over_steps and steps > 1:
            largest = self.scale + (1 - self.scale) * step / (steps - 1)
        return torch.linspace(1, largest, frames) if self.over_frames else torch.full((frames,), largest)
