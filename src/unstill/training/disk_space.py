"""Whether the disk holds what a run will write, before the run begins."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from unstill.data.sources import Source
from unstill.errors import UnstillError
from unstill.families.registry import adapter_for
from unstill.families.training import TrainingRole
from unstill.models.memory import gigabytes
from unstill.training.recipe import Recipe


def latents_size(pipe: Any, clips: int, frames: int, size: tuple[int, int]) -> int:
    """Bytes of cached video latents in float16, at least: text, tokens and image are not counted."""
    space, time = adapter_for(pipe).compression(pipe)
    config = pipe.vae.config
    channels = config.get("latent_channels") or config.get("z_dim") or 4
    height, width = size
    return 2 * clips * channels * (1 + (frames - 1) // time) * (height // space) * (width // space)


def trained_numbers(recipe: Recipe, model: torch.nn.Module, targets: Sequence[str]) -> int:
    """How many numbers are trained: all of the denoiser's, or those of a LoRA in the layers named after `targets`."""
    if recipe.lora is None:
        return sum(p.numel() for p in model.parameters())
    beside = tuple(f".{target}" for target in recipe.lora.targets or targets)
    layers = (m for name, m in model.named_modules() if isinstance(m, torch.nn.Linear) and f".{name}".endswith(beside))
    return sum(recipe.lora.rank * (layer.in_features + layer.out_features) for layer in layers)


def checkpoint_size(numbers: int, average: bool) -> int:
    """Bytes of one checkpoint: weights, both moments of Adam, and the average, all in float32."""
    return 4 * numbers * (4 if average else 3)


def pipeline_size(parts: Iterable[torch.nn.Module]) -> int:
    """Bytes of the weights of a saved pipeline."""
    return sum(p.numel() * p.element_size() for part in parts for p in part.parameters())


def check_space(folder: Path, needed: Mapping[str, int], advice: str) -> None:
    """
    Compares what is still to be written with what is free.

    Args:
        folder: where it is written; it need not exist yet.
        needed: bytes in all, by the name of a subfolder of `folder`; files that are there already count as written.
        advice: what would need less, for the message.

    Raises:
        UnstillError: there is less space than needed.
    """
    missing = {name: max(0, size - _written(folder / name)) for name, size in needed.items()}
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free, total = shutil.disk_usage(there).free, sum(missing.values())
    if total > free:
        listed = ", ".join(f"{name} {gigabytes(size)}" for name, size in missing.items() if size)
        raise UnstillError(
            f"This run will write about {gigabytes(total)} to {folder} ({listed}), but only {gigabytes(free)} are "
            f"free there; free some space, choose another folder, or {advice}."
        )


def check_run(recipe: Recipe, out: Path, pipe: Any, family: TrainingRole, source: Source) -> None:
    """
    Checks the space for the cache of latents, the checkpoints and the finished model.

    Args:
        recipe: of the run.
        out: its folder.
        pipe: the opened pipeline.
        family: its training adapter.
        source: of the clips.

    Raises:
        UnstillError: there is too little.
    """
    if recipe.data.cache:
        folder, s = Path(recipe.data.cache_folder or out / "latents"), source.settings
        needed = {folder.name: latents_size(pipe, len(source), s.frames, s.size)}
        check_space(folder.parent, needed, "set data.cache: false")
    parts = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
    numbers = trained_numbers(recipe, getattr(pipe, family.denoiser), family.lora)
    kept = min(recipe.save.keep + 1, -(-recipe.train.steps // recipe.save.every))  # a new one before the oldest goes
    checkpoints = kept * checkpoint_size(numbers, recipe.train.ema is not None)
    needed = {"checkpoints": checkpoints, "pipeline": pipeline_size(parts)}
    check_space(out, needed, "lower save.keep, or train a LoRA")


def _written(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else 0
