"""
FreeInit: sample, noise the result, replace its high frequencies by fresh noise, sample again.

Wu et al., "FreeInit: Bridging Initialization Gap in Video Diffusion Models", https://huggingface.co/papers/2312.07537.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from unstill.errors import UnstillError, shown
from unstill.forward_process import ForwardProcess
from unstill.methods.base import Method, Target
from unstill.methods.frequency import FilterKind, low_pass, mix
from unstill.methods.noise_levels import LEAST_SIGNAL, SMALLEST_SIGNAL, check_signal, diffuse, training_level


@dataclass(frozen=True, kw_only=True, slots=True)
class FreeInit(Method):
    """
    Samples several times, each time from noise with the low frequencies of the video before: more coherent, and as
    many times slower. These are the parameters of `unstill.free_init`, a loop around the pipeline.

    Args:
        iterations: how often the pipeline is called, at least 1.
        coarse_to_fine: fewer steps in the first calls, all of them in the last only.
        level: how far the video is noised between calls, as a fraction of the training time in (0, 1]. By default 1,
            the paper's, and 0.95 where 1 keeps nothing of the video (flow matching, zero terminal SNR).
        filter: how low and high frequencies are told apart: `"butterworth"`, `"gaussian"`, `"ideal"` or `"box"`.
        spatial: up to which frequency of height and width the last video is kept, as a share of the highest.
        temporal: the same over time.
        order: steepness of the Butterworth filter.
        parity: the released filters with their quirks, see `low_pass`.
        keep_variance: whether mixed noise keeps its strength: variance 1 (FreqPrior), see `mix`.
    """

    iterations: int = 5
    coarse_to_fine: bool = False
    level: float | None = None
    filter: FilterKind = "butterworth"
    spatial: float = 0.25
    temporal: float = 0.25
    order: int = 4
    parity: bool = False
    keep_variance: bool = False

    summary = "Samples again from the low frequencies of the video before: less flicker."
    use_when = "flickers, frames do not belong together"
    cost = "the whole run, several times"
    place = frozenset({"start"})
    stage = "loop"
    rank = 50
    owns = frozenset({"latents"})
    presets = {
        "paper": {},
        "released": {"parity": True},
        "diffusers": {"iterations": 3, "parity": True},
        "freq-prior": {"keep_variance": True},
    }

    def __post_init__(self) -> None:
        if not 1 <= self.iterations <= 1000:
            raise UnstillError(f"FreeInit takes 1 to 1000 iterations, not {shown(self.iterations)}.")
        if self.level is not None and not 0 < self.level <= 1:
            raise UnstillError(f"level of FreeInit is a fraction of the training time in (0, 1], not {self.level}.")
        low_pass((1, 1, 1), self.filter, self.spatial, self.temporal, self.order)  # raises for what is no filter

    def check(self, others: Sequence[Method], target: Target) -> None:
        if target.modular:
            raise UnstillError(
                f"FreeInit calls the pipeline several times, and the blocks of {target.pipeline} decide what it takes "
                "and returns; use a supported pipeline that is not modular, such as WanPipeline."
            )
        if target.in_sections:
            raise UnstillError(
                f"FreeInit starts a call from the video of the call before, and {target.pipeline} samples it in "
                "sections, each from noise of its own; use a pipeline that samples a whole video at once."
            )
        check_signal(target.process, self.level_for(target.process), "FreeInit")

    def level_for(self, process: ForwardProcess) -> float:
        """The level given, or the default for a process."""
        if self.level is not None:
            return self.level
        return 1.0 if training_level(process, 1.0)[0] > SMALLEST_SIGNAL else 1 - LEAST_SIGNAL

    def steps(self, total: int, iteration: int) -> int:
        """Sampling steps of an iteration, counted from 0, when the last one takes `total`."""
        if not self.coarse_to_fine:
            return total
        return max(int(total / self.iterations * (iteration + 1)), 1)

    def reinitialize(
        self, process: ForwardProcess, video: torch.Tensor, initial: torch.Tensor, fresh: torch.Tensor
    ) -> torch.Tensor:
        """
        The unit noise of the next iteration: the low band of `video` noised with `initial`, the high band of `fresh`.

        Args:
            process: forward process of the sampler.
            video: clean latents of the last iteration `(B, C, F, H, W)`.
            initial: unit noise of the first iteration, always the same one, so that its low band is kept.
            fresh: unit noise.
        """
        mask = low_pass(video.shape[2:], self.filter, self.spatial, self.temporal, self.order, self.parity)
        return mix(diffuse(process, video, initial, self.level_for(process)), fresh, mask, self.keep_variance)
