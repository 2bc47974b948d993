"""`unstill diagnose` and `unstill compare`: what they write and say, and mistakes in one sentence."""

import json
import subprocess
import sys

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import unstill
from tests.pipelines import pico
from unstill.cli import app
from unstill.data.video import write_video


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model")
    pico().save_pretrained(folder)
    return str(folder)


def run(*words):
    result = CliRunner().invoke(app, [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_diagnose_writes_a_page_and_all_it_found(model, tmp_path):
    clips = tmp_path / "clips"
    for i in range(2):
        g = torch.Generator().manual_seed(i)
        write_video(clips / f"{i}.mp4", torch.rand(12, 3, 64, 64, generator=g), fps=8)
    out = tmp_path / "report.html"
    result = run(
        *("diagnose", "--model", model, "--clips", clips, "--count", 2, "--levels", "50,5", "--frames", 4),
        *("--response", 1, "--out", out, "--json"),
    )
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert found == json.loads(out.with_suffix(".json").read_text())
    assert [one["sigma"] for one in found["levels"]] == [50, 5] and found["clips"] == 2
    assert set(found["curves"]) == {"image", "weakened", "removed"} and found["leak_is"] == "an upper bound"
    assert found["response"]["requested"] == [0.1, 0.4, 0.7, 1.0]
    assert found["verdict"] in out.read_text()


def test_diagnose_on_rendered_clips_knows_the_best_and_says_it_in_words(model, tmp_path):
    words = ("diagnose", "--model", model, "--count", 2, "--levels", "5", "--frames", 3, "--response", 0)
    result = run(*words, "--out", tmp_path / "report.html")
    assert result.exit_code == 0, result.stderr
    assert "best" in result.stdout and "report.html and " in result.stdout
    assert "recommended" in result.stdout or "start" in result.stdout


def test_compare_writes_report_tables_and_summary(model, tmp_path):
    words = ("compare", "--model", model, "--method", "early-start:sigma=20,10", "--count", 2, "--steps", 2)
    result = run(*words, "--frames", 3, "--out", tmp_path / "out", "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert [row["setting"] for row in found["rows"]] == ["plain", "early-start:sigma=20", "early-start:sigma=10"]
    assert all(row["cells"] == 2 for row in found["rows"])
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        *("manifest.json", "claims", "done", "videos"),
        *("report.html", "summary.json", "summary.csv", "cells.csv"),
    }


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("diagnose", "--levels", "5,50"), "falling numbers"),
        (("diagnose", "--levels", "50,nan"), "falling numbers"),
        (("diagnose", "--levels", "inf,50"), "falling numbers"),
        (("diagnose", "--out", "report.pdf"), "has to end in .html"),
        (("diagnose", "--clips", "nowhere"), "does not exist"),
        (("diagnose", "--method", "early-strat"), "did you mean 'early_start'"),
        (("compare",), "There is nothing to compare"),
        (("compare", "--sweep", "start-swep"), "did you mean 'start-sweep'"),
        (("compare", "--method", "early-start:sigma=20|"), "is not a setting"),
        (("compare", "--method", "early-start:sigma=x"), "takes a number"),
        (("compare", "--method", "early-start:sigma=inf"), "takes a number"),
        (("compare", "--method", "plain", "--motion", "2"), "levels from 0 to 1"),
    ],
)
def test_mistakes_are_one_sentence(words, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run(*words)
    assert result.exit_code == 2 and sentence in result.stderr and result.stderr.count("\n") == 1


def test_every_sweep_is_made_of_settings_that_exist():
    from unstill.cli.options import parse_method
    from unstill.lab.method_grid import expand, split
    from unstill.lab.sweeps import SWEEPS
    from unstill.latent_statistics import LatentStatistics

    statistics = LatentStatistics().update(torch.rand(2, 6, 8, 16, 16))
    for sweep in SWEEPS.values():
        for text in sweep.settings:
            for setting in expand(text):
                for method in split(setting):
                    parse_method(method, {"statistics": statistics, "sigma": 10.0})


def test_what_narrows_a_diagnosis_is_said(model, tmp_path):
    """One video for two clips; then one of two clips too short, so that a single one is left, without intervals."""
    for i, frames in enumerate((20, 3)):
        write_video(tmp_path / "é" / f"{i}.mp4", torch.rand(frames, 3, 64, 64), fps=8)
    words = ("diagnose", "--model", model, "--count", 2, "--levels", "50,5", "--frames", 8, "--response", 0)
    result = run(*words, "--clips", tmp_path / "é", "--out", tmp_path / "a.html")
    assert result.exit_code == 0 and "1 of 2 clips are left out" in result.stderr
    assert "no intervals" in result.stderr and "NaN" not in (tmp_path / "a.json").read_text()
    assert "nan" not in result.stdout.lower() and "1 of 2 clips are left out" in (tmp_path / "a.html").read_text()
    (tmp_path / "é" / "1.mp4").unlink()
    result = run(*words, "--clips", tmp_path / "é", "--out", tmp_path / "b.html")
    assert result.exit_code == 0 and "2 clips come from 1 video;" in result.stderr


def test_a_model_that_predicts_no_numbers_is_said(tmp_path):
    pipe = pico()
    with torch.no_grad():
        for one in pipe.transformer.parameters():
            one.fill_(torch.nan)
    pipe.save_pretrained(tmp_path / "m")
    words = ("--model", tmp_path / "m", "--count", 2, "--frames", 3)
    result = run("diagnose", *words, "--levels", "50,5", "--response", 0, "--out", tmp_path / "a.html")
    assert result.exit_code == 2 and "not finite" in result.stderr and result.stderr.count("\n") == 1
    assert not (tmp_path / "a.html").exists()
    result = run("compare", *words, "--method", "early-start:sigma=20", "--steps", 2, "--out", tmp_path / "b")
    assert result.exit_code == 1 and "plain failed" in result.stderr and "No video" in result.stdout


def test_the_functions_do_what_the_commands_do(model, tmp_path):
    """`unstill.compare` with methods as objects, and `unstill.diagnose`, without the command line."""
    pictures = {"a": Image.new("RGB", (64, 64), (90, 40, 200))}
    result = unstill.compare(
        {"early": unstill.EarlyStart(sigma=20.0)},
        model=model,
        images=pictures,
        steps=2,
        frames=3,
        motion=0.5,
        out=tmp_path / "compared",
    )
    assert [row.setting for row in result.rows] == ["plain", "early"] and len(result.cells) == 2
    assert result.as_dict()["settings"]["early"][0]["name"] == "early_start"
    assert json.loads((tmp_path / "compared" / "summary.json").read_text())["rows"] == result.as_dict()["rows"]
    found = unstill.diagnose(
        model, count=2, levels=(50, 5), response=0, frames=3, methods=["noise-rectification"], out=tmp_path / "a.html"
    )
    assert found.response is None and found.diagnosis.clips == 2 and len(found.verdict) == 2
    assert json.loads((tmp_path / "a.json").read_text())["verdict"] == found.verdict[0]


def test_the_functions_refuse_what_they_cannot_use(tmp_path):
    for wrong, sentence in (
        ({}, "no setting to compare"),
        ({"settings": ["plain"], "motion": 2.0}, "Motion levels lie in"),
        ({"sweep": "start-swep"}, "did you mean"),
    ):
        with pytest.raises(unstill.UnstillError, match=sentence):
            unstill.compare(**wrong, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(unstill.UnstillError, match="end in .html"):
        unstill.diagnose(out=tmp_path / "report.pdf")


def test_reports_are_plotted_with_matplotlib_and_nothing_else_imports_it():
    code = "import sys, unstill, unstill.cli, unstill.lab.comparison, unstill.lab.diagnosis; "
    code += "assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
