"""The examples, as they stand, on random pipelines in folders."""

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import unstill
from tests.cli.conftest import diffusers_models  # noqa: F401  (a fixture)
from tests.pipelines import pipeline
from unstill.data.video import read_video, write_video


EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs an example in an empty folder with `photo.png` in it, and gives what it prints."""
    ramp = np.linspace(0, 255, 96 * 64).reshape(64, 96, 1) * np.ones(3)
    Image.fromarray(ramp.astype(np.uint8)).save(tmp_path / "photo.png")
    monkeypatch.chdir(tmp_path)

    def run(name: str, *words: object) -> str:
        monkeypatch.setattr(sys, "argv", [name, *map(str, words)])
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
        return capsys.readouterr().out

    return run


def test_svd_static(run, diffusers_models) -> None:  # noqa: F811
    said = run(
        "svd_static", "photo.png", "--model", diffusers_models["svd"], "--frames", 3, "--size", "32x16", "--steps", 2
    )
    assert [line.partition(":")[0] for line in said.splitlines()] == ["plain", "from sigma 100"]
    assert len(read_video("svd_static.mp4")) == 3


@pytest.mark.parametrize(("model", "frames"), [("wan", 5), ("cogvideox", 9)])
def test_wan_or_cogvideox(run, diffusers_models, model, frames) -> None:  # noqa: F811
    small = ("--frames", frames, "--size", "16x16", "--steps", 2)
    said = run("wan_or_cogvideox", "photo.png", "boat", "--model", diffusers_models[model], *small)
    assert [line.partition(":")[0] for line in said.splitlines()] == ["plain", "early start", "and rectified"]
    assert len(read_video("moving.mp4")) == frames


def test_animatediff_from_text(run, diffusers_models) -> None:  # noqa: F811
    asked = ("boat", "--model", diffusers_models["animatediff"], "--candidates", 3, "--frames", 3, "--steps", 2)
    said = run("animatediff_from_text", *asked)
    assert len(read_video("from_text/video.mp4")) == 3
    again = run("animatediff_from_text", *asked)  # from the folder
    assert again.splitlines()[-1] == said.splitlines()[-1] and "candidates 3/3" not in again


def test_time_noise_lora(run, diffusers_models) -> None:  # noqa: F811
    clip = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    write_video("clips/one.mp4", clip, 7)
    recipe = f"""
model: {diffusers_models["svd"]}
data: {{frames: 3, stride: 1, size: 16x16, workers: 0}}
condition: {{preset: paper}}
lora: {{rank: 2}}
train: {{steps: 1, batch: 1, ema: null}}
"""
    Path("recipe.yaml").write_text(recipe)
    said = run("time_noise_lora", "recipe.yaml", "photo.png", "--videos", "clips", "--steps", 2, "--out", "lora")
    assert [line.partition(":")[0] for line in said.splitlines()[-2:]] == ["before", "after"]
    assert len(read_video("lora/after.mp4")) == 3 and Path("lora/pipeline/model_index.json").is_file()


def test_diagnose_model(run, tmp_path) -> None:
    pipeline("PicoPipeline").save_pretrained(tmp_path / "model")
    said = run("diagnose_model", "--count", 2, "--model", tmp_path / "model", "--frames", 3)
    assert said.startswith("2 clips") and said.count("leak ") > 5


def test_notebook(tmp_path, monkeypatch, capsys) -> None:
    """Its cells in order, in one namespace, as a kernel would run them; with a random model, to be quick."""
    monkeypatch.setattr(unstill, "load", lambda name: {"pico": pipeline("PicoPipeline")}[name])
    notebook = json.loads((EXAMPLES / "first_video.ipynb").read_text("utf-8"))
    assert (notebook["nbformat"], notebook["metadata"]["kernelspec"]["name"]) == (4, "python3")
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    monkeypatch.chdir(tmp_path)
    names: dict = {"__name__": "__main__"}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), cell["id"], "exec"), names)
    said = capsys.readouterr().out
    assert "NIVSDS both decide" in said and said.count("leak ") == 3
    assert len(read_video("moving.mp4")) == 8
