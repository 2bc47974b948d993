"""docs/extend.md: every recipe is run as it stands there."""

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import diffusers
import pytest
import torch

import unstill
from tests.metrics.clips import SETTINGS, metric_file
from tests.pipelines import CASES, LONG, hunyuan_embeddings, hunyuan_video, picture, pipeline, random_pico, sample
from unstill.app import form_fields
from unstill.cli import app
from unstill.data import write_video
from unstill.families.registry import ADAPTERS
from unstill.families.vae_adapters import VideoAdapter
from unstill.hooks.compatibility import refusals
from unstill.methods.parsing import parse_method
from unstill.methods.registry import method_classes
from unstill.metrics.reference_table import metrics_table
from unstill.metrics.torchmetrics_wrappers import VideoMean


DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "extend.md").read_text(encoding="utf-8")
sys.path.insert(0, str(DOCS))
import pages  # noqa: E402


def block(name: str) -> str:
    """The code of a marked block of the page."""
    return re.search(rf"<!-- tests/docs/test_extend.py: {name} -->\n```py\n(.*?)```", PAGE, re.DOTALL)[1]


def run(name: str, **names) -> dict:
    """The names that the marked block of the page leaves behind."""
    code = block(name)
    names |= {"__name__": __name__, "torch": torch, "unstill": unstill, "ADAPTERS": ADAPTERS}
    exec(code, names)
    return names


@pytest.fixture
def added_method(tmp_path, monkeypatch):
    """The page's method as a file in a folder that belongs to `unstill.methods` for the length of a test."""
    (tmp_path / "blurred_condition.py").write_text(block("method"), encoding="utf-8")
    monkeypatch.setattr(unstill.methods, "__path__", [*unstill.methods.__path__, str(tmp_path)])
    method_classes.cache_clear()
    yield method_classes()["blurred_condition"]
    del sys.modules["unstill.methods.blurred_condition"], unstill.methods.blurred_condition
    vars(unstill).pop("BlurredCondition", None)
    monkeypatch.undo()
    method_classes.cache_clear()


def test_everything_knows_a_method_whose_file_was_added(added_method, capsys) -> None:
    assert unstill.BlurredCondition is added_method
    assert parse_method("BlurredCondition:until=0.5") == parse_method("blurred_condition:until=0.5")
    with pytest.raises(SystemExit, match="0"):
        app(["methods"])
    assert "blurred_condition\n  Shows the denoiser a blurred image" in capsys.readouterr().out
    (field,) = form_fields.form()["blurred_condition"]
    assert (field.name, field.default, field.read("0.5")) == ("until", 0.2, 0.5) and field.about.startswith(
        "The share"
    )
    assert "blurred_condition" in form_fields.offered("PicoPipeline")
    table = refusals()
    assert table["PicoPipeline"]["BlurredCondition"] == ""
    assert "shows it none" in table["AnimateDiffPipeline"]["BlurredCondition"]
    index = pages.filled((DOCS / "methods" / "index.md").read_text("utf-8"))
    assert (
        "| copies every detail of the image | [BlurredCondition](blurred_condition.md) | condition | nothing |"
        in index
    )
    assert "| BlurredCondition |" in pages.filled((DOCS / "pipelines.md").read_text("utf-8"))


def test_a_method() -> None:
    tiny = pipeline("PicoPipeline")
    names = run("method")
    names |= run("use of the method", **names, pipe=tiny, image=picture(64))
    assert len(names["video"]) == tiny.transformer.config.num_frames
    pipe, case = pipeline("StableVideoDiffusionPipeline"), CASES["StableVideoDiffusionPipeline"]
    plain = sample(case, pipe)
    with unstill.apply(pipe, names["BlurredCondition"](until=0.0)):
        assert torch.equal(sample(case, pipe), plain)
    with unstill.apply(pipe, names["BlurredCondition"](until=0.5)):
        assert not torch.equal(sample(case, pipe), plain)


def test_a_pipeline(monkeypatch) -> None:
    monkeypatch.delitem(ADAPTERS, "HunyuanVideoPipeline", raising=False)
    parts = dict(hunyuan_video("token_replace").components)
    del parts["image_processor"]
    torch.manual_seed(0)
    pipe = diffusers.HunyuanVideoPipeline(**parts)
    pipe.set_progress_bar_config(disable=True)
    call = {**LONG, **hunyuan_embeddings(), "num_inference_steps": 2, "output_type": "latent"}
    with pytest.raises(unstill.UnstillError, match="HunyuanVideoPipeline is not a supported pipeline"):
        unstill.apply(pipe)
    plain = pipe(**call, generator=torch.Generator().manual_seed(0)).frames[0]
    monkeypatch.setitem(ADAPTERS, "HunyuanVideoPipeline", None)  # so that the recipe's row goes with this test
    moved = run("pipeline", pipe=pipe, call=call, VideoAdapter=VideoAdapter)["video"]
    assert moved.isfinite().all() and not torch.equal(moved, plain)
    with unstill.apply(pipe):
        assert torch.equal(pipe(**call, generator=torch.Generator().manual_seed(0)).frames[0], plain)


