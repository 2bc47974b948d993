"""`unstill.animate_all` and `unstill animate` with several images: names, checks before the work, resuming."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

import unstill as library
from tests import pipelines as tiny
from tests.cli.conftest import unstill as unstill
from unstill import animation
from unstill.animation_batch import image_targets
from unstill.animation_settings import AnimationSettings
from unstill.errors import UnstillError
from unstill.models import registry


QUICK = {"steps": 1, "frames": 3, "methods": "early-start:sigma=6"}
WORDS = ("--steps", 1, "--frames", 3, "--method", "early-start:sigma=6")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model")
    tiny.pico().save_pretrained(folder)
    return str(folder)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with two pictures in folders of their own."""
    for name, angle in (("boats/red.png", 0), ("rings/blue ring.jpg", 90)):
        path = tmp_path / name
        path.parent.mkdir()
        Image.linear_gradient("L").rotate(angle).convert("RGB").resize((64, 64)).save(path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


IMAGES = ("boats/red.png", "rings/blue ring.jpg")


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} - set(IMAGES)


def count_loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    loads: list[str] = []
    load = registry.load
    monkeypatch.setattr(registry, "load", lambda name, **options: loads.append(name) or load(name, **options))
    return loads


def test_every_video_is_named_after_its_image_and_is_that_of_animate(model, folder, monkeypatch):
    loads = count_loads(monkeypatch)
    stages: list[str] = []
    made = library.animate_all(IMAGES, model=model, **QUICK, progress=lambda *step: stages.append(step[0]))
    assert loads == [model]
    assert files(folder) == {
        *("red.mp4", "red_plain.mp4", "red.json", "blue ring.mp4", "blue ring_plain.mp4", "blue ring.json"),
    }
    assert [one.files[0].name for one in made] == ["red.mp4", "blue ring.mp4"]
    assert list(dict.fromkeys(stages)) == [
        f"{name}, {video}" for name in ("red.png", "blue ring.jpg") for video in ("plain", "improved")
    ]
    alone = library.animate(IMAGES[1], model=model, **QUICK, out="alone.mp4")
    assert Path("alone.mp4").read_bytes() == Path("blue ring.mp4").read_bytes()
    assert made[1].settings["scores"] == alone.scores and made[1].settings["verdict"] == alone.verdict


def test_what_is_finished_is_kept_and_what_is_stopped_continues(model, folder, monkeypatch):
    def stop_at_the_second(stage: str, done: int, total: int) -> None:
        if stage.startswith("blue"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        library.animate_all(IMAGES, model=model, **QUICK, out="made", progress=stop_at_the_second)
    assert files(folder) == {"made/red.mp4", "made/red_plain.mp4", "made/red.json"}
    before = (folder / "made/red.mp4").stat().st_mtime_ns
    assert [one.kept for one in library.animate_all(IMAGES, model=model, **QUICK, out="made")] == [True, False]
    assert (folder / "made/red.mp4").stat().st_mtime_ns == before
    loads = count_loads(monkeypatch)
    assert [one.kept for one in library.animate_all(IMAGES, model=model, **QUICK, out="made")] == [True, True]
    assert loads == []
    # Other settings, another picture, or a file that is missing: made again.
    other = library.animate_all(IMAGES[:1], model=model, **QUICK, out="made", seed=1)
    assert not other[0].kept
    Image.new("RGB", (64, 64), "green").save(IMAGES[0])
    assert not library.animate_all(IMAGES[:1], model=model, **QUICK, out="made", seed=1)[0].kept
    (folder / "made/red_plain.mp4").unlink()
    assert not library.animate_all(IMAGES[:1], model=model, **QUICK, out="made", seed=1)[0].kept


def test_other_weights_in_the_same_folder_are_another_request(model, folder, tmp_path_factory):
    copy = tmp_path_factory.mktemp("other")
    pipe = tiny.pico()
    pipe.save_pretrained(copy)
    assert not library.animate_all(IMAGES[:1], model=str(copy), **QUICK)[0].kept
    with torch.no_grad():
        next(pipe.transformer.parameters()).add_(1)
    pipe.save_pretrained(copy)
    assert not library.animate_all(IMAGES[:1], model=str(copy), **QUICK)[0].kept
    assert library.animate_all(IMAGES[:1], model=str(copy), **QUICK)[0].kept


def test_with_a_loaded_pipeline_nothing_is_taken_for_finished(folder):
    pipe = tiny.pico()
    for _ in range(2):
        assert [one.kept for one in library.animate_all(IMAGES, pipe=pipe, plain=False, **QUICK)] == [False, False]


@pytest.fixture
def never_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "load", lambda *args, **options: pytest.fail("a model was loaded"))


