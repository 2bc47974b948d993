"""The other verbs, the help, and what the command line costs before it does anything."""

import json
import subprocess
import sys
import tarfile
import typing

import pytest
import torch
import typer

from tests.processes import launch_two
from unstill.cli import app
from unstill.data import ownership
from unstill.data.video import write_video
from unstill.latent_statistics import LatentStatistics
from unstill.models.registry import MODELS, load


VERBS = [command.callback.__name__ for command in app.registered_commands]


def test_help_costs_no_heavy_import():
    probe = "import sys, unstill.cli; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "numpy", "PIL", "diffusers", "transformers", "av", "cv2", "pydantic"} & set(loaded)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_an_example_and_json(unstill, verb):
    result = unstill(verb, "--help")
    assert result.exit_code == 0 and f"Example: unstill {verb}" in result.stdout
    assert ("--json" in result.stdout) == (verb != "app")  # a page has no result to print


@pytest.mark.parametrize("verb", VERBS)
def test_help_fits_80_columns_and_names_every_option_in_full(unstill, verb, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    lines = unstill(verb, "--help").stdout.splitlines()
    assert max(map(len, lines)) <= 80 and not [line for line in lines if "\u2026" in line]
    parameters = typer.main.get_command(app).commands[verb].params
    options = {option for one in parameters for option in (*one.opts, *one.secondary_opts) if option.startswith("-")}
    assert options <= {word.strip(",") for line in lines for word in line.split()[1:4]}
    text = " ".join(" ".join(lines).replace("\u2502", "").split())
    assert text.index("Usage:") < text.index("Example:") < text.index("\u256d")
    assert "<str>" not in text and (verb != "animate" or "Default: animated.mp4" in text)


def test_the_options_of_animate_are_in_groups(unstill):
    lines = unstill("animate", "--help").stdout.splitlines()
    titles = [line.strip("\u256d\u2500\u256e ") for line in lines if line.startswith("\u256d")]
    assert titles == ["Picture", "Method", "Model", "Output", "From words, without a picture", "Options"]


def test_models_and_methods(unstill):
    models = json.loads(unstill("models", "--json").stdout)
    assert [model["name"] for model in models] == [m.name for m in MODELS]
    without_image_input = {model["name"] for model in models if not model["condition"]}
    assert {"animatediff", "ltx-video", "wan2.1-t2v-1.3b"} <= without_image_input
    assert {"pico", "svd", "cogvideox-5b-i2v"} <= {model["name"] for model in models} - without_image_input
    methods = {method["name"]: method for method in json.loads(unstill("methods", "--json").stdout)}
    assert methods["early_start"]["parameters"] == {"start": None, "sigma": None}
    assert methods["analytic_init"]["parameters"]["statistics"] == "required"
    assert methods["ni_vsds"]["refused"]["LTX2ImageToVideoPipeline"].endswith("use ImageStart.")
    assert "WanPipeline" in methods["conditioning_augmentation"]["refused"]
    assert "pico" in unstill("models").stdout


def test_the_list_of_methods_begins_with_what_a_user_wants_to_know(unstill):
    printed = unstill("methods").stdout
    assert max(map(len, printed.splitlines())) <= 80
    lines = [line.strip() for line in printed.splitlines()]
    assert lines[:6] == [
        "early_start",
        "Starts sampling below the highest noise level: more motion.",
        "Use it when your video stands still, only zooms, moves too slowly.",
        "Changes: start. Costs: nothing.",
        "Parameters: start=None, sigma=None",
        "Presets: paper, paper-svd, released, released-svd",
    ]
    text = " ".join(printed.split())
    assert "LTX2ImageToVideo, LTX2: NIVSDS visits levels twice" in text and "Not on any pipeline: TimeNoise" in text
    for one in json.loads(unstill("methods", "--json").stdout):
        assert text.index(one["summary"]) < text.index(f"How: {one['how']}"), one["name"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["animte"], "No such command 'animte'; did you mean 'animate'?"),
        (["animate", "--motoin", "1"], "No such option: --motoin (Possible options: "),
        (["animate", "--steps", "0"], "--steps should be greater than or equal to 1; see"),
        (["animate", "--steps", "many"], "--steps should be a valid integer; see"),
        (["animate", "a.png", "b.png"], "There is no picture at a.png; check the path. There is no picture at b.png"),
        (["convert", "a.ckpt", "b", "--dtype", "float8"], "'float8' is not one of 'float32', 'float16'"),
        (["convert", "a.ckpt", "b", "c"], "Got unexpected extra argument"),
        (["convert"], "Missing argument"),
        (["animate", "--model", "./nowhere"], "There is no folder ./nowhere; check the path"),
        (["animate", "--size", "512x512"], "pico makes videos of one size only (96x96): leave out --size"),
        (["diagnose", "--size", "512x512"], "pico makes videos of one size only (96x96): leave out --size"),
        (["compare", "--method", "early-start", "--size", "512x512"], "one size only (96x96)"),
        (
            ["animate", "--frames", "500"],
            "--frames is 500, but pico makes videos of at most 16 frames",
        ),
        (["compare", "--method", "early-start", "--frames", "17"], "at most 16 frames"),
        (["diagnose", "--model", "dynamicrafter-512", "--frames", "17"], "at most 16 frames"),
        (["animate", "https://example.com/photo.jpg"], "is an address, and none is opened"),
    ],
)
def test_a_mistake_is_one_sentence(unstill, words, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = unstill(*words)
    assert result.exit_code == 2 and result.stdout == "" and says in result.stderr, result.stderr
    assert result.stderr.count("\n") == 1 and not list(tmp_path.iterdir())


def test_the_usual_mistakes_wait_for_no_diffusers():
    probe = """
import sys
from unstill.cli import app
for words in ["nowhere.png"], ["--model", "pcio"], ["--frames", "500"], ["--method", "foo"], ["--out", "a.avi"]:
    try:
        app(["animate", *words])
    except SystemExit as end:
        print(end.code, "diffusers" in sys.modules)
"""
    said = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True).stdout
    assert said == "2 False\n" * 5


