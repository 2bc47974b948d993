"""The space that a run needs is said before it begins, and the time that is left while it runs."""

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tests import pipelines as tiny
from tests.training.conftest import silent
from unstill.errors import UnstillError
from unstill.families.registry import adapter_for
from unstill.progress import time_left
from unstill.training.disk_space import check_space, checkpoint_size, latents_size, trained_numbers
from unstill.training.lora import LoraSettings
from unstill.training.parameters import select
from unstill.training.recipe import Recipe
from unstill.training.trainer import train


def free(monkeypatch: pytest.MonkeyPatch, size: float) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=int(size)))


def test_a_run_that_will_not_fit_is_refused_before_it_writes(
    make: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "latents"
    free(monkeypatch, 1000)
    with pytest.raises(UnstillError, match=r"\(latents .* MB\), but only 0.0 MB are free .* or set data.cache: false"):
        train(make(data__cache_folder=str(cache)), tmp_path / "run", silent)
    with pytest.raises(UnstillError, match=r"\(checkpoints .* MB, pipeline .* MB\).* lower save.keep, or train a"):
        train(make(data__cache=False), tmp_path / "run", silent)
    assert not cache.exists() and not (tmp_path / "run" / "pipeline").exists()


def test_what_is_there_already_counts_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "one").write_bytes(bytes(800))
    free(monkeypatch, 300)
    check_space(tmp_path, {"checkpoints": 1000}, "")
    with pytest.raises(UnstillError):
        check_space(tmp_path, {"checkpoints": 1000, "pipeline": 200}, "")


def test_sizes(make: Callable[..., Recipe], tmp_path: Path) -> None:
    """Against what is written: a checkpoint, latents of a clip, the parameters of a LoRA."""
    recipe = make(train__steps=2)
    train(recipe, tmp_path / "run", silent)
    files = (tmp_path / "run" / "checkpoints" / "0000002").iterdir()
    numbers = sum(p.numel() for p in tiny.random_pico().transformer.parameters())
    written = sum(file.stat().st_size for file in files)
    assert checkpoint_size(numbers, average=True) == pytest.approx(written, rel=0.2)

    pipe, wan = tiny.random_pico(), tiny.wan()
    for one, frames, size in ((pipe, 3, (pipe.size, pipe.size)), (wan, 5, (16, 16))):
        latents = adapter_for(one).encode_video(one, torch.rand(frames, 3, *size))
        assert latents_size(one, 7, frames, size) == 7 * 2 * latents.numel()

    targets = ("qkv", "narrow")
    counted = trained_numbers(make(lora={"rank": 3, "targets": list(targets)}), pipe.transformer, ())
    trained = select(pipe.transformer, LoraSettings(3, 3.0, targets))
    assert counted == sum(p.numel() for p in trained.values())


def test_a_folder_that_does_not_exist_is_on_the_disk_of_its_parent(tmp_path: Path) -> None:
    check_space(tmp_path / "a" / "b", {"c": 1}, "")
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 s"),
        (0.2, "1 s"),
        (59, "59 s"),
        (61, "2 min"),
        (3600, "1 h 0 min"),
        (12_000, "3 h 20 min"),
        (90_000, "1 d 1 h"),
    ],
)
def test_the_time_that_is_left(seconds: float, text: str) -> None:
    assert time_left(seconds) == text


def test_the_progress_says_when_it_will_end(make: Callable[..., Recipe], tmp_path: Path) -> None:
    said = []
    train(make(train__steps=2), tmp_path / "run", lambda stage, done, total, text: said.append((stage, text)))
    texts = [text for stage, text in said if stage == "training"]
    assert all(" clips/s, " in text and text.endswith(" left") for text in texts) and texts[-1].endswith(", 0 s left")
