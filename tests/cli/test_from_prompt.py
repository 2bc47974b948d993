"""`unstill animate --prompt`: from words to a chosen picture to a video."""

import json
from pathlib import Path

import pytest

from unstill.data.video import read_video
from unstill.models import registry


WORDS = ("--steps", 3, "--frames", 3, "--candidates", 3)
CAPTION = "a red ring drifting left over green"


def files(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()}


def test_candidates_are_kept_and_another_one_can_be_picked(unstill, model, tmp_path):
    out = tmp_path / "ring.mp4"
    say = ("animate", "--model", model, "--prompt", CAPTION, *WORDS, "--method", "ni_vsds:tau=0.1", "--out", out)
    result = unstill(*say, "--json")
    assert result.exit_code == 0, result.stderr
    assert files(tmp_path) == {"ring.mp4", "ring_plain.mp4", "ring.json", "ring_candidates"}
    kept = tmp_path / "ring_candidates"
    assert {"candidates.png", "anchor.png", "candidate_00.png", "candidate_02.png"} <= files(kept)
    told = json.loads(result.stdout)
    assert len(told["candidates"]["scores"]) == 3 and told["candidates"]["reward"] == "world"
    assert told["methods"][0]["name"] == "ni_vsds" and len(read_video(out)) == 3

    made = (kept / "candidates.safetensors").stat().st_mtime_ns
    other = (told["candidates"]["choice"] + 1) % 3
    result = unstill(*say, "--pick", other, "--no-plain")
    assert result.exit_code == 0 and f"Made from candidate {other} of 3" in result.stdout
    assert (kept / "candidates.safetensors").stat().st_mtime_ns == made


def test_a_text_to_video_pipeline_whose_candidates_make_way_for_those_of_another_seed(
    unstill, diffusers_models, tmp_path
):
    words = ("--prompt", "boat", "--size", "32x16", "--reward", "proxy", "--early", "--upscale", 1, "--no-plain")
    say = ("animate", "--model", diffusers_models["animatediff"], *WORDS, *words, "--out", tmp_path / "x.gif")
    result = unstill(*say, "--json")
    assert result.exit_code == 0, result.stderr
    told = json.loads(result.stdout)["candidates"]
    assert told["reward"] == "proxy" and sorted(one or 9 for one in told["stopped"]) == [2, 9, 9]
    assert read_video(tmp_path / "x.gif").frames.shape == (3, 3, 16, 32)
    kept = tmp_path / "x_candidates"
    made = (kept / "candidates.safetensors").read_bytes()
    assert unstill(*say, "--seed", 5).exit_code == 0
    assert (kept / "candidates.safetensors").read_bytes() != made
    (kept / "mine.txt").write_text("mine")
    result = unstill(*say, "--seed", 6)
    assert result.exit_code == 2 and "holds other things than candidates" in result.stderr
    assert "mine.txt" in files(kept)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--reward", "taste"], "no reward 'taste'"),
        (["--candidates", 3, "--method", "early_start"], "without other methods"),
        (["--pick", 1, "--model", "svd"], "a model that makes videos from text"),
    ],
)
def test_mistakes_are_found_before_a_model_is_loaded(unstill, tmp_path, monkeypatch, words, says):
    monkeypatch.setattr(registry, "load", lambda *args, **options: pytest.fail("a model was loaded"))
    result = unstill("animate", "--prompt", CAPTION, "--out", tmp_path / "x.mp4", *words)
    assert result.exit_code == 2 and says in result.stderr and result.stderr.count("\n") == 1
    assert files(tmp_path) == set()
