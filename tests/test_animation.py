"""`unstill.animate` as a function: what it returns, and that it writes only where it is asked to."""

import json

import pytest
import torch
from PIL import Image

import unstill
from tests import pipelines as tiny
from unstill.data.video import read_video
from unstill.errors import UnstillError
from unstill.models import registry
from unstill.text_to_video import CandidateOptions


QUICK = {"steps": 2, "frames": 3}


@pytest.fixture(scope="module")
def pipe():
    torch.manual_seed(0)
    return tiny.pico()


@pytest.fixture
def photo():
    return Image.linear_gradient("L").convert("RGB").resize((120, 80))


def test_returns_both_videos_scores_and_settings_and_writes_nothing(pipe, photo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    steps = []
    animation = unstill.animate(
        photo, pipe=pipe, methods="early-start:sigma=6", **QUICK, progress=lambda *step: steps.append(step)
    )
    assert animation.frames.shape == (3, 3, *animation.picture.size[::-1]) and animation.frames.dtype == torch.uint8
    assert animation.plain.shape == animation.frames.shape and not torch.equal(animation.plain, animation.frames)
    assert list(animation.videos) == list(animation.scores) == ["plain", "improved"] and animation.verdict
    assert animation.settings["methods"] == [{"name": "early_start", "parameters": {"start": None, "sigma": 6.0}}]
    assert [step for step in steps if step[0] == "plain"] == [("plain", done, 2) for done in (0, 1, 2)]
    assert [step for step in steps if step[0] == "improved"] == [("improved", done, 2) for done in (0, 1, 2)]
    assert list(tmp_path.iterdir()) == [] and animation.files == ()
    assert "progress_bar" not in vars(pipe)


def test_the_videos_are_those_of_apply(pipe, photo):
    """`animate` adds nothing to what a user of the library gets from the pipeline itself."""
    method = unstill.EarlyStart(sigma=6.0)
    animation = unstill.animate(photo, pipe=pipe, methods=method, seed=5, **QUICK)
    for methods, video in ((), animation.plain), ((method,), animation.frames):
        with unstill.apply(pipe, *methods):
            frames = pipe(**animation.call, generator=torch.Generator().manual_seed(5)).frames[0]
        assert torch.equal((frames.clamp(0, 1) * 255).round().to(torch.uint8), video)


def test_saves_when_asked_and_later(pipe, photo, tmp_path):
    animation = unstill.animate(photo, pipe=pipe, **QUICK, out=tmp_path / "a.gif", compare=True, upscale=1)
    names = ["a.gif", "a_plain.gif", "a_compare.gif", "a.json"]
    assert [file.name for file in animation.files] == names
    assert json.loads(animation.files[-1].read_text())["scores"] == animation.scores
    again = animation.save(tmp_path / "b.gif", upscale=1)
    assert [file.name for file in again.files] == ["b.gif", "b_plain.gif", "b.json"]
    assert torch.equal(read_video(again.files[0]).frames, read_video(animation.files[0]).frames)


def test_without_the_plain_video_there_is_nothing_to_compare(pipe, photo, tmp_path):
    animation = unstill.animate(photo, pipe=pipe, plain=False, **QUICK)
    assert animation.plain is None and animation.verdict == "" and list(animation.scores) == ["improved"]
    with pytest.raises(UnstillError, match="plain=True"):
        animation.comparison()
    with pytest.raises(UnstillError, match="needs the plain video"):
        animation.save(tmp_path / "a.gif", compare=True)
    assert list(tmp_path.iterdir()) == []


def test_of_a_prompt_alone_the_chosen_picture_is_animated(pipe):
    options = CandidateOptions(count=2, reward=lambda prompt, pictures: range(len(pictures)))
    animation = unstill.animate(prompt="a red ring", pipe=pipe, candidates=options, **QUICK)
    assert animation.chosen.choice == 1 and torch.equal(animation.frames, animation.chosen.frames)
    assert animation.settings["candidates"]["scores"] == [0, 1] and animation.scores["improved"]["reward"] == 1
    assert animation.comparison().shape[-1] > animation.plain.shape[-1] * 4


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"frames": 1}, "frames is at least 2"),
        ({"steps": 0}, "steps is at least 1"),
        ({"seed": -1}, "seed is at least 0"),
        ({"upscale": 0}, "upscale goes from 1 to 16"),
        ({"motion": 2.0}, "from 0"),
        ({"methods": "no-such"}, "no method"),
        ({"image": "missing.png"}, "no picture at missing.png"),
        ({"candidates": CandidateOptions()}, "pictures that are made of a prompt"),
        ({"model": "no-such"}, "no model"),
    ],
)
def test_mistakes_are_found_before_a_model_is_loaded(photo, monkeypatch, tmp_path, change, sentence):
    monkeypatch.setattr(registry, "load", lambda *args, **options: pytest.fail("a model was loaded"))
    with pytest.raises(UnstillError, match=sentence):
        unstill.animate(**{"image": photo, "out": tmp_path / "made" / "x.mp4", **change})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "options", [{"count": 0}, {"count": 2, "pick": 2}, {"reward": "taste"}, {"early": True, "text_to_image": "sdxl"}]
)
def test_candidates_that_cannot_be_are_refused(options):
    with pytest.raises(UnstillError):
        CandidateOptions(**options)
