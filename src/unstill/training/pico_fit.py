"""The training loop of the autoencoder and of the denoiser: resumable, on any number of processes."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from unstill.errors import UnstillError
from unstill.progress import FigureProgress
from unstill.training.checkpoints import Checkpoints
from unstill.training.interrupts import Stopping
from unstill.training.loss_log import LossCurve, truncate
from unstill.training.parameters import Average
from unstill.training.pico_recipe import generator


@dataclass(frozen=True, slots=True)
class Phase:
    """
    The training of one of the two networks.

    Attributes:
        name: of the phase in reports.
        key: (seed, number of the phase); with the step and the process it seeds the generator of a step.
        steps: number of steps.
        batch: samples per step, over all processes.
        unit: of `batch`, such as clips.
        rate: maps a step to a factor of the optimizers' learning rates.
        loss: maps the network, the step and its generator to the loss.
        figures: further figures of the steps since its last call, as text.
    """

    name: str
    key: tuple[int, int]
    steps: int
    batch: int
    unit: str
    rate: Callable[[int], float]
    loss: Callable[[Any, int, torch.Generator], Tensor]
    figures: Callable[[], str]


def train_network(
    phase: Phase,
    network: nn.Module,
    optimizers: Sequence[torch.optim.Optimizer],
    folder: Path,
    accelerator: Accelerator,
    report: FigureProgress,
    checkpoint_every: int,
    average: Average | None = None,
) -> None:
    """
    Trains `network`, beginning at the last checkpoint in `folder`.

    Raises:
        UnstillError: a gradient that is not a number, a damaged checkpoint, more steps done than the phase has.
        KeyboardInterrupt: stopped by Ctrl-C or SIGTERM, after saving a checkpoint.
    """
    rates = [group["lr"] for optimizer in optimizers for group in optimizer.param_groups]
    model, *prepared = accelerator.prepare(network, *optimizers)
    checkpoints = Checkpoints(folder, accelerator, dict(network.named_parameters()), average, keep=2)
    newest = checkpoints.newest()
    first = 0 if newest is None else checkpoints.load(newest)
    if first > phase.steps:
        raise UnstillError(
            f"{folder} holds {first} steps already, more than the {phase.steps} of the recipe; raise its steps, or "
            "choose another --out."
        )
    groups = [group for optimizer in prepared for group in optimizer.param_groups]
    if accelerator.is_main_process:
        folder.mkdir(exist_ok=True)
        truncate(folder / "loss.csv", first)
    report_every = 1 if accelerator.device.type == "cpu" else 50  # reading a number waits for the device
    rows: list[tuple[int, float, Tensor]] = []
    began = time.monotonic()
    with LossCurve(folder / "loss.csv", accelerator.is_main_process) as curve, Stopping(accelerator) as stopping:
        for step in range(first, phase.steps):
            g = generator(*phase.key, step, accelerator.process_index, device=accelerator.device)
            factor = phase.rate(step)
            for group, rate in zip(groups, rates, strict=True):
                group["lr"] = rate * factor
            loss = phase.loss(model, step, g)
            accelerator.backward(loss)
            norm = accelerator.clip_grad_norm_(network.parameters(), 1.0)
            for optimizer in prepared:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            done = step + 1
            if average is not None:
                average.update(done)
            rows.append((done, groups[-1]["lr"], torch.stack([loss.detach(), norm])))
            stop = stopping.agreed() and done < phase.steps
            saved = stop or done % checkpoint_every == 0 or done == phase.steps
            if saved or done % report_every == 0:
                last = _write(curve, rows, accelerator, phase.name)
                rows = []
                speed = (done - first) * phase.batch / max(time.monotonic() - began, 1e-9)
                line = f"loss {last:.4f}, {phase.figures()}, {speed:.1f} {phase.unit}/s"
                report(phase.name, done, phase.steps, line)
            if saved:
                curve.keep()
                checkpoints.save(done)
            if stop:
                raise stopping.error(
                    f"Stopped after {done} steps of the {phase.name}, which are saved; the same command resumes "
                    "from there."
                )


def _write(curve: LossCurve, rows: Sequence[tuple[int, float, Tensor]], accelerator: Accelerator, name: str) -> float:
    """Writes rows of steps, with the mean loss over all processes; returns the last loss."""
    reduced: Any = accelerator.reduce(torch.stack([row[2] for row in rows]), "mean")
    numbers = reduced.tolist()
    for (done, rate, _), (loss, norm) in zip(rows, numbers, strict=True):
        if not (abs(loss) < float("inf") and norm < float("inf")):  # in every process, before anything is saved
            raise UnstillError(
                f"The gradient of the {name} at step {done} is not a number; lower the learning rates, or set "
                "precision=no. The last checkpoint was saved before that step."
            )
        curve.write(done, loss, rate, norm)
    return float(numbers[-1][0])