def test_an_image_pipeline(monkeypatch) -> None:
    """The recipe's adapter and the library's own do the same with a method of every hook."""
    name = "WanImageToVideoPipeline"
    pipe, case = pipeline(name), CASES[name]
    methods = unstill.NoiseRectification(period=(0, 1)), unstill.ConditioningAugmentation(level=0.5)
    monkeypatch.setitem(ADAPTERS, name, ADAPTERS[name])
    videos = []
    for recipe in (False, True):
        if recipe:
            run("image pipeline", VideoAdapter=VideoAdapter)
        with unstill.apply(pipe, *methods):
            videos.append(sample(case, pipe))
    assert torch.equal(*videos) and not torch.equal(videos[0], sample(case, pipe))


def test_a_family(tmp_path) -> None:
    """The file alone is enough for apply, the table, the list of models, loading and training."""
    (tmp_path / "families").mkdir()
    (tmp_path / "families" / "ours.py").write_text(block("family"))
    (tmp_path / "ours_pipeline.py").write_text(
        "from unstill.models.pico import PicoPipeline\n\n\nclass OursPipeline(PicoPipeline):\n    pass\n"
    )
    random_pico().save_pretrained(tmp_path / "model")
    index = tmp_path / "model" / "model_index.json"
    index.write_text(index.read_text().replace('"PicoPipeline"', '"OursPipeline"'))
    recipe = f"""
        model: {tmp_path / "model"}
        data: {{videos: world, frames: 2, clips: 2, workers: 0}}
        train: {{steps: 1, batch: 2, ema: null}}
    """
    (tmp_path / "recipe.yaml").write_text(recipe)
    (tmp_path / "use.py").write_text(USE)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    said = subprocess.run(
        [sys.executable, "use.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert said.returncode == 0, said.stderr
    names = json.loads(said.stdout.splitlines()[0])
    assert "ours" in names and names[0] == "pico"
    assert (tmp_path / "run" / "pipeline" / "model_index.json").is_file()


USE = """
import json

import torch
import unstill.families

unstill.families.__path__.append("families")

import unstill
from typer.testing import CliRunner
from unstill.cli import app
from unstill.hooks.compatibility import refusals

listed = CliRunner().invoke(app, ["models", "--json"])
assert listed.exit_code == 0, listed.output
print(json.dumps([model["name"] for model in json.loads(listed.stdout)]))
table = refusals()
assert table["OursPipeline"] == {name: why.replace("Pico", "Ours") for name, why in table["PicoPipeline"].items()}
pipe = unstill.load("./model")
assert type(pipe).__name__ == "OursPipeline"
image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
call = lambda: pipe(image, num_inference_steps=2, generator=torch.Generator().manual_seed(0), output_type="pt").frames
plain = call()
with unstill.apply(pipe, unstill.ConditioningAugmentation(level=0.5)):
    assert not torch.equal(call(), plain)
assert torch.equal(call(), plain)
trained = CliRunner().invoke(app, ["train", "recipe.yaml", "--out", "run"])
assert trained.exit_code == 0, trained.output
"""


def test_a_metric(tmp_path, monkeypatch, capsys) -> None:
    """The block as a file of the package: in the report, its table and the page; then as a torchmetrics object."""
    still, away = torch.zeros(3, 3, 32, 32), torch.zeros(3, 3, 32, 32)
    away[-1] = 0.5
    for name, video in {"still": still, "away": away}.items():
        write_video(tmp_path / "made" / f"{name}.mp4", video, fps=8)
    with metric_file(tmp_path / "package" / "loop_error.py", monkeypatch) as write:
        write(block("metric"))
        report = unstill.evaluate(tmp_path / "made", settings=SETTINGS, cache=tmp_path / "cache")
        assert report.as_dict()["scores"]["loop_error"]["value"] == pytest.approx(0.25, abs=0.01)
        assert "last frame differs from the first" in list(report.table().columns[0].cells)
        assert "| `loop_error` | last frame differs from the first | of 1 | lower | nothing |" in metrics_table()
        loop_error = importlib.import_module("unstill.metrics.loop_error").loop_error
    assert loop_error(away) == 0.5
    run("metric object", videos=[still, away], loop_error=loop_error, VideoMean=VideoMean)
    assert capsys.readouterr().out == "tensor(0.2500, dtype=torch.float64)\n"
    with pytest.raises(unstill.UnstillError):
        loop_error(still[0])
