"""`unstill train`: recipes on the command line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from unstill.models.registry import load


Run = Callable[..., Result]
RECIPE = """
model: {model}
data: {{videos: world, frames: 2, clips: 4, workers: 0}}
condition: {{maximum: 1.0}}
train: {{steps: 2, batch: 2, ema: null}}
validate: {{every: 2, videos: 1, clips: 1, steps: 2}}
"""


def test_recipes_are_listed_and_printed(unstill: Run) -> None:
    listed = unstill("train", "list").output
    assert "svd-time-noise " in listed and "pico " in listed
    printed = unstill("train", "svd-time-noise", "--print-recipe").output
    assert "model: svd" in printed and printed.startswith("# Stable Video Diffusion")
    settings = unstill(
        "train", "svd-time-noise", "--videos", "clips", "--set", "train.steps=7", "--settings", "--seed", "3"
    )
    found = json.loads(settings.output)
    assert found["data"]["videos"] == "clips" and found["train"]["steps"] == 7 and found["seed"] == 3
    assert found["validate"]["every"] == 1000


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "Name a recipe: a YAML file"),
        (["svd-tine-noise"], "did you mean svd-time-noise?"),
        (["svd-time-noise", "--set", "train.step=3"], "train.step is not a key of train; did you mean steps?"),
        (["svd-time-noise", "--set", "train.steps"], "--set takes key=value"),
        (["svd-time-noise", "--set", "data.stride=[1"], "--set 'data.stride' is not YAML (line 1)"),
        (["pico", "--print-recipe"], "print its settings with --settings"),
        (["pico", "--videos", "x"], "pico is trained on its own synthetic clips"),
        (["pico:stepz=3"], "pico has no parameter 'stepz'"),
        (["pico:size=63"], "pico: size is 63: input should be a multiple of 16"),
        (["pico:clips=0"], "pico: clips is 0: input should be greater than or equal to 1"),
        (["pico:batch=0"], "pico: batch is 0"),
        (["pico:batch=1000000000000"], "pico: batch is 1000000000000"),
        (["pico:decay=nan"], "pico:decay takes a number, not 'nan'"),
        (["pico:decay=2"], "pico: decay is 2.0"),
    ],
)
def test_mistakes_are_one_sentence(unstill: Run, arguments: list[str], sentence: str) -> None:
    result = unstill("train", *arguments)
    assert result.exit_code == 2 and sentence in result.output and "Traceback" not in result.output


def test_a_folder_of_nothing_and_a_finished_run(unstill: Run, model: str, tmp_path: Path) -> None:
    """One loading of everything: a missing folder, a run with validation, the same run again."""
    recipe, out = tmp_path / "mine.yaml", tmp_path / "out"
    recipe.write_text(RECIPE.format(model=model))
    missing = unstill("train", str(recipe), "--videos", str(tmp_path / "nowhere"), "--out", str(out))
    assert missing.exit_code == 2 and "does not exist; pass a folder of videos" in missing.output
    assert not out.exists()  # a mistake leaves no empty folder
    videos = tmp_path / "clips"
    videos.mkdir()
    (videos / "a.mp4").write_text("never opened")
    inside = unstill("train", str(recipe), "--videos", str(videos), "--out", str(videos / "run"))
    assert inside.exit_code == 2 and "would be taken for clips; choose another --out" in inside.output
    assert not (videos / "run").exists()

    out = tmp_path / "run"
    result = unstill("train", str(recipe), "--out", str(out), "--json")
    assert result.exit_code == 0, result.output
    made: dict[str, Any] = json.loads(result.stdout)
    assert made["pipeline"] == str(out / "pipeline") and made["recipe"]["train"]["steps"] == 2
    assert load(made["pipeline"]).transformer.config.num_frames == 8
    assert (out / "validation" / "0000002-0.mp4").stat().st_size > 0
    curve = json.loads((out / "validation" / "0000002-leak.json").read_text())
    assert len(curve["levels"]) == 5 and curve["leak"]
    page = (out / "validation" / "0000002.html").read_text()
    assert "Every step." in page and page.count("<video ") == 1 and page.count("<svg") == 1
    assert "0000002.html" in curve["written"]
    figures = json.loads((out / "validation" / "figures.jsonl").read_text())
    assert figures.keys() == {"step", "motion", "explained_motion", "leak"}

    again = unstill("train", str(recipe), "--out", str(out), "--set", "condition.maximum=2")
    assert again.exit_code == 2 and "another condition.maximum; choose another --out" in again.output
