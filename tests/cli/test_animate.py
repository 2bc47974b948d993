"""`unstill animate` on a random pipeline: what is written, what is said, and what never happens."""

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.processes import wait_for
from unstill.data.video import read_video
from unstill.errors import UnstillError
from unstill.models import registry


QUICK = ("--steps", 1, "--frames", 3, "--method", "early_start:sigma=6")


def names(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()}


def test_writes_both_videos_the_comparison_and_the_settings(unstill, model, photo, tmp_path):
    out = tmp_path / "made" / "walk.mp4"
    result = unstill("animate", photo, "--model", model, *QUICK, "--out", out, "--compare", "--seed", 3, "--fps", 6)
    assert result.exit_code == 0, result.stderr
    assert names(out.parent) == {"walk.mp4", "walk_plain.mp4", "walk_compare.mp4", "walk.json"}
    improved, compared = read_video(out), read_video(out.with_name("walk_compare.mp4"))
    assert improved.frames.shape == (3, 3, 256, 256) and improved.fps == 6
    assert len(compared) == 3 and compared.frames.shape[-1] > 2 * 256
    assert not np.array_equal(improved.frames, read_video(out.with_name("walk_plain.mp4")).frames)
    settings = json.loads((out.parent / "walk.json").read_text())
    assert settings["seed"] == 3 and settings["call"]["num_inference_steps"] == 1
    assert settings["methods"] == [{"name": "early_start", "parameters": {"start": None, "sigma": 6.0}}]
    assert settings["image"]["sha256"] == hashlib.sha256(photo.read_bytes()).hexdigest()
    assert settings["scheduler"]["class"] == "EDMDPMSolverMultistepScheduler"
    assert settings["scores"].keys() == {"plain", "improved"}
    for words in ("plain", "improved", "moves", "first frame", "walk.mp4", "walk.json"):
        assert words in result.stdout


