"""
The trainer: one run per folder, resumable, on any number of processes through accelerate.

    out/run.json            the recipe with all defaults filled in
    out/loss.csv            step, loss, learning rate, gradient norm; identical after interruptions
    out/checkpoints/        the last few checkpoints
    out/validation/         videos and leakage curves during training
    out/pipeline/           the finished model in diffusers' format, which `unstill.load` opens
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor

from unstill.data.files import sweep_all
from unstill.data.loading import Loader, index_and_epoch
from unstill.data.seeding import generator_for
from unstill.data.sources import Source
from unstill.errors import UnstillError, lacks_memory
from unstill.families.training import TrainingRole
from unstill.progress import FigureProgress, time_left
from unstill.training import parameters
from unstill.training.checkpoints import Checkpoints, dotted, newest_checkpoint, same_run
from unstill.training.disk_space import check_run
from unstill.training.encoded_dataset import Encoder, encoded_clips
from unstill.training.failure_messages import clip_out_of_memory, not_a_number, out_of_memory
from unstill.training.frozen_parts import FrozenParts
from unstill.training.interrupts import Stopping
from unstill.training.learning_rate import warmup_and_decay
from unstill.training.lora import LoraSettings
from unstill.training.loss import batch_of, with_fps
from unstill.training.loss_log import Figures, LossCurve, truncate
from unstill.training.recipe import Recipe
from unstill.training.results import PRECISIONS, TrainingResult, write_results
from unstill.training.setup import (
    accelerator_for,
    alone_in,
    check_inputs,
    check_outside,
    objective_of,
    opened,
    warn_of_repetition,
)
from unstill.training.trackers import end_trackers, start_trackers


log = logging.getLogger(__name__)
Validation = Callable[[Any, int, Path], dict[str, float]]  # pipeline, steps done, folder -> scores


def train(
    recipe: Recipe, out: Path, report: FigureProgress, validation: Validation | None = None
) -> TrainingResult | None:
    """
    Starts or resumes the run in the folder `out`. Called by every process.

    Args:
        recipe: all settings.
        out: folder of the run.
        report: called with the progress.
        validation: evaluates the model every `recipe.validation.every` steps and at the end.

    Returns:
        The result in the main process, `None` in the others.

    Raises:
        UnstillError: an impossible recipe, another run in the folder, or a loss that is not a number.
        KeyboardInterrupt: stopped by Ctrl-C or SIGTERM, after saving a checkpoint.
    """
    accelerator = accelerator_for(recipe)
    with accelerator.main_process_first():
        pipe, family, source = opened(recipe)
    if validation is not None:
        check_outside(out, source)
    out.mkdir(parents=True, exist_ok=True)
    if accelerator.is_main_process:
        warn_of_repetition(recipe, source)
    model = getattr(pipe, family.denoiser)
    run = _Run(recipe, out, accelerator, pipe, family, source, report)
    try:
        with alone_in(out, accelerator.is_main_process):
            if accelerator.is_main_process:
                nested = recipe.model_dump(mode="json", by_alias=True)
                run_id = same_run(out, nested, parameters.shape_of(model), source.fingerprint)
                sweep_all(out)
                newest = newest_checkpoint(out)
                first = 0 if newest is None else int(newest.name)
                start_trackers(accelerator, recipe.trackers, out, run_id, first, dotted(nested))
            accelerator.wait_for_everyone()
            run.prepare()
            result = run.train(validation)
    except (RuntimeError, MemoryError) as error:
        if not lacks_memory(error):
            raise
        place = str(accelerator.device)
        raise UnstillError(out_of_memory(place, run.at_once) if run.encoded else clip_out_of_memory(place)) from error
    finally:
        end_trackers(accelerator)
        accelerator.end_training()
    return result if accelerator.is_main_process else None


class _Run:
    """One run: what is prepared once, and the loop."""

    def __init__(
        self,
        recipe: Recipe,
        out: Path,
        accelerator: Accelerator,
        pipe: Any,
        family: TrainingRole,
        source: Source,
        report: FigureProgress,
    ) -> None:
        self.recipe, self.out, self.accelerator = recipe, out, accelerator
        self.pipe, self.family, self.source, self.report = pipe, family, source, report
        self.share = recipe.train.batch // accelerator.num_processes  # clips per step of this process
        self.at_once = self.share // accelerator.gradient_accumulation_steps
        self.figures = Figures(out / "validation" / "figures.jsonl")
        self.model = getattr(pipe, family.denoiser)
        self.frozen = FrozenParts(pipe, family)
        self.encoded = False  # whether a clip fitted into memory when it was encoded

    def prepare(self) -> None:
        """Clips, weights, optimizer, objective."""
        recipe, family, accelerator = self.recipe, self.family, self.accelerator
        o = recipe.train
        check_run(recipe, self.out, self.pipe, family, self.source)
        self.model.requires_grad_(False).eval().to(accelerator.device)
        self.frozen.for_encoding(accelerator.device)
        encoder = Encoder(self.pipe, family, recipe.data.condition_frame == "random", recipe.motion_bucket)
        self.clips, self.encode = encoded_clips(
            self.source,
            encoder,
            recipe.seed,
            Path(recipe.data.cache_folder or self.out / "latents") if recipe.data.cache else None,
            recipe.data.workers,
            accelerator,
            lambda done, total: self.report("latents", done, total, ""),
        )
        first = self.encode(self.clips.read(0, 0))
        check_inputs(recipe, first)
        self.encoded = True
        self.dropped = {k: v.cpu() for k, v in family.dropped(self.pipe, first).items()}
        if recipe.data.cache:  # the frozen parts are not needed until validation
            self.frozen.for_encoding("cpu")
        lora, precision = recipe.lora, PRECISIONS.get(o.mixed_precision)
        if lora is not None and precision is not None:
            self.model.to(precision)  # frozen weights need no float32
            self.frozen.idle_to(precision)
        self.trained = parameters.select(
            self.model,
            None
            if lora is None
            else LoraSettings(lora.rank, lora.alpha or lora.rank, tuple(lora.targets or family.lora), recipe.seed),
            family.unread(self.model),
        )
        self.model.train().to(accelerator.device)
        if o.gradient_checkpointing:
            if not self.model._supports_gradient_checkpointing:
                raise UnstillError(f"{type(self.model).__name__} has no gradient checkpointing; leave it out.")
            self.model.enable_gradient_checkpointing()
        self.average = parameters.Average(self.trained, o.ema) if o.ema is not None else None
        optimizer = torch.optim.AdamW(
            self.trained.values(), o.learning_rate, betas=o.betas, weight_decay=o.weight_decay
        )
        if o.compile:
            self.model.compile()
        self.prepared, self.optimizer = accelerator.prepare(self.model, optimizer)
        self.checkpoints = Checkpoints(self.out, accelerator, self.trained, self.average, recipe.save.keep)
        self.objective = objective_of(recipe, self.pipe, family, self.dropped, first["latents"].shape)

    def train(self, validation: Validation | None) -> TrainingResult:
        """The training loop, starting from the last checkpoint."""
        recipe, accelerator, o = self.recipe, self.accelerator, self.recipe.train
        first, newest = 0, self.checkpoints.newest()
        if newest is not None:
            first = self.checkpoints.load(newest)
        if first > o.steps:
            raise UnstillError(
                f"{self.out} holds {first} steps of training already, more than train.steps, which is {o.steps}; "
                "raise it, or give this run another folder."
            )
        if accelerator.is_main_process:
            truncate(self.out / "loss.csv", first)
            self.figures.truncate(first)
        loader = Loader(
            self.clips,
            o.batch,
            recipe.seed,
            accelerator.process_index,
            accelerator.num_processes,
            recipe.data.workers,
        )
        batches, waited, began = loader.batches(first), 0.0, time.monotonic()
        losses: list[float] = []
        curve = LossCurve(self.out / "loss.csv", accelerator.is_main_process)
        with curve, Stopping(accelerator) as stopping:
            # A run that was killed after the last checkpoint may have missed its validation.
            if validation is not None and self._due(first) and not self._validated(first):
                self._validate(validation, first)
            for step in range(first, o.steps):
                since = time.monotonic()
                clips = next(batches)
                waited += time.monotonic() - since
                rate = learning_rate(recipe, step)
                loss, norm = self._step(step, clips, rate)
                losses.append(loss)
                curve.write(step + 1, loss, rate, norm)
                done, elapsed = step + 1, time.monotonic() - began
                speed = (done - first) * o.batch / elapsed
                left = time_left(elapsed * (o.steps - done) / (done - first))
                self.report("training", done, o.steps, f"loss {loss:.4f}, {speed:.2f} clips/s, {left} left")
                if accelerator.trackers:
                    accelerator.log({"loss": loss, "learning_rate": rate, "gradient_norm": norm}, step=done)
                if done % recipe.save.every == 0 or done == o.steps:
                    curve.keep()
                    self.checkpoints.save(done)
                if done < o.steps and stopping.agreed():
                    self._stop(done, curve, stopping)  # a validation that is due is made when the run is resumed
                if validation is not None and self._due(done):
                    self._validate(validation, done)
        elapsed = time.monotonic() - began
        seconds = max(elapsed, 1e-9)
        if accelerator.is_main_process:
            accelerator.unwrap_model(self.prepared, keep_torch_compile=False)
            if self.average is not None:
                parameters.put(self.trained, self.average.values)
            write_results(self.pipe, self.family.denoiser, recipe, self.out)
        accelerator.wait_for_everyone()
        return TrainingResult(self.out / "pipeline", losses, len(losses) * o.batch / seconds, waited / seconds)

    def _stop(self, done: int, curve: LossCurve, stopping: Stopping) -> NoReturn:
        """Saves a checkpoint and ends the run."""
        curve.keep()
        newest = self.checkpoints.newest()
        if newest is None or int(newest.name) != done:
            self.checkpoints.save(done)
        raise stopping.error(f"Stopped after {done} steps, which are saved; the same command resumes from there.")

    def _step(self, step: int, clips: list[Any], rate: float) -> tuple[float, float]:
        """One update; returns the mean error over the clips of all processes, and the gradient norm."""
        o, accelerator = self.recipe.train, self.accelerator
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        errors: list[Tensor] = []
        loss, norm = float("nan"), torch.tensor(0.0)
        own = step * o.batch + accelerator.process_index * self.share  # number of its first clip
        for start in range(0, self.share, self.at_once):
            encoded = [self.encode(clip) for clip in clips[start : start + self.at_once]]
            numbers = range(own + start, own + start + self.at_once)
            generators = [generator_for("step", self.recipe.seed, n) for n in numbers]
            torch.manual_seed(generator_for("dropout", self.recipe.seed, numbers[0]).initial_seed())
            batch = with_fps(batch_of(encoded, accelerator.device), self.recipe.fps_condition)
            with accelerator.accumulate(self.prepared):
                own_errors, _ = self.objective.errors(self.prepared, batch, generators)
                errors.append(own_errors.detach())
                accelerator.backward(own_errors.mean())
                if accelerator.sync_gradients:
                    # Read once, after everything is queued: an accelerator stands still while a result is read.
                    all_errors = accelerator.gather(torch.cat(errors)).cpu()
                    self._check(step, all_errors)
                    loss = all_errors.double().mean().item()
                    norm = accelerator.clip_grad_norm_(self.trained.values(), o.clip)
                    if accelerator.scaler is None and norm is not None and not torch.isfinite(norm):
                        raise self._not_a_number("gradient", step, "a sum over the whole batch")
                self.optimizer.step()
                self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update(step + 1)
        return loss, float("nan") if norm is None else float(norm)

    def _check(self, step: int, errors: Tensor) -> None:
        """Raises `UnstillError`, in every process and before any update, if an error is not a finite number."""
        finite = torch.isfinite(errors)
        if finite.all():
            return
        names = []
        for i in (~finite).nonzero().flatten().tolist()[:3]:
            number = step * self.recipe.train.batch + i  # the errors of all processes are in the order of the clips
            index, _ = index_and_epoch(number, len(self.clips), self.recipe.seed)
            names.append(self.clips.name(index))
        raise self._not_a_number("loss", step, ", ".join(names))

    def _not_a_number(self, what: str, step: int, where: str) -> UnstillError:
        newest, precision = self.checkpoints.newest(), self.recipe.train.mixed_precision
        return UnstillError(not_a_number(what, step, where, newest, self.model, precision))

    def _due(self, done: int) -> bool:
        """Whether a validation is due after this many steps."""
        every = None if self.recipe.validation is None else self.recipe.validation.every
        return every is not None and done > 0 and (done % every == 0 or done == self.recipe.train.steps)

    def _validated(self, done: int) -> bool:
        """Whether the validation after this many steps exists; broadcast from the main process, which writes it."""
        exists = [done in self.figures.steps()]
        broadcast_object_list(exists)
        return exists[0]

    def _validate(self, validation: Validation, step: int) -> None:
        """The main process validates the averaged weights; the others wait."""
        if self.accelerator.is_main_process:
            self.report("training", step, self.recipe.train.steps, f"validating after {step} steps")
            self.model.eval()
            self.frozen.for_sampling(self.accelerator.device)
            folder = self.out / "validation"
            folder.mkdir(exist_ok=True)
            values = None if self.average is None else self.average.values
            figures: dict[str, float] = {}
            with parameters.using(self.trained, values), torch.no_grad(), self.accelerator.autocast():
                try:
                    figures = validation(self.pipe, step, folder)
                except Exception as error:  # a failed validation must not end the run
                    log.warning("No validation after %d steps: %s: %s", step, type(error).__name__, error)
            self.model.train()
            self.frozen.for_encoding("cpu" if self.recipe.data.cache else self.accelerator.device)
            self.figures.write(step, figures)
            if self.accelerator.trackers:
                self.accelerator.log(figures, step=step)
        self.accelerator.wait_for_everyone()


def learning_rate(recipe: Recipe, step: int) -> float:
    """The learning rate of a step: linear warm-up, constant, linear decay to 0 over the last `decay` of the steps."""
    o = recipe.train
    return o.learning_rate * warmup_and_decay(step, o.steps, o.warmup, o.decay)