@pytest.mark.usefixtures("never_loads")
@pytest.mark.parametrize(
    ("images", "settings", "sentences"),
    [
        (["boats/red.png", "missing.png", "text.txt"], {}, ["no picture at missing.png", "text.txt"]),
        (["boats/red.png", "boats/red.png"], {}, ["boats/red.png and boats/red.png would both be written as red.mp4"]),
        (["boats/red.png", "RED.jpg"], {}, ["would both be written as RED.mp4"]),
        (["boats/red.png", "red_plain.png"], {}, ["would both be written as red_plain.mp4"]),
        (["boats/red.png", "rings/blue ring.jpg"], {"out": "x.mp4"}, ["--out '{name}.mp4'"]),
        (["boats/red.png", "rings/blue ring.jpg"], {"out": "x.avi"}, ["--out x.avi names one video"]),
        (["boats/red.png", "rings/blue ring.jpg"], {"out": "{name}.avi"}, ["red.avi", ".mp4, .gif, .webp"]),
        (["boats/red.png"], {"out": "boats/{name}.png"}, ["is one of the images"]),
        (["boats/red.png"], {"methods": "nothing"}, ["no method 'nothing'"]),
        (["boats/red.png"], {"frames": 1}, ["--frames is at least 2"]),
        ([], {}, ["no images"]),
    ],
)
def test_what_is_wrong_with_one_image_is_said_before_the_work(folder, images, settings, sentences):
    (folder / "text.txt").write_text("no picture")
    before = files(folder)
    with pytest.raises(UnstillError) as error:
        library.animate_all(images, **settings)
    assert all(sentence in str(error.value) for sentence in sentences) and "\n" not in str(error.value)
    assert files(folder) == before


@pytest.mark.usefixtures("never_loads")
def test_files_of_somebody_else_are_never_overwritten(folder):
    (folder / "blue ring.json").write_text("{}")
    with pytest.raises(UnstillError, match=r"blue ring\.json exists already"):
        library.animate_all(IMAGES)
    assert files(folder) == {"blue ring.json"}


@pytest.mark.usefixtures("never_loads")
def test_one_path_is_one_image(folder):
    with pytest.raises(UnstillError, match=r"^There is no picture at missing\.png"):
        library.animate_all("missing.png")


def test_many_mistakes_are_counted(folder):
    with pytest.raises(UnstillError, match=r"2 more images cannot be animated\.$"):
        library.animate_all([f"missing_{number}.png" for number in range(7)])


def test_a_name_in_the_middle_of_a_path():
    settings = AnimationSettings(out="made/{name}/video.gif", plain=False)
    places = image_targets([Path("a.png"), Path("b/{name}.png")], settings)
    assert list(places.values()) == [Path("made/a/video.gif"), Path("made/{name}/video.gif")]


def test_the_command_tells_every_image_and_continues(unstill, model, folder, monkeypatch):
    words = ("animate", *IMAGES, "--model", model, *WORDS, "--out", "{name}.gif", "--no-plain")
    sample = unstill_sample = animation.sample

    def stopped(pipe, request, seconds):
        if request.picture.getpixel((0, 0)) != (0, 0, 0) and "blue" in str(request.source["path"]):
            raise KeyboardInterrupt
        return unstill_sample(pipe, request, seconds)

    monkeypatch.setattr("unstill.animation_batch.sample", stopped)
    result = unstill(*words)
    assert result.exit_code == 130 and "the same command continues from here" in result.stderr
    monkeypatch.setattr("unstill.animation_batch.sample", sample)
    result = unstill(*words)
    assert result.exit_code == 0, result.stderr
    said = result.stdout.splitlines()
    assert said[0] == "boats/red.png -> red.gif Kept from an earlier run with these settings."
    assert "rings/blue ring.jpg -> blue ring.gif" in said and said[-1] == "1 of 2 animated; the others were there."
    assert files(folder) == {"red.gif", "red.json", "blue ring.gif", "blue ring.json"}
    told = json.loads(unstill(*words, "--json").stdout)
    assert [one["image"]["path"] for one in told] == list(IMAGES)
    one = unstill("animate", IMAGES[0], "--model", model, *WORDS, "--out", "{name}.webp", "--no-plain")
    assert one.exit_code == 0 and Path("red.webp").exists()