@pytest.mark.parametrize(
    "words", [("statistics", "world"), ("evaluate", "clips"), ("diagnose",)], ids=lambda words: words[0]
)
def test_a_folder_in_the_way_is_said_before_the_work(unstill, words, tmp_path, monkeypatch):
    def load(*args, **options):
        pytest.fail("work began")

    monkeypatch.setattr("unstill.models.registry.load", load)
    monkeypatch.setattr("unstill.metrics.evaluate.evaluate", load)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken.html").mkdir()
    result = unstill(*words, "--out", "taken.html")
    assert result.exit_code == 2 and result.stderr.startswith("--out taken.html is a folder; name a file in it")
    assert not list((tmp_path / "taken.html").iterdir())


def test_a_bare_command_is_answered_with_the_help(unstill):
    result = unstill()
    assert result.exit_code == 2 and "Start here: unstill animate" in result.output


def test_no_help_text_loses_what_stands_in_brackets():
    """In which rich sees markup: '[default: 16]' is shown as nothing."""
    for command in app.registered_commands:
        for hint in typing.get_type_hints(command.callback, include_extras=True).values():
            for info in getattr(hint, "__metadata__", ()):
                assert "[" not in (info.help or ""), info.help


@pytest.fixture
def clips(tmp_path):
    generator = torch.Generator().manual_seed(0)
    for index in range(3):
        video = torch.randint(0, 255, (12, 3, 64, 64), generator=generator, dtype=torch.uint8)
        write_video(tmp_path / "clips" / f"{index}.mp4", video, 8)
    return tmp_path / "clips"


def test_statistics_are_those_of_the_pipelines_own_latents(unstill, model, clips, tmp_path):
    out = tmp_path / "s.safetensors"
    words = ("statistics", clips, "--model", model, "--frames", 4, "--out", out)
    told = json.loads(unstill(*words, "--json").stdout)
    saved = LatentStatistics.load(out)
    assert told == json.loads(out.with_suffix(".json").read_text())
    assert (told["count"], told["shape"]) == (3, list(saved.mean.shape)) and saved.mean.shape[1] == 4
    assert told["variance"] == pytest.approx(float(saved.variance))
    side = load(model).transformer.config.sample_size
    assert saved.mean.shape[2:] == (side, side)
    assert "3 clips" in unstill(*words).stdout
    assert {entry.name for entry in tmp_path.iterdir()} == {"clips", "s.safetensors", "s.json"}


def test_statistics_without_a_record_are_not_overwritten(unstill, model, clips, tmp_path):
    out = tmp_path / "s.safetensors"
    LatentStatistics({"of": "mine"}).update(torch.randn(3, 4, 2, 5, 5)).save(out)
    mine = out.read_bytes()
    result = unstill("statistics", clips, "--model", model, "--frames", 4, "--out", out)
    assert result.exit_code == 2 and "unstill did not write it" in result.stderr
    assert out.read_bytes() == mine and {entry.name for entry in tmp_path.iterdir()} == {"clips", "s.safetensors"}


def test_statistics_that_were_stopped_at_the_very_end(unstill, model, clips, tmp_path, monkeypatch):
    words = ("statistics", clips, "--model", model, "--frames", 4, "--out")
    unstill(*words, tmp_path / "whole.safetensors")
    out, real, moved = tmp_path / "s.safetensors", ownership.move, []

    def stopped(new, path):  # between the record and the statistics
        if moved:
            raise KeyboardInterrupt
        moved.append(path.name)
        real(new, path)

    monkeypatch.setattr(ownership, "move", stopped)
    assert unstill(*words, out).exit_code == 130 and moved == ["s.json"] and not out.exists()
    monkeypatch.undo()
    assert unstill(*words, out).exit_code == 0
    assert out.read_bytes() == (tmp_path / "whole.safetensors").read_bytes()


