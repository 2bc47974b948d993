"""`unstill.verify`: what it writes, that it resumes, and that it overwrites nothing."""

import json
import re

import pytest
import torch
from typer.testing import CliRunner

import unstill
from tests.pipelines import pico
from unstill.cli import app
from unstill.errors import UnstillError
from unstill.lab import verification
from unstill.lab.comparison_cells import Comparison
from unstill.models import registry


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models") / "tiny"
    pico().save_pretrained(folder)
    return str(folder)


def test_page_and_json_hold_scores_costs_settings_and_no_path(model, tmp_path, monkeypatch):
    loads, load = [], registry.load
    monkeypatch.setattr(registry, "load", lambda name, **options: loads.append(name) or load(name, **options))
    out = tmp_path / "verified"
    result = unstill.verify(model, out=out, quick=True, steps=2, frames=3)
    assert loads == [model]
    found = json.loads((out / "verification.json").read_text())
    assert found["model"] == "tiny" and [row["setting"] for row in found["rows"]] == ["plain", "early-start"]
    assert all(row["cells"] == 2 and row["model"] == "tiny" for row in found["rows"])
    assert found["images"] == ["bundled", "rendered 1"] and found["seeds"] == 1
    assert (found["frames"], found["steps"], found["size"]) == (3, 2, {"height": 64, "width": 64})
    assert (found["pipeline"], found["dtype"], found["prompt"]) == ("PicoPipeline", "float32", None)
    assert found["costs"].keys() == {"plain", "early-start"}
    assert all(cost["seconds_per_step"] > 0 and cost["peak_memory"] > 1e7 for cost in found["costs"].values())
    assert found["method"]["name"] == "early_start" and "torch" in found["versions"] and found["device"]
    page = (out / "verification.html").read_text()
    assert "seconds per step" in page and result.verdict[0] in page and "https://" not in page
    assert page.count("<video ") == 4  # two settings, two pictures
    for text in (page, json.dumps(found), (out / "comparison" / "manifest.json").read_text()):
        assert str(tmp_path) not in text and model not in text


def test_what_unstill_did_not_write_stays_and_nothing_is_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr(verification, "Comparison", lambda *_, **__: pytest.fail("nothing may be computed"))
    (tmp_path / "verification.html").write_text("mine")
    with pytest.raises(UnstillError, match="never overwritten"):
        unstill.verify("pico", out=tmp_path)
    assert (tmp_path / "verification.html").read_text() == "mine"


def test_the_command_goes_on_where_it_was_and_prints_the_same_file(model, tmp_path, monkeypatch):
    words = ["verify", model, "--quick", "--steps", "2", "--frames", "3", "--out", str(tmp_path), "--json"]
    first = CliRunner().invoke(app, words)
    assert first.exit_code == 0, first.output
    assert json.loads(first.stdout) == json.loads((tmp_path / "verification.json").read_text())
    load = registry.load
    monkeypatch.setattr(registry, "load", lambda *_, **__: pytest.fail("a finished run needs no model"))
    again = CliRunner().invoke(app, words)
    assert again.exit_code == 0, again.output
    own = dict.fromkeys(("seal", "earlier"))  # the record of which files are whose
    assert {**json.loads(again.stdout), **own} == {**json.loads(first.stdout), **own}
    with pytest.raises(UnstillError, match="another comparison"):  # what was asked for is not what was measured
        unstill.verify(model, out=tmp_path, quick=True, steps=3, frames=3, size=(64, 64))
    loads = []
    monkeypatch.setattr(registry, "load", lambda name, **options: loads.append(name) or load(name, **options))
    monkeypatch.setattr(Comparison, "_make", lambda *_: pytest.fail("nothing is left to make"))
    assert CliRunner().invoke(app, [*words, "--offload"]).exit_code == 0 and loads == [model]  # costs anew


def test_the_plan_and_the_time_that_is_left_are_told(model, tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(verification, "QUICK_SECONDS", 0)
    made = Comparison._make

    def make(*args):
        if len(told) == 3:
            raise KeyboardInterrupt
        return made(*args)

    monkeypatch.setattr(Comparison, "_make", make)
    with pytest.raises(KeyboardInterrupt):
        unstill.verify(model, out=tmp_path, quick=True, steps=1, frames=3, tell=told.append)
    assert told[0] == (
        "4 videos (2 pictures, 1 seed, plain and early-start) of 3 frames of 64 x 64 in 1 steps; 0 are finished."
    )
    assert re.fullmatch(r"A video takes \d+ s: \d+ s for the 3 videos still to make\.", told[1])
    assert told[2].startswith("That is more than the ten minutes that --quick is meant for")
