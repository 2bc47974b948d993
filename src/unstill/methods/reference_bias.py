"""
Reference bias: all frames attend less, or more, to the first one in the first steps.

"DyMoS", https://huggingface.co/papers/2605.19398.
"""

from dataclasses import dataclass

from unstill.errors import UnstillError, shown
from unstill.methods.base import Method, Run


@dataclass(frozen=True, kw_only=True, slots=True)
class ReferenceBias(Method):
    """
    Subtracts gamma from the attention logits of the first latent frame's tokens, in the conditional pass of the first
    steps: the video leans less on its image, and moves more. Below 0 it leans more, and is calmer.

    Networks whose attention joins time and space have all tokens of the first latent frame as reference keys; networks
    with temporal attention (Stable Video Diffusion, AnimateDiff, DynamiCrafter) the first frame of each place, which
    the paper has not tried.

    Args:
        gamma: how much less the frames attend to the first one, within [-20, 20]; 0 changes nothing. It is subtracted
            from the logits: the frame's weight is multiplied by exp(-gamma) before it is normalised.
        steps: share of the steps, from the first on, in which they do, in [0, 1]. Paper: 8 of 40.
    """

    gamma: float = 0.6
    steps: float = 0.2

    summary = "All frames attend less (or more) to the first one: more (or less) motion."
    use_when = "stands still, or moves too wildly, and has attention over its frames"
    cost = "nothing but one more column in the attention of the first steps"
    rank = 34
    presets = {"paper": {}, "calmer": {"gamma": -0.6}}

    def __post_init__(self) -> None:
        if not (abs(self.gamma) <= 20 and 0 <= self.steps <= 1):
            raise UnstillError(
                "ReferenceBias takes a gamma from -20 to 20 and steps as a share in [0, 1], but got "
                f"gamma={shown(self.gamma)}, steps={shown(self.steps)}."
            )

    def on_attention(self, run: Run) -> float:
        return -self.gamma if run.step < self.steps * len(run.grid.timesteps) else 0.0
