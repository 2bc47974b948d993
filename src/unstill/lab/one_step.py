"""
One-step predictions of a model at given noise levels, by its own pipeline.

One call of the pipeline visits all levels: a method gives it a noised clip, converts the prediction to x0, and returns
the next noised clip as the next sample, so that no solver step runs. Conditioning, guidance and layout are the
pipeline's own, and text encoders run once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from unstill.errors import UnstillError
from unstill.forward_process import ForwardProcess
from unstill.hooks import adapter_for, apply
from unstill.lab.probe_conditions import ImageCondition, NoiseLevel, Unit, weaken
from unstill.methods.base import Method, NextSample, Run, Target
from unstill.noise_schedule import Grid, level_of


@dataclass(frozen=True, slots=True)
class Predictions:
    """
    One-step predictions of one clip, without conditioning frames.

    Attributes:
        levels: the n noise levels.
        noisy: the noised clip at each level, (n, C, F, h, w).
        x0: the predicted clip at each level, (n, C, F, h, w).
    """

    levels: tuple[NoiseLevel, ...]
    noisy: Tensor
    x0: Tensor


def unit_of(process: ForwardProcess) -> Unit:
    """The unit in which methods take levels of this process: `"sigma"` if there is no training time, as in SVD."""
    try:
        level_of(process, start=0.5)
    except UnstillError:
        return "sigma"
    return "start"


def usual_levels(pipe: Any) -> tuple[float, ...]:
    """About ten levels from the highest that the pipeline samples at, in the unit of `unit_of`."""
    process = adapter_for(pipe).process(pipe.scheduler)
    if unit_of(process) == "start":
        return (1.0, 0.98, 0.96, 0.92, 0.88, 0.8, 0.7, 0.6, 0.4, 0.2)
    highest = float(pipe.scheduler.config.sigma_max)
    return (highest, *(2.0**k for k in range(10, -2, -1) if 2.0**k < 0.8 * highest))


def has_image(pipe: Any) -> bool:
    """Whether the pipeline is conditioned on an image at all."""
    return adapter_for(pipe).image_latents_from is not None


def one_step(
    pipe: Any,
    call: dict[str, Any],
    latents: Tensor,
    noise: Tensor,
    levels: Sequence[float],
    *,
    methods: Sequence[Method] = (),
    condition: ImageCondition = "image",
) -> Predictions:
    """
    Predicts the clean clip from a noised one in one step, at every level.

    Args:
        pipe: a pipeline that `apply` supports.
        call: arguments of the pipeline's call, see `unstill.models.call_arguments.arguments`.
        latents: (1, C, F, h, w), the clean clip, from the adapter's `encode_video`.
        noise: (len(levels), C, F, h, w), unit noise for each level.
        levels: in the unit of `unit_of`, descending.
        methods: applied as in sampling; none may own levels or latents.
        condition: `"weakened"` adds noise to the image latents that the denoiser sees; `"removed"` replaces them by
            zeros, and the pipeline's image by a grey picture.

    Returns:
        The predictions, on the CPU.

    Raises:
        UnstillError: as `apply`; for a changed condition of a pipeline without image; for schedulers that call the
            model twice per level.
    """
    adapter = adapter_for(pipe)
    process = adapter.process(pipe.scheduler)
    visit = _Visit(values=tuple(levels), unit=unit_of(process), clean=latents.float(), noise=noise.float())
    changed: tuple[Method, ...] = ()
    if condition != "image":
        if adapter.image_latents_from is None:
            raise UnstillError(f"{type(pipe).__name__} has no image that could be {condition}; use 'image'.")
        if condition == "weakened" and not adapter.denoisers:
            raise UnstillError(f"The denoiser of {type(pipe).__name__} sees no image latents; use 'removed'.")
        if condition == "removed":
            call = {**call, "image": Image.new("RGB", call["image"].size, (128, 128, 128))}
        if adapter.denoisers:
            changed = (RemovedImage() if condition == "removed" else _Weakened(),)
    steps = max(len(levels), 4)  # some schedulers cannot space fewer
    call = {
        **call,
        "num_inference_steps": steps,
        "output_type": "latent",
        "generator": torch.Generator().manual_seed(0),
    }
    image = latents[:, :, :1] if adapter.image_latents_from is None else None
    with torch.no_grad(), apply(pipe, *methods, *changed, visit, image=image):
        pipe(**call)
    return Predictions(tuple(visit.levels), torch.cat(visit.noisy).cpu(), torch.cat(visit.x0).cpu())


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Visit(Method):
    values: tuple[float, ...]
    unit: Unit
    clean: Tensor
    noise: Tensor
    levels: list[NoiseLevel] = field(default_factory=list)
    noisy: list[Tensor] = field(default_factory=list)
    x0: list[Tensor] = field(default_factory=list)

    owns = frozenset({"levels", "latents"})

    def check(self, others: Sequence[Method], target: Target) -> None:
        if target.order != 1:
            raise UnstillError(
                f"{type(target.process.scheduler).__name__} calls the model twice per level; "
                "give the pipeline a scheduler that calls it once, such as Euler or DDIM."
            )

    def on_schedule(self, run: Run, grid: Grid) -> Grid:
        """The exact levels in the scheduler's unit; only integer timesteps are rounded."""
        process = run.process
        timesteps, alphas, sigmas = zip(*(level_of(process, **{self.unit: v}) for v in self.values), strict=True)
        t = torch.tensor(timesteps, dtype=torch.float64)
        t = (t if grid.timesteps.is_floating_point() else t.round()).to(grid.timesteps)
        if grid.sigmas is None:
            return Grid(t)
        counted = [s / a if process.kind == "vp_sigma" else s for a, s in zip(alphas, sigmas, strict=True)]
        if process.inverted:
            counted = [1 - s for s in counted]
        return Grid(t, torch.tensor([*counted, float(grid.sigmas[-1])]).to(grid.sigmas))

    def on_start(self, run: Run, latents: Tensor) -> Tensor:
        return self._noised(run, 0, latents)

    def on_step(self, run: Run, output: Tensor, sample: Tensor, t: Tensor | float) -> NextSample:
        self.noisy.append(sample)
        self.x0.append(run.process.to_x0(output, sample, t, run.step).float())
        last = run.step + 1 == len(self.values)
        return NextSample(sample if last else self._noised(run, run.step + 1, sample))

    def _noised(self, run: Run, index: int, like: Tensor) -> Tensor:
        """alpha x0 + sigma eps at level `index` of the grid."""
        alpha, sigma = run.process.alpha_sigma(run.grid.timesteps[index], index)
        self.levels.append(NoiseLevel(self.values[index], alpha, sigma))
        clean = self.clean[:, :, run.conditioning_frames :].to(like)
        noise = self.noise[index][None, :, run.conditioning_frames :].to(like)
        if clean.shape != like.shape:
            raise UnstillError(
                f"The clip has latents {tuple(clean.shape)}, but the pipeline was called for {tuple(like.shape)}; "
                "ask it for the clip's size and number of frames."
            )
        return alpha * clean + sigma * noise


@dataclass(frozen=True, kw_only=True, slots=True)
class RemovedImage(Method):
    """Replaces the image latents that the denoiser sees by zeros; other methods still get the image."""

    def on_condition(self, run: Run, image_latents: Tensor) -> Tensor:
        return torch.zeros_like(image_latents)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Weakened(Method):
    def on_condition(self, run: Run, image_latents: Tensor) -> Tensor:
        return weaken(image_latents)
