"""Sets up a training run: validates the configuration, opens accelerator, pipeline and clips, builds the loss."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from unstill.data.files import alone
from unstill.data.sources import Source, open_source
from unstill.errors import UnstillError, shown
from unstill.families.model_card import Model
from unstill.families.registry import ADAPTERS, MODELS, TRAINING, adapter_for, training_for
from unstill.families.training import Encoded, TrainingRole
from unstill.forward_process import ForwardProcess
from unstill.models.call_arguments import native_frames, native_size
from unstill.training.condition_noise import Clean, Plan, plan_of
from unstill.training.loss import ConditionDropout, Objective
from unstill.training.noise_sampling import Schedule, schedule_of
from unstill.training.recipe import Noise, Recipe
from unstill.training.trackers import check_installed


PATIENCE = 10.0  # seconds to wait for the worker processes of a killed run to end
MANY_PASSES = 100  # over the same clips, from which on a run is warned of
log = logging.getLogger(__name__)


def accelerator_for(recipe: Recipe) -> Accelerator:
    """
    The accelerator of a run.

    Args:
        recipe: of the run.

    Raises:
        UnstillError: a batch that the processes cannot share, an impossible precision, or a missing tracker.
    """
    check_installed(recipe.trackers)
    o = recipe.train
    try:
        accelerator = Accelerator(mixed_precision=o.mixed_precision)
    except ValueError as error:  # a device without it, or another precision earlier in the same Python process
        raise UnstillError(f"train.mixed_precision {o.mixed_precision} is not possible here ({error}).") from error
    processes = accelerator.num_processes
    at_once = o.batch_per_device or max(1, o.batch // processes)
    if o.batch % (processes * at_once):
        raise UnstillError(
            f"train.batch is {o.batch} clips, of which every forward pass takes {processes * at_once} (processes: "
            f"{processes}, clips in each: {at_once}); make it a multiple of {processes * at_once}, or change "
            "train.batch_per_device."
        )
    accelerator.gradient_accumulation_steps = o.batch // (processes * at_once)
    return accelerator


def alone_in(out: Path, is_main_process: bool) -> AbstractContextManager[None]:
    """Reserves the folder for the processes of this run; the main process holds the lock."""
    if not is_main_process:
        return nullcontext()
    return alone(
        out, f"Another process is training in {out}; wait for it, stop it, or choose another --out.", PATIENCE
    )


def opened(recipe: Recipe) -> tuple[Any, TrainingRole, Source]:
    """
    Opens what a recipe names.

    Returns:
        The pipeline on the CPU in float32, the training adapter of its family, and the source of clips.

    Raises:
        UnstillError: anything in the recipe that is not possible with this model.
    """
    from unstill.models.registry import find, load

    check_condition(recipe)
    pipe: Any = load(recipe.model, checkpoint=recipe.checkpoint, dtype=torch.float32, device="cpu")
    family, entry = training_for(pipe), find(recipe.model)
    if family.image_is_frame and recipe.data.condition_frame != "first":
        raise UnstillError(
            f"data.condition_frame is {recipe.data.condition_frame}, but the image of {type(pipe).__name__} is the "
            "first frame of the video itself; leave it out."
        )
    _plan(recipe, family)
    settings = recipe.data.settings(*usual_clip(pipe, entry), recipe.seed)
    family.check_clip(pipe, settings.frames, settings.size)
    if recipe.lora is not None:
        check_targets(getattr(pipe, family.denoiser), recipe.lora.targets or family.lora)
    return pipe, family, open_source(settings)


def check_outside(out: Path, source: Source) -> None:
    """Raises `UnstillError` if `out` is below the folder of the videos: those of validations would become clips."""
    videos = source.settings.path
    if source.settings.kind == "world" or videos is None:
        return
    if out.resolve().is_relative_to(Path(videos).resolve()):
        raise UnstillError(
            f"The run's folder {out} lies in the folder of the videos, {videos}, so that videos of its validations "
            "would be taken for clips; choose another --out, or move the videos into a folder of their own."
        )


def check_inputs(recipe: Recipe, clip: Encoded) -> None:
    """Raises `UnstillError` for a setting of an input that the network, as an encoded clip shows, does not have."""
    for key, value, name in (
        ("motion_bucket", recipe.motion_bucket, "motion"),
        ("fps_condition", recipe.fps_condition, "fps"),
    ):
        if value is not None and name not in clip:
            raise UnstillError(f"{key} is {value:g}, but this model has no such input; leave {key} out of the recipe.")


def warn_of_repetition(recipe: Recipe, source: Source) -> None:
    """Warns where a run passes very often over the same few clips of videos, as a cache makes them."""
    passes = recipe.train.steps * recipe.train.batch / len(source)
    if recipe.data.cache and source.settings.kind != "world" and passes > MANY_PASSES:
        log.warning(
            "The training repeats the same %s %.0f times; take more clips of each video (data.clips_per_video, "
            "here %d), or other parts of the videos in every pass (data.cache: false).",
            "clip" if len(source) == 1 else f"{len(source)} clips",
            passes,
            source.settings.clips_per_video,
        )


def objective_of(
    recipe: Recipe, pipe: Any, family: TrainingRole, dropped: dict[str, Tensor], latents: torch.Size
) -> Objective:
    """
    The training loss of a recipe.

    Args:
        recipe: of the run.
        pipe: whose scheduler defines the forward process.
        family: the training adapter of `pipe`.
        dropped: the network's inputs in place of a dropped condition, by name.
        latents: shape of the latents of a clip, (C, F, h, w).
    """
    return Objective(
        family,
        schedule_for(pipe, family, latents, recipe.noise),
        _plan(recipe, family, ForwardProcess.of(pipe.scheduler)),
        ConditionDropout(**recipe.drop.model_dump()),
        dropped,
        getattr(getattr(pipe, family.denoiser), "unspecified_motion", None),
    )


def schedule_for(pipe: Any, family: TrainingRole, latents: torch.Size, noise: Noise | None = None) -> Schedule:
    """
    The distribution of the noise levels that a pipeline's denoiser is trained on.

    Args:
        pipe: the pipeline. Where it has a second network for low noise, these levels are left out.
        family: its training adapter.
        latents: shape of the latents of a clip, (C, F, h, w).
        noise: the settings of a recipe.
    """
    handover = adapter_for(pipe).handover(pipe)
    return schedule_of(
        ForwardProcess.of(pipe.scheduler),
        **(noise or Noise()).model_dump(),
        shift=family.shift(pipe, latents),
        lowest=0.0 if handover is None else handover / pipe.scheduler.config.num_train_timesteps,
    )


def check_condition(recipe: Recipe) -> None:
    """
    Checks the condition noise before the model is loaded, if the model's class is known by then.

    Raises:
        UnstillError: a preset or parameters that the model's family does not have.
    """
    from unstill.models.registry import pipeline_name

    name = pipeline_name(recipe.model) or ""
    family = TRAINING.get(name)
    if family is not None:
        if recipe.condition.method == "prediction-and-residual" and not ADAPTERS[name].zero_unconditional:
            raise UnstillError(
                f"condition.method: prediction-and-residual needs a model that works without its image, too, and "
                f"{name}'s is not known to; use Stable Video Diffusion or pico, or another method."
            )
        _plan(recipe, family)


def _plan(recipe: Recipe, family: TrainingRole, process: ForwardProcess | None = None) -> Plan:
    """The noise on the image; of `process`, the forward process of the model, once that is loaded."""
    c = recipe.condition
    plan = plan_of(
        family.name,
        c.method,
        c.preset,
        on=c.on,
        condition_on_level=c.condition_on_level,
        parameters=c.parameters(),
        process=process,
        image_is_frame=family.image_is_frame,
        usual_input="latents" if family.has_latents else "tokens",
    )
    inputs = ("latents", plan.latents, family.has_latents), ("tokens", plan.tokens, family.has_tokens)
    for kind, noise, seen in inputs:
        if not seen and not isinstance(noise, Clean | None):
            raise UnstillError(
                f"condition: {family.name} models see no {kind} of the image, which would get the noise; give on: "
                f"{'tokens' if kind == 'latents' else 'latents'}."
            )
    return plan


def check_targets(denoiser: torch.nn.Module, targets: Sequence[str]) -> None:
    """
    Checks LoRA targets before any clip is encoded.

    Raises:
        UnstillError: a target that no linear layer is named after.
    """
    linear = {name for name, module in denoiser.named_modules() if isinstance(module, torch.nn.Linear)}
    for target in targets:
        if not any(name == target or name.endswith(f".{target}") for name in linear):
            known = sorted({last for name in linear if not (last := name.rpartition(".")[2]).isdigit()})
            raise UnstillError(
                f"{type(denoiser).__name__} has no linear layers called {shown(target)}; name some in lora.targets, "
                f"such as {', '.join(known[:20])}."
            )


def usual_clip(pipe: Any, entry: Model | None) -> tuple[int, float | None, tuple[int, int]]:
    """
    The default clip of a model, where the recipe does not set it.

    Returns:
        (frames, fps, size). For an unknown checkpoint: what its pipeline generates by default, at the rate of the
        first registered model of its class, if there is one.
    """
    if entry is not None:
        return entry.frames, float(entry.fps), entry.size
    like = next((model for model in MODELS if model.pipeline == type(pipe).__name__), None)
    return native_frames(pipe), float(like.fps) if like else None, native_size(pipe)
