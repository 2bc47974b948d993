"""
Composition of a prediction without the image and of the residual that the image adds, for models trained that way.

"Composition of residual and prediction" (CRP), https://huggingface.co/papers/2610.11479, applied to the conditional
image; `unstill.training.prediction_and_residual` has the loss.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from unstill.errors import UnstillError
from unstill.methods.base import Method, Passes, Run, Target


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictionAndResidual(Method):
    """
    Adds up two passes of the denoiser, `f(x, c) + f(x, c, y)`: one without the image y, and one with it, which a model
    trained with `condition.method: prediction-and-residual` gives the residual in. On other models it is wrong.
    """

    summary = "Adds up two passes, for models trained with prediction-and-residual."
    use_when = "comes from a model that was trained with prediction-and-residual"
    cost = "a second pass in every step, and a fine-tuning"
    rank = 96

    def check(self, others: Sequence[Method], target: Target) -> None:
        if not target.drops_image:
            raise UnstillError(
                "PredictionAndResidual needs a model that was trained without its image, too, and "
                f"{target.pipeline}'s is not known to be; use it on a model trained with condition.method "
                "prediction-and-residual."
            )

    def on_guidance(self, run: Run, passes: Passes) -> torch.Tensor:
        assert passes.without_image is not None  # guaranteed by `check`
        return passes.without_image(keep_prompt=True) + passes.conditional
