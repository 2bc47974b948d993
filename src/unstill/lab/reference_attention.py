"""The share of attention that a model gives to its first latent frame, in every block and at every noise level."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from unstill.errors import UnstillError
from unstill.families.registry import adapter_for
from unstill.hooks import apply
from unstill.hooks.attention_hooks import attends_by_torch
from unstill.lab.bootstrap import Interval, weights
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


@dataclass(frozen=True, slots=True)
class AttentionByLevel:
    """
    `ReferenceMass` of several clips, at the noise levels of a diagnosis.

    Attributes:
        mass: by level, then by attention.
        mean: by level, over all attentions.
        uniform: as of `ReferenceMass`.
    """

    mass: list[list[Interval]]
    mean: list[Interval]
    uniform: float

    def as_dict(self) -> dict[str, Any]:
        return {
            "mass": [[share.as_dict() for share in row] for row in self.mass],
            "mean": [share.as_dict() for share in self.mean],
            "uniform": round(self.uniform, 6),
        }


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class AttentionRecorder(Method):
    """Measures the attention to the first latent frame during one call of a pipeline; `result` returns it."""

    levels: list[float] = field(default_factory=list)
    masses: dict[int, list[torch.Tensor]] = field(default_factory=dict)
    frames: list[int] = field(default_factory=list)

    def on_attention_mass(self, run: Run, mass: torch.Tensor) -> None:
        self.masses.setdefault(run.step, []).append(mass.mean())

    def on_step(self, run: Run, output: torch.Tensor, sample: torch.Tensor, t: torch.Tensor | float) -> torch.Tensor:
        self.levels.append(float(t))
        self.frames.append(run.frames + run.conditioning_frames)
        return output

    @property
    def complete(self) -> bool:
        """Whether attention was seen, and equally often in every step: guidance may call the network twice in some."""
        return len({len(masses) for masses in self.masses.values()}) == 1 and len(self.masses) == len(self.levels)

    def result(self) -> ReferenceMass:
        """
        Raises:
            UnstillError: the steps have no attention, or not the same number of them.
        """
        if not self.masses:
            raise UnstillError(
                "No attention over the frames was seen; the network computes it in another way than by PyTorch's."
            )
        if not self.complete:
            counts = sorted({len(masses) for masses in self.masses.values()})
            raise UnstillError(
                f"The steps have different numbers of attentions ({counts}), so that they cannot be compared; turn "
                "off caches of features, and guidance that calls the network twice in some steps only."
            )
        rows = [torch.stack(self.masses[step]) for step in sorted(self.masses)]
        return ReferenceMass(tuple(self.levels), torch.stack(rows).cpu(), 1 / self.frames[0])


def has_reference_attention(pipe: Any) -> bool:
    """Whether the attention to the first frame can be measured: it is known where, and PyTorch computes it."""
    networks = [getattr(pipe, name, None) for name in adapter_for(pipe).attends]
    return bool(networks) and all(network is None or attends_by_torch(network) for network in networks)


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
    recorder = AttentionRecorder()
    with apply(pipe, *methods, recorder):
        call()
    return recorder.result()


def summarise_attention(clips: Sequence[Sequence[Sequence[float]]], uniform: float) -> AttentionByLevel:
    """
    Args:
        clips: of every clip, by level and attention, the share of attention that the first frame gets.
        uniform: the share if attention knew no difference.

    Returns:
        Means with bootstrap intervals over clips.
    """
    values = np.array(clips)  # (clips, levels, attentions)
    count = len(values)
    w = weights(count) / count

    def intervals(columns: np.ndarray) -> list[Interval]:
        return [Interval.of(w @ column, count, (0, 1)) for column in columns.T]

    mass = [intervals(values[:, level]) for level in range(values.shape[1])]
    return AttentionByLevel(mass, intervals(values.mean(2)), uniform)
