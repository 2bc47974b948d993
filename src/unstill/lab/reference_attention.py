"""The share of attention that a model gives to its first latent frame, in every block and at every noise level."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from unstill.errors import UnstillError
from unstill.hooks import apply
from unstill.methods.base import Method, Run


@dataclass(frozen=True, slots=True)
class ReferenceMass:
    """
    Attributes:
        levels: the timestep of every step.
        mass: `(steps, attentions)`: the share of attention that tokens of later frames give to the first frame's, in
            the self-attentions of the pass with the prompt, in the order in which the network computes them.
        uniform: the share of uniform attention: 1 / latent frames. Where text tokens are part of the attention, the
            share of uniform attention is slightly lower.
    """

    levels: tuple[float, ...]
    mass: torch.Tensor
    uniform: float


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Recorder(Method):
    levels: list[float] = field(default_factory=list)
    masses: dict[int, list[torch.Tensor]] = field(default_factory=dict)
    frames: list[int] = field(default_factory=list)

    def on_attention_mass(self, run: Run, mass: torch.Tensor) -> None:
        self.masses.setdefault(run.step, []).append(mass.mean())

    def on_step(self, run: Run, output: torch.Tensor, sample: torch.Tensor, t: torch.Tensor | float) -> torch.Tensor:
        self.levels.append(float(t))
        self.frames.append(run.frames + run.conditioning_frames)
        return output


def measure_reference_attention(pipe: Any, call: Callable[[], Any], *methods: Method) -> ReferenceMass:
    """
    Samples one video and measures its attention to the first latent frame.

    Args:
        pipe: a pipeline whose attention to the first frame is known (see `ReferenceBias`).
        call: calls the pipeline; the video is not used.
        *methods: that act during the call.

    Raises:
        UnstillError: as `apply`; or the steps have no attention, or not the same number of them.
    """
    recorder = _Recorder()
    with apply(pipe, *methods, recorder):
        call()
    counts = {len(masses) for masses in recorder.masses.values()}
    if len(counts) != 1 or len(recorder.masses) != len(recorder.levels):
        raise UnstillError(
            f"The steps of {type(pipe).__name__} have different numbers of attentions ({sorted(counts)}), so that "
            "they cannot be compared; turn off caches of features."
        )
    rows = [torch.stack(recorder.masses[step]) for step in sorted(recorder.masses)]
    return ReferenceMass(tuple(recorder.levels), torch.stack(rows).cpu(), 1 / recorder.frames[0])
