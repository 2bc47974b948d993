"""Fine-tunings of the embedded model in benchmarks, and one-step predictions of what came out."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unstill.models.pico.pipeline import FPS
from unstill.training.recipe import Recipe
from unstill.training.trainer import train


def trained_model(recipe: Recipe, folder: Path) -> Path:
    """The model of a run in `folder`, which is made, or continued, unless it is finished."""
    if not (folder / "pipeline").exists():
        train(recipe, folder, _report)
    return folder / "pipeline"


def _report(stage: str, done: int, total: int, figures: str) -> None:
    if done % 10 == 0 or done == total:
        print(f"  {stage} {done}/{total} {figures}", flush=True)


def predict_x0(pipe: Any, noisy: Tensor, sigma: float, image: Tensor, residual: bool = False) -> Tensor:
    """
    The one-step prediction of latents, without caption and motion level.

    Args:
        pipe: pico.
        noisy: latents with noise of this sigma, (N, C, F, h, w).
        sigma: of the noise.
        image: latents of the image in every frame, as `noisy`.
        residual: whether the prediction is the sum of that without and that with the image.
    """
    norm, count = (1 + sigma**2) ** 0.5, len(noisy)
    told = torch.tensor([[FPS - 1.0, pipe.encode_motion(None), 0.0]]).expand(count, 3)
    level = torch.full((count,), sigma).log() / 4

    def v(image: Tensor) -> Tensor:
        seen = torch.cat([noisy / norm, image], 1).transpose(1, 2)
        return pipe.transformer(seen, level, None, told, return_dict=False)[0].transpose(1, 2).float()

    output = v(image) + v(torch.zeros_like(image)) if residual else v(image)
    return noisy / norm**2 - sigma / norm * output
