"""
The training loss of a batch; every random number of a clip is drawn from the clip's own generator.

Clip n of a run, counted over all steps and processes, has the generator of (seed, n). A step is therefore the same for
any number of processes, and a run resumes exactly from its step number alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unstill.families.training import Encoded, TrainingRole
from unstill.methods.time_noise import per_clip
from unstill.training.condition_noise import ConditionNoise, Plan
from unstill.training.loss_weights import denoising
from unstill.training.noise_sampling import Levels, Schedule
from unstill.training.prediction_and_residual import composed_errors


@dataclass(frozen=True, slots=True)
class ConditionDropout:
    """
    Probabilities of dropping only the caption, only the image, or both; and, independently, the motion level.
    """

    text: float = 0.0
    image: float = 0.0
    both: float = 0.0
    motion: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Objective:
    """
    The training objective of a denoiser.

    Attributes:
        family: training adapter of the model's family.
        schedule: distribution of the noise levels.
        plan: noise on the conditioning image.
        dropout: probabilities of dropping conditions.
        dropped: the inputs that replace a dropped caption and image.
        unspecified_motion: the value that replaces a dropped motion level, if the network has one.
    """

    family: TrainingRole
    schedule: Schedule
    plan: Plan
    dropout: ConditionDropout
    dropped: Encoded
    unspecified_motion: float | None = None

    def errors(self, model: Any, clips: Encoded, generators: Sequence[torch.Generator]) -> tuple[Tensor, Levels]:
        """
        The denoising errors of a batch.

        Per clip the generator draws, in this order: the noise level, the conditions to drop, the noise, and what the
        condition noise needs for image latents and tokens.

        Args:
            model: the denoiser.
            clips: a batch of encoded clips.
            generators: one per clip.

        Returns:
            Errors `(B,)`, float32, and the noise levels of the clips.
        """
        x0 = clips["latents"].float()
        device = x0.device
        levels = self.schedule.at(torch.cat([torch.rand(1, generator=g) for g in generators])).to(device)
        chances = torch.stack([torch.rand(2, generator=g) for g in generators]).to(device)  # (B, 2)
        eps = torch.stack([torch.randn(x0.shape[1:], generator=g) for g in generators]).to(device)
        inputs, image_level = self._noise_condition(clips, levels, generators)
        inputs = self._drop(inputs, chances)
        noisy = levels.model_input(levels.noised(x0, eps))
        if self.plan.residual:
            free, residual = self._both_passes(model, noisy, levels, inputs, image_level)
            return composed_errors(free, residual, levels.target(x0, eps)), levels
        output = self.family.predict(model, noisy, levels.timestep, inputs, image_level)
        return denoising(output, x0, eps, levels), levels

    def _both_passes(
        self, model: Any, noisy: Tensor, levels: Levels, inputs: Encoded, image_level: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The predictions without and with the image, in one call of the network on a batch of both."""
        nothing = torch.ones(len(noisy), dtype=torch.bool, device=noisy.device)
        free = self._without_image(dict(inputs), nothing)
        both = {name: torch.cat([free[name], value]) for name, value in inputs.items()}
        noisy, timestep, level = (torch.cat([x, x]) for x in (noisy, levels.timestep, image_level))
        without, given = self.family.predict(model, noisy, timestep, both, level).chunk(2)
        return without, given

    def _noise_condition(
        self, clips: Encoded, levels: Levels, generators: Sequence[torch.Generator]
    ) -> tuple[Encoded, Tensor]:
        """The batch with noise on its image, and the image's noise level as an input of the network `(B,)`."""
        inputs = dict(clips)
        image_level = torch.full_like(levels.time, self.family.usual_noise)
        if self.plan.latents is not None and "image" in inputs:
            image = inputs["image"].expand(-1, -1, inputs["latents"].shape[2], -1, -1)
            inputs["image"], level = _each(self.plan.latents, image, levels.time, generators)
            image_level = level if self.plan.condition_on_level else image_level
        if self.plan.tokens is not None and "tokens" in inputs:
            inputs["tokens"], _ = _each(self.plan.tokens, inputs["tokens"], levels.time, generators)
        return inputs, image_level

    def _drop(self, inputs: Encoded, chances: Tensor) -> Encoded:
        """Drops conditions; `chances` (B, 2) are uniform numbers for caption and image, and for the motion level."""
        p, r = self.dropout, chances[:, 0]
        no_text = r < p.text + p.both
        no_image = (r >= p.text) & (r < p.text + p.both + p.image)
        for name in inputs.keys() & self.dropped.keys():
            if name == "text" or name.startswith("text_"):
                inputs[name] = self._replaced(inputs, name, no_text)
        if not self.plan.residual:  # which has a pass without the image for every clip
            inputs = self._without_image(inputs, no_image)
        if "motion" in inputs and self.unspecified_motion is not None:
            unspecified = torch.full_like(inputs["motion"], self.unspecified_motion)
            inputs["motion"] = torch.where(chances[:, 1] < p.motion, unspecified, inputs["motion"])
        return inputs

    def _without_image(self, inputs: Encoded, rows: Tensor) -> Encoded:
        """Drops the image of these rows `(B,)`."""
        if "tokens" in inputs and "tokens" in self.dropped:
            inputs["tokens"] = self._replaced(inputs, "tokens", rows)
        if "image" in inputs and self.family.blank_latents:
            inputs["image"] = inputs["image"] * ~per_clip(rows, inputs["image"])
        return inputs

    def _replaced(self, inputs: Encoded, name: str, rows: Tensor) -> Tensor:
        """An input with these rows `(B,)` replaced by what stands for a dropped one."""
        value = inputs[name]
        return torch.where(per_clip(rows, value), self.dropped[name].to(value), value)


def batch_of(clips: Sequence[Encoded], device: torch.device) -> Encoded:
    """Encoded clips as one batch, float32, on the device."""
    return {name: torch.stack([clip[name] for clip in clips]).to(device).float() for name in clips[0]}


def with_fps(clips: Encoded, fps: float | None) -> Encoded:
    """The batch with its fps conditioning replaced by `fps`; `None` keeps the clips' own."""
    return clips if fps is None else {**clips, "fps": torch.full_like(clips["fps"], fps)}


def _each(
    condition: ConditionNoise, image: Tensor, time: Tensor, generators: Sequence[torch.Generator]
) -> tuple[Tensor, Tensor]:
    """`condition.corrupt` of every clip with the clip's own generator."""
    images, levels = zip(*(condition.corrupt(image[[i]], time[[i]], g) for i, g in enumerate(generators)), strict=True)
    return torch.cat(images), torch.cat([level.float() for level in levels])
