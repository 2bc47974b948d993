"""One training step's errors: everything random about a clip is drawn from a generator of its own.

Clip n of a run, counted over all steps and processes, has the generator of (seed, n). So a step is the same however
many processes share it, and a run goes on exactly from nothing but its step number.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unstill.families.training import Encoded, TrainingRole
from unstill.training.condition_noise import Condition, Plan
from unstill.training.loss_weights import denoising
from unstill.training.noise_sampling import Levels, Schedule


@dataclass(frozen=True, slots=True)
class Withhold:
    """Probabilities of withholding only the caption, only the image, both; and, by itself, the motion level."""

    text: float = 0.0
    image: float = 0.0
    both: float = 0.0
    motion: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Objective:
    """What is minimised.

    Attributes:
        nothing: what stands for a withheld caption and image.
        unspecified_motion: what the network is told for a withheld motion level, if it has such a value.
    """

    family: TrainingRole
    schedule: Schedule
    plan: Plan
    withhold: Withhold
    nothing: Encoded
    unspecified_motion: float | None = None

    def errors(self, model: Any, clips: Encoded, generators: Sequence[torch.Generator]) -> tuple[Tensor, Levels]:
        """Errors `(B,)` of a batch of encoded clips, float32, and the levels they were at.

        Per clip the generator draws, in this order: the level, what is withheld, the noise, and what the condition
        augmentation needs for image latents and tokens.
        """
        x0 = clips["latents"].float()
        device = x0.device
        levels = self.schedule.at(torch.cat([torch.rand(1, generator=g) for g in generators])).to(device)
        chances = torch.stack([torch.rand(2, generator=g) for g in generators]).to(device)  # (B, 2)
        eps = torch.stack([torch.randn(x0.shape[1:], generator=g) for g in generators]).to(device)
        given, told = self._condition(clips, levels, generators)
        given = self._withheld(given, chances)
        noisy = levels.model_input(levels.noised(x0, eps))
        output = self.family.predict(model, noisy, levels.timestep, given, told)
        return denoising(output, x0, eps, levels), levels

    def _condition(
        self, clips: Encoded, levels: Levels, generators: Sequence[torch.Generator]
    ) -> tuple[Encoded, Tensor]:
        """The batch with its image noised, and the noise level that the network is told `(B,)`."""
        given = dict(clips)
        told = torch.full_like(levels.time, self.family.usual_noise)
        if self.plan.latents is not None and "image" in given:
            image = given["image"].expand(-1, -1, given["latents"].shape[2], -1, -1)
            given["image"], level = _each(self.plan.latents, image, levels.time, generators)
            told = level if self.plan.tell else told
        if self.plan.tokens is not None and "tokens" in given:
            given["tokens"], _ = _each(self.plan.tokens, given["tokens"], levels.time, generators)
        return given, told

    def _withheld(self, given: Encoded, chances: Tensor) -> Encoded:
        """`chances` (B, 2): uniform numbers that decide about caption and image, and about the motion level."""
        p, r = self.withhold, chances[:, 0]
        no_text = r < p.text + p.both
        no_image = (r >= p.text) & (r < p.text + p.both + p.image)
        for name, without in (("text", no_text), ("tokens", no_image)):
            if name in given:
                blank = self.nothing[name].to(given[name])
                given[name] = torch.where(_over(without, given[name]), blank, given[name])
        if "image" in given and self.family.blank_latents:
            given["image"] = given["image"] * ~_over(no_image, given["image"])
        if "motion" in given and self.unspecified_motion is not None:
            unknown = torch.full_like(given["motion"], self.unspecified_motion)
            given["motion"] = torch.where(chances[:, 1] < p.motion, unknown, given["motion"])
        return given


def batch_of(clips: Sequence[Encoded], device: torch.device) -> Encoded:
    """Encoded clips as one batch, float32, on the device."""
    return {name: torch.stack([clip[name] for clip in clips]).to(device).float() for name in clips[0]}


def told_as(clips: Encoded, fps: float | None) -> Encoded:
    """The batch with another rate told."""
    return clips if fps is None else {**clips, "fps": torch.full_like(clips["fps"], fps)}


def _each(
    condition: Condition, image: Tensor, time: Tensor, generators: Sequence[torch.Generator]
) -> tuple[Tensor, Tensor]:
    """`condition.corrupt`, every clip with its own generator."""
    made = [condition.corrupt(image[[i]], time[[i]], g) for i, g in enumerate(generators)]
    return torch.cat([m[0] for m in made]), torch.cat([m[1].float() for m in made])


def _over(chosen: Tensor, like: Tensor) -> Tensor:
    return chosen.view(-1, *[1] * (like.ndim - 1))
