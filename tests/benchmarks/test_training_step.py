"""benchmarks/training_step.py runs, on a tiny network; its bare pass has the shapes of the clips that are trained."""

from pathlib import Path

import pytest
import torch

from benchmarks import training_step
from tests import pipelines as tiny
from unstill.models.pico import PicoTransformer


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "pico"
    tiny.random_pico().save_pretrained(folder)
    return folder


def test_every_way_to_the_clips_is_measured_against_the_bare_pass(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_step, "REPEATS", 1)
    words = ["--model", str(model), "--steps", "2", "--batch", "2", "--clips", "2", "--rounds", "1"]
    found = training_step.main([*words, "--json", str(tmp_path / "found.json")])
    assert [row["clips"] for row in found["rows"]] == list(training_step.WAYS)
    for row in found["rows"]:
        assert row["step / bare, processor time"] > 0 and row["step / bare, wall"] > 0 and 0 <= row["waiting"] < 1
    assert (tmp_path / "found.json").read_text().count('"waiting"') == 3


def test_bare_calls_the_network_as_the_trainer_does(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_step, "REPEATS", 1)
    training_step.write_videos(tmp_path / "videos", str(model), 1)
    recipe = training_step.recipe_of(str(model), tmp_path / "videos", 2, 2, cache=False, workers=0)
    bare = training_step.Bare(recipe)
    shapes = []

    forward = PicoTransformer.forward

    def seen(self: PicoTransformer, *given: torch.Tensor, **named: bool) -> object:
        shapes.append([tuple(value.shape) for value in given])
        return forward(self, *given, **named)

    monkeypatch.setattr(PicoTransformer, "forward", seen)
    training_step.step_time(recipe, tmp_path / "run")
    assert shapes == [[tuple(value.shape) for value in bare.arguments]] * 2
