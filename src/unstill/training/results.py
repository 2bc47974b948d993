"""What a run returns, and what it leaves when it is finished: the pipeline in diffusers' format, and the LoRA."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from unstill.data.ownership import read_record, together
from unstill.models.registry import defaults_of
from unstill.models.saving import write_pipeline
from unstill.training.checkpoints import RESULTS
from unstill.training.lora import merge, save_lora
from unstill.training.recipe import Recipe


PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """
    Attributes:
        pipeline: folder of the finished model.
        losses: of the steps of this call.
        clips_per_second: training speed.
        waiting: share of the time in which this process read clips or waited for them. Where they are encoded by the
            processes that read them (on a CPU without a cache), waiting for the encoder is included.
    """

    pipeline: Path
    losses: list[float]
    clips_per_second: float
    waiting: float


def write_results(pipe: Any, denoiser: str, recipe: Recipe, out: Path) -> None:
    """
    Writes `out/pipeline`, with LoRA weights merged, and `out/lora.safetensors`.

    Args:
        pipe: holds the trained weights; is moved to the CPU, in the precision of the training.
        denoiser: attribute of the trained network.
        recipe: of the run.
        out: folder of the run.
    """
    with together(out / "run.json", RESULTS) as results:
        results.record = read_record(out / "run.json") or {}
        if recipe.lora is not None:
            network = getattr(pipe, denoiser)
            save_lora(network, denoiser, results.folder / "lora.safetensors")
            merge(network)
        pipe.to("cpu")
        if (precision := PRECISIONS.get(recipe.train.mixed_precision)) is not None:
            pipe.to(precision)
        _copy_statistics(recipe.model, write_pipeline(pipe, results.folder / "pipeline"))


def _copy_statistics(model: str, folder: Path) -> None:
    """Copies the latent statistics of the initial model, whose autoencoder is the same."""
    statistics = defaults_of(model).get("statistics")
    if statistics is not None:
        statistics.save(folder / "statistics.safetensors")
