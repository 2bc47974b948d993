"""A tiny model to train, and runs in processes of their own."""

import multiprocessing
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import pipelines as tiny
from unstill.training.recipe import Recipe


@pytest.fixture(scope="session")
def pico(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random tiny pico, as a folder; nothing in it is zero, so that everything has a gradient."""
    torch.manual_seed(0)
    folder, pipe = tmp_path_factory.mktemp("models") / "pico", tiny.pico()
    with torch.no_grad():
        for parameter in pipe.unet.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    pipe.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def make(pico: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Recipe]:
    """A short recipe on the synthetic world with single keys changed, `make(train__steps=3)`. All share one cache."""
    cache = tmp_path_factory.mktemp("cache")

    def made(**changes: Any) -> Recipe:
        content: dict[str, Any] = {
            "model": str(pico),
            "data": {"videos": "world", "frames": 2, "clips": 12, "workers": 0, "cache_folder": str(cache)},
            "condition": {"maximum": 1.0, "tell": True},
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


def start(recipe: Recipe, out: Path, processes: int = 1) -> list[Any]:
    """A run in processes of its own: forked, so that each begins at once."""
    fork = multiprocessing.get_context("fork")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    made = [fork.Process(target=_work, args=(recipe, out, rank, processes, port)) for rank in range(processes)]
    for one in made:
        one.start()
    return made


def _work(recipe: Recipe, out: Path, rank: int, processes: int, port: int) -> None:
    from accelerate.state import AcceleratorState, GradientState, PartialState

    from unstill.cli.processes import rank_and_count
    from unstill.training.trainer import train

    torch.set_num_threads(1)
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()
    if processes > 1:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        rank_and_count()
    train(recipe, out, silent)


def finish(run: list[Any]) -> None:
    """Waits for all; each has to end well."""
    for one in run:
        one.join(120)
    assert [one.exitcode for one in run] == [0] * len(run)