def test_without_an_argument_the_bundled_picture_moves(unstill, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert unstill("animate", "--steps", 2).exit_code == 0
    assert names(tmp_path) == {"animated.mp4", "animated_plain.mp4", "animated.json"}
    assert len(read_video(tmp_path / "animated.mp4")) == 16
    # Fewer frames than the shipped statistics have.
    assert unstill("animate", "--steps", 2, "--frames", 5, "--no-plain", "--out", "short.gif").exit_code == 0
    assert len(read_video(tmp_path / "short.gif")) == 5


def test_what_the_model_sees_of_a_picture_of_another_shape_is_said_and_can_be_chosen(unstill, model, photo, tmp_path):
    told = {}
    for crop in ("auto", "fit", "0,50"):
        out = tmp_path / f"{crop}.gif"
        result = unstill("animate", photo, "--model", model, *QUICK, "--no-plain", "--crop", crop, "--out", out)
        told[crop] = result.stdout.splitlines()[0], json.loads(out.with_suffix(".json").read_text())["crop"]
    hint = "Change it with --crop fit, centre or X,Y."
    seen = "The model sees 67% of the picture; cut off:"
    assert told["auto"][0] == f"{seen} 17% at the left and 17% at the right. {hint}"
    assert told["0,50"][0] == f"{seen} 33% at the right. {hint}"
    assert told["fit"][0].startswith("The model sees the whole picture, with a blurred copy of it above and below")
    assert told["auto"][1] == {"crop": "50,50", "seen": [16, 0, 80, 64]} and told["fit"][1]["crop"] == "fit"
    wrong = unstill("animate", photo, "--model", model, "--crop", "left", "--out", tmp_path / "wrong.gif")
    assert wrong.exit_code == 2 and "A crop is auto, centre, fit" in wrong.stderr
    assert not (tmp_path / "wrong.gif").exists()


@pytest.mark.parametrize(("name", "made"), [("a.gif", "a.gif"), ("a.webp", "a.webp"), ("frames", "frames")])
def test_every_kind_of_output_can_be_read_again(unstill, model, photo, tmp_path, name, made):
    out = tmp_path / name
    for _ in range(2):  # the second run replaces the first
        assert unstill("animate", photo, "--model", model, *QUICK, "--no-plain", "--out", out).exit_code == 0
    assert len(read_video(tmp_path / made)) == 3
    assert names(tmp_path) == {"photo.png", made, f"{out.stem}.json"}


def test_json_is_all_that_is_printed_and_the_same_seed_gives_the_same(unstill, model, photo, tmp_path):
    made = []
    for seed, name in ((1, "a.gif"), (1, "b.gif"), (2, "c.gif")):
        result = unstill(
            "animate", photo, "--model", model, *QUICK, "--seed", seed, "--out", tmp_path / name, "--json"
        )
        told = json.loads(result.stdout)
        assert result.stderr == "" and told == json.loads((tmp_path / name).with_suffix(".json").read_text())
        made.append((told["scores"], (tmp_path / name).read_bytes()))
    assert made[0] == made[1] and made[0][1] != made[2][1]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("svd", ["--frames", 3, "--size", "32x16", "--motion", 0.5]),
        ("animatediff", ["--frames", 3, "--size", "32x16", "--prompt", "boat"]),
        ("cogvideox", ["--prompt", "boat"]),
        ("wan", ["--frames", 5, "--size", "32x16", "--prompt", "boat"]),
    ],
)
def test_pipelines_of_diffusers(unstill, diffusers_models, photo, tmp_path, name, words):
    out = tmp_path / "x.mp4"
    model = diffusers_models[name]
    result = unstill("animate", photo, "--model", model, "--steps", 2, "--out", out, "--upscale", 1, "--json", *words)
    assert result.exit_code == 0, result.stderr
    settings = json.loads(result.stdout)
    assert settings["methods"][0]["name"] == "early_start"
    assert read_video(out).frames.shape[-2:] == (settings["size"]["height"], settings["size"]["width"])
    if name != "cogvideox":
        assert (settings["size"]["height"], settings["size"]["width"]) == (16, 32)
    # The same call without methods is what the pipeline does alone; with them it starts elsewhere.
    assert out.read_bytes() != (tmp_path / "x_plain.mp4").read_bytes()


def test_what_a_pipeline_refuses_is_one_sentence(unstill, diffusers_models, photo, tmp_path):
    words = ("--model", diffusers_models["svd"], "--frames", 3, "--steps", 1, "--out", tmp_path / "x.mp4")
    result = unstill("animate", photo, *words, "--size", "33x33")
    assert result.exit_code == 2 and "StableVideoDiffusionPipeline refuses" in result.stderr
    assert result.stderr.count("\n") == 1 and names(tmp_path) == {"photo.png"}


def pictures(folder: Path) -> dict[str, Path]:
    """Ordinary and odd pictures."""
    rng = np.random.default_rng(0)
    colour = Image.fromarray(rng.integers(0, 255, (40, 60, 3), dtype=np.uint8))
    turned = Image.Exif()
    turned[0x0112] = 6
    save = {
        "turned.jpg": lambda path: colour.save(path, exif=turned),
        "rgba.png": lambda path: colour.convert("RGBA").save(path),
        "deep.png": lambda path: Image.fromarray(rng.integers(0, 65535, (40, 60), dtype=np.uint16)).save(path),
        "cmyk.jpg": lambda path: colour.convert("CMYK").save(path),
        "grey.png": lambda path: colour.convert("L").save(path),
        "moving.gif": lambda path: colour.save(path, save_all=True, append_images=[colour.convert("L")]),
        "tiny.png": lambda path: colour.resize((3, 5)).save(path),
    }
    for name, write in save.items():
        write(folder / name)
    return {name: folder / name for name in save}


def test_ordinary_and_odd_pictures(unstill, model, tmp_path):
    for name, path in pictures(tmp_path).items():
        out = tmp_path / f"{path.stem}.mp4"
        result = unstill("animate", path, "--model", model, *QUICK, "--no-plain", "--out", out, "--upscale", 1)
        assert result.exit_code == 0, (name, result.stderr)
        assert read_video(out).frames.shape == (3, 3, 64, 64)