def test_statistics_of_unreadable_videos(unstill, model, clips, tmp_path):
    (clips / "broken.mp4").write_bytes(b"nothing")
    out = tmp_path / "s.safetensors"
    result = unstill("statistics", clips, "--model", model, "--frames", 4, "--out", out)
    assert result.exit_code == 0 and "3 clips (1 could not be read)" in result.stdout
    result = unstill("statistics", clips, "--model", model, "--frames", 400, "--out", tmp_path / "t.safetensors")
    assert (
        result.exit_code == 2 and "None of the 4 clips" in result.stderr and not (tmp_path / "t.safetensors").exists()
    )


def test_statistics_of_some_of_the_videos(unstill, model, clips, tmp_path):
    words = ("statistics", clips, "--model", model, "--frames", 4, "--json", "--out", tmp_path / "s.safetensors")
    told = [
        json.loads(unstill(*words, *more).stdout) for more in (("--clips", 2), ("--clips", 5, "--clips-per-video", 2))
    ]
    assert [(one["count"], one["videos"]) for one in told] == [
        (2, {"kind": "folder", "clips": 2, "clips_per_video": 1}),
        (6, {"kind": "folder", "clips": 6, "clips_per_video": 2}),
    ]


def test_statistics_of_the_world_and_of_shards(unstill, model, clips, tmp_path):
    words = ("--model", model, "--frames", 4, "--json", "--out", tmp_path / "s.safetensors")
    told = json.loads(unstill("statistics", "world", *words, "--clips", 5).stdout)
    assert (told["count"], told["videos"]["kind"]) == (5, "world")
    (tmp_path / "shards").mkdir()
    with tarfile.open(tmp_path / "shards" / "0.tar", "w") as tar:
        for file in sorted(clips.iterdir()):
            tar.add(file, file.name)
    packed = json.loads(unstill("statistics", tmp_path / "shards", *words).stdout)
    assert (packed["count"], packed["videos"]["kind"]) == (3, "shards")


def test_two_processes_measure_what_one_does(unstill, model, clips, tmp_path):
    words = ("statistics", str(clips), "--model", model, "--frames", "4", "--clips-per-video", "3", "--out")
    unstill(*words, tmp_path / "one.safetensors")
    launch_two(tmp_path / "logs", *words, tmp_path / "two.safetensors")
    assert (tmp_path / "two.safetensors").read_bytes() == (tmp_path / "one.safetensors").read_bytes()
    assert LatentStatistics.load(tmp_path / "two.safetensors").count == 9
    assert {entry.name for entry in tmp_path.iterdir()} == {
        *("clips", "logs", "one.json", "one.safetensors", "two.json", "two.safetensors")
    }


@pytest.mark.parametrize("folder", ["nowhere", "."])
def test_statistics_of_no_videos(unstill, model, tmp_path, monkeypatch, folder):
    monkeypatch.chdir(tmp_path)
    result = unstill("statistics", folder, "--model", model)
    assert result.exit_code == 2 and folder in result.stderr and not list(tmp_path.iterdir())


def test_analytic_init_from_measured_statistics(unstill, model, photo, clips, tmp_path):
    out = tmp_path / "s.safetensors"
    unstill("statistics", clips, "--model", model, "--frames", 3, "--out", out)
    words = ("--method", f"analytic_init:statistics={out},sigma=6", "--steps", 1, "--frames", 3)
    result = unstill("animate", photo, "--model", model, *words, "--out", tmp_path / "x.mp4", "--json")
    told = json.loads(result.stdout)["methods"][0]["parameters"]["statistics"]
    assert (told["count"], told["shape"]) == (3, [12, 3, 8, 8])


def test_train_makes_a_pipeline_that_loads(unstill, tmp_path):
    small = "size=32,frames=3,layers=1,heads=1,autoencoder_frames=16,autoencoder_batch=4,pictures=2,precision=no"
    recipe = f"pico:steps=2,autoencoder_steps=2,clips=12,batch=2,{small}"
    result = unstill("train", recipe, "--out", tmp_path / "run", "--seed", 5, "--json")
    made = json.loads(result.stdout)
    assert (made["recipe"]["steps"], made["recipe"]["seed"]) == (2, 5) and result.stderr == ""
    assert made["pipeline"] == str(tmp_path / "run" / "pipeline")
    assert type(load(made["pipeline"])).__name__ == "PicoPipeline"


def test_train_mistakes(unstill, tmp_path):
    for recipe, says in (
        ("tiny", "no recipe file tiny"),
        ("pico:step=3", "did you mean 'steps'"),
        ("pico:steps=x", "whole"),
    ):
        result = unstill("train", recipe, "--out", tmp_path / "run")
        assert result.exit_code == 2 and says in result.stderr and not (tmp_path / "run").exists()
    told = json.loads(unstill("train", "pico:steps=7", "--settings").stdout)
    assert told["steps"] == 7
