"""A tiny model to train, and runs in processes of their own."""

import os
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from tests import pipelines as tiny
from tests.processes import free_port
from tests.processes import start as start_process
from unstill.training.recipe import Recipe


@pytest.fixture(scope="session")
def pico(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random tiny pico, as a folder; nothing in it is zero, so that everything has a gradient."""
    folder = tmp_path_factory.mktemp("models") / "pico"
    tiny.random_pico().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def make(pico: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Recipe]:
    """A short recipe on the synthetic world with single keys changed, `make(train__steps=3)`. All share one cache."""
    cache = tmp_path_factory.mktemp("cache")

    def made(**changes: Any) -> Recipe:
        content: dict[str, Any] = {
            "model": str(pico),
            "data": {"videos": "world", "frames": 2, "clips": 12, "workers": 0, "cache_folder": str(cache)},
            "condition": {"maximum": 1.0, "condition_on_level": True},
            "train": {"steps": 8, "batch": 4, "learning_rate": 1e-3, "ema": 0.9},
            "save": {"every": 2, "keep": 2},
        }
        for key, value in changes.items():
            *parts, last = key.split("__")
            part = content
            for name in parts:
                part = part.setdefault(name, {})
            part[last] = value
        return Recipe.model_validate(content)

    return made


def silent(*_: Any) -> None:
    """A report that says nothing."""


def start(recipe: Recipe, out: Path, processes: int = 1) -> list[BaseProcess]:
    """A run in processes of its own."""
    port = free_port()
    return [start_process(_work, recipe, out, rank, processes, port) for rank in range(processes)]


def _work(recipe: Recipe, out: Path, rank: int, processes: int, port: int) -> None:
    from unstill.cli.distributed import rank_and_count
    from unstill.training.trainer import train

    if processes > 1:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        rank_and_count()
    train(recipe, out, silent)


def empty_pipeline(folder: Path) -> None:
    """In place of `save_pretrained`: a folder that names no class and holds no weights."""
    folder.mkdir()
    (folder / "model_index.json").write_text("{}")