@pytest.fixture
def never_loads(monkeypatch):
    def load(*args, **options):
        pytest.fail("a model was loaded before the mistake was found")

    monkeypatch.setattr(registry, "load", load)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--method", "foo"], "no method 'foo'"),
        (["--method", "early_start:sigma=-1"], "above 0"),
        (["--size", "big"], "WIDTHxHEIGHT"),
        (["--motion", "3"], "from 0 (still) to 1 (lively)"),
        (["--prompt", "a red ring", "--pick", 1], "for pictures that are made of a prompt"),
        (["--out", "a.avi"], ".mp4, .gif, .webp"),
        (["--out", "taken"], "never overwritten"),
        (["--out", os.devnull], "is a device, which holds no video"),
        (["--out", "taken/x.mp4/y.mp4"], "x.mp4 is a file, not a folder): choose another place"),
        (["--compare", "--no-plain"], "--compare needs the plain video"),
    ],
)
@pytest.mark.usefixtures("never_loads")
def test_mistakes_in_options_are_found_before_a_model_is_loaded(
    unstill, model, photo, tmp_path, monkeypatch, words, says
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "x.mp4").write_text("mine")
    result = unstill("animate", photo, "--model", model, *words)
    assert result.exit_code == 2 and says in result.stderr
    assert result.stderr.count("\n") == 1 and result.stdout == ""
    assert names(tmp_path) == {"photo.png", "taken"} and names(tmp_path / "taken") == {"x.mp4"}


