"""Error messages of a training run: memory that does not suffice, losses and gradients that are not numbers."""

from pathlib import Path

import torch
from torch import nn


def clip_out_of_memory(device: str) -> str:
    """The message where encoding one clip needs more memory than the device has."""
    return f"A clip does not fit into the memory of {device} when it is encoded; lower data.size or data.frames."


def out_of_memory(device: str, at_once: int) -> str:
    """The message where a training step on `at_once` clips needs more memory than the device has."""
    fewer = "train.batch_per_device (the rest is accumulated)" if at_once > 1 else "data.size or data.frames"
    clips = f"{at_once} clips at a time do" if at_once > 1 else "One clip at a time does"
    return (
        f"{clips} not fit into the memory of {device}; lower {fewer}, set train.gradient_checkpointing, or train a "
        "lora."
    )


def not_a_number(
    what: str, step: int, where: str, checkpoint: Path | None, model: nn.Module, mixed_precision: str
) -> str:
    """
    The message for a loss or gradient that is not a finite number, with its probable cause.

    Args:
        what: "loss" or "gradient".
        step: number of the step, from 0. At the first one the learning rate is not the cause.
        where: the clips, or what the value was computed from.
        checkpoint: the newest one, if there is one.
        model: the denoiser, whose weights are examined at the first step.
        mixed_precision: of the training.
    """
    saved = f"the last good state is {checkpoint}" if checkpoint else "no checkpoint had been written yet"
    bad = None
    if step == 0:
        bad = next((name for name, p in model.named_parameters() if not torch.isfinite(p).all()), None)
    if step:
        advice = "Lower train.learning_rate, or train in bf16 rather than fp16."
    elif bad is not None:
        advice = f"The weights of the model are not all finite numbers ({bad}); load an undamaged checkpoint."
    else:
        other = "or at the model's encoders" if mixed_precision == "no" else "or set train.mixed_precision to no"
        advice = (
            f"Nothing had been learned yet and the weights of the model are finite, so look at those clips, {other}."
        )
    return (
        f"The {what} at step {step + 1} is not a number ({where}), so training stopped before that step; {saved}. "
        + advice
    )