@pytest.mark.usefixtures("never_loads")
def test_what_is_no_picture_is_said_in_one_sentence(unstill, model, photo, tmp_path):
    whole = photo.read_bytes()
    wrong = {
        "corrupt.png": (whole[: len(whole) // 2], "damaged"),
        "empty.jpg": (b"", "empty"),
        "text.jpg": (b"not a picture", "not a picture"),
    }
    for name, (content, says) in wrong.items():
        (tmp_path / name).write_bytes(content)
        result = unstill("animate", tmp_path / name, "--model", model, "--out", tmp_path / "x.mp4")
        assert result.exit_code == 2 and says in result.stderr and result.stderr.count("\n") == 1, name
    for path, says in ((tmp_path, "folder"), (tmp_path / "missing.png", "no picture at")):
        result = unstill("animate", path, "--model", model, "--out", tmp_path / "x.mp4")
        assert result.exit_code == 2 and says in result.stderr
    assert names(tmp_path) == {"photo.png", *wrong}


def test_a_full_disk_leaves_nothing_behind(unstill, model, photo, tmp_path, monkeypatch):
    def full(*args, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("unstill.data.ownership.write_record", full)  # the last thing that is written
    result = unstill("animate", photo, "--model", model, *QUICK, "--out", tmp_path / "x.mp4")
    assert result.exit_code == 2 and "free some space" in result.stderr and result.stderr.count("\n") == 1
    assert names(tmp_path) == {"photo.png"}


def test_a_bug_keeps_its_traceback(unstill, model, photo, tmp_path, monkeypatch):
    def broken(*args, **options):
        raise RuntimeError("a bug")

    monkeypatch.setattr(registry, "load", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        unstill("animate", photo, "--model", model, "--out", tmp_path / "x.mp4")
    assert names(tmp_path) == {"photo.png"}


@pytest.mark.usefixtures("never_loads")
@pytest.mark.parametrize("name", ["x_plain", "x_compare", "x.json", "x", "x_candidates"])
def test_what_animate_did_not_write_is_never_touched(unstill, photo, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / name
    if name.endswith(".json"):
        path.write_text('{"mine": 1}')
    else:
        path.mkdir()
        (path / "frame_notes.txt").write_text("mine")
    words = ["--prompt", "a red ring"] if name == "x_candidates" else [photo]
    result = unstill("animate", *words, "--compare", "--out", "x")
    assert result.exit_code == 2 and "never overwritten" in result.stderr and result.stderr.count("\n") == 1
    assert names(tmp_path) == {"photo.png", name} and (path.is_file() or names(path) == {"frame_notes.txt"})


@pytest.mark.usefixtures("never_loads")
@pytest.mark.parametrize("out", [".", "", "..", os.fsdecode(b"\xff.mp4")])
def test_names_that_cannot_be_are_refused_before_the_work(unstill, photo, out):
    result = unstill("animate", photo, "--out", out)
    assert result.exit_code == 2 and "--out" in result.stderr and result.stderr.count("\n") == 1


BEGUN = """
import pathlib, runpy, sys
from torch.nn.modules.module import register_module_forward_hook

begun = pathlib.Path(sys.argv.pop(1))
register_module_forward_hook(lambda module, *_: begun.touch() if type(module).__name__ == "PicoTransformer" else None)
runpy.run_module("unstill", run_name="__main__")
"""  # the command, which makes a file when the sampling has begun


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_it_ends_with_one_sentence_and_nothing_behind(model, photo, tmp_path, number, code):
    out, begun = tmp_path / "out", tmp_path / "begun"
    words = [begun, "animate", photo, "--model", model, "--steps", 100000, "--out", out / "x.mp4"]
    process = subprocess.Popen(
        [sys.executable, "-c", BEGUN, *map(str, words)],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        # A suite that runs in the background of a shell would hand on that SIGINT is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        wait_for(lambda: begun.exists() or process.poll() is not None)
        assert out.is_dir()
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == code
    assert stderr.strip().splitlines()[-1].startswith("Stopped") and "Traceback" not in stderr and stdout == ""
    assert names(out) == set()


def test_errors_of_the_library_are_errors_of_the_command(unstill, model, photo, tmp_path, monkeypatch):
    def refuse(*args, **options):
        raise UnstillError("One sentence.")

    monkeypatch.setattr(registry, "load", refuse)
    result = unstill("animate", photo, "--model", model, "--out", tmp_path / "x.mp4")
    assert (result.exit_code, result.stderr, result.stdout) == (2, "One sentence.\n", "")


def test_a_model_is_loaded_as_asked(unstill, diffusers_models, photo, tmp_path) -> None:
    small = ("--frames", 3, "--steps", 2, "--size", "32x16", "--no-plain", "--out", tmp_path / "x.mp4", "--json")
    result = unstill(
        "animate", photo, "--model", diffusers_models["svd"], *small, "--dtype", "bfloat16", "--quantise", "fp8"
    )
    assert result.exit_code == 0, result.stderr
    settings = json.loads(result.stdout)
    assert (settings["dtype"], settings["quantise"], settings["loras"]) == ("bfloat16", "fp8", [])
    for words, said in (
        (("--dtype", "float8"), "--dtype is float32, float16, bfloat16, but got 'float8'."),
        (("--lora", "nowhere"), "--lora nowhere names no file with a weight"),
    ):
        wrong = unstill("animate", photo, "--model", diffusers_models["svd"], *small, *words)
        assert wrong.exit_code == 2 and said in wrong.stderr


def test_a_hub_that_does_not_answer_is_not_waited_for(unstill, model, photo, tmp_path, monkeypatch) -> None:
    answer = threading.Event()  # never set while the command runs
    monkeypatch.setattr(registry, "memory_needed", lambda *_: answer.wait(60) and "never said")
    result = unstill("animate", photo, "--model", model, *QUICK, "--no-plain", "--out", tmp_path / "x.gif")
    answer.set()
    assert result.exit_code == 0 and "never said" not in result.stderr
    monkeypatch.setattr(registry, "memory_needed", lambda *_: "Weights take 3 GB.")
    result = unstill("animate", photo, "--model", model, *QUICK, "--no-plain", "--out", tmp_path / "x.gif")
    assert result.stderr == "Weights take 3 GB.\n"
