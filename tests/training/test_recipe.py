"""Recipes: what they say, and what they say when something in them is wrong."""

from pathlib import Path

import pytest

from unstill.errors import UnstillError
from unstill.models.registry import find
from unstill.training.condition_noise import PLANS, plan_of
from unstill.training.recipe import check_recipe, read_recipe, shipped


GOOD = """
model: svd
data: {videos: clips, fps: 3, size: 512x320}
condition: {preset: paper}
lora: true
train: {steps: 5, learning_rate: 3e-5}
validate: {every: 100}
"""


def test_no_is_no_although_yaml_reads_it_as_false() -> None:
    recipe = check_recipe(GOOD, "mine.yaml", {"train.mixed_precision": False})
    assert recipe.train.mixed_precision == "no"
    bare = GOOD.replace("steps: 5", "steps: 5, mixed_precision: no")
    assert check_recipe(bare, "mine.yaml").train.mixed_precision == "no"
    with pytest.raises(UnstillError, match="mixed_precision"):
        check_recipe(GOOD, "mine.yaml", {"train.mixed_precision": True})


def test_a_recipe_is_read() -> None:
    recipe = check_recipe(GOOD, "mine.yaml", {"train.steps": 7, "save.every": 50, "seed": 3})
    assert recipe.train.steps == 7 and recipe.train.learning_rate == 3e-5 and recipe.save.every == 50
    assert recipe.seed == 3 and recipe.lora is not None and recipe.lora.rank == 32
    assert recipe.validation is not None and recipe.validation.every == 100
    settings = recipe.data.settings(14, 7.0, (576, 1024), recipe.seed)
    assert (settings.frames, settings.fps, settings.size, settings.seed) == (14, 3.0, (320, 512), 3)
    assert settings.kind == "folder" and settings.path == "clips"
    by_stride = check_recipe("model: svd\ndata: {videos: world, stride: [1, 6]}\ntrain: {steps: 1}", "x")
    settings = by_stride.data.settings(14, 7.0, (64, 64), 0)
    assert settings.fps is None and settings.stride == (1, 6) and settings.kind == "world" and settings.path is None


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (GOOD.replace("learning_rate", "learning_rat"), "train.learning_rat is not a key of train; did you mean lear"),
        (GOOD.replace("condition:", "conditon:"), "conditon is not a key of a recipe; did you mean condition?"),
        (GOOD + "steps: 5", "steps is not a key of a recipe; did you mean train.steps?"),
        (GOOD + "captions: a.csv", "captions is not a key of a recipe; did you mean data.captions?"),
        (GOOD.replace("lora: true", "lora: 32"), "lora is 32: should be a group of keys and their values"),
        (GOOD.replace("512x320", "100000x320"), "data.size is '100000x320': .* in pixels, each at most 16384, for"),
        (GOOD + "trackers: wandb", r"trackers is 'wandb': should be a list, such as \[a, b\]"),
        (GOOD.replace("fps: 3", "stride: 0"), r"^mine.yaml: data.stride has 0: should be .* such as \[1, 6\]\.$"),
        (GOOD.replace("fps: 3", "stride: [1, x]"), r"data.stride has .*: should be a number of frames from 1 on"),
        (GOOD + "zzz: 1", "zzz is not a key of a recipe; there are model, checkpoint, seed"),
        (GOOD.replace("lora: true", "lora: {rnk: 4}"), "lora.rnk is not a key of lora; did you mean rank?"),
        (GOOD.replace("steps: 5", "steps: many"), "train.steps is 'many': input should be a valid integer"),
        (GOOD.replace("steps: 5, ", ""), r"mine.yaml: train.steps is missing\.$"),
        (GOOD.replace("512x320", "512"), "data.size is 512: should be WIDTHxHEIGHT"),
        (GOOD.replace("fps: 3", "fps: 3, stride: 2"), "data: fps and stride both decide"),
        (GOOD.replace("svd", "svd\nseed: -1\nzzz: 2"), "seed is -1: .*; zzz is not a key"),
        (GOOD + "drop: {text: 0.6, both: 0.6}", "drop: text, image and both exclude each other"),
        (GOOD + "trackers: [wandb, mlflow]", "trackers.1 is 'mlflow': input should be"),
        (
            GOOD.replace("preset: paper", "method: time-nois"),
            "condition.method is 'time-nois': input should be 'none'",
        ),
        ("model: [svd", r"mine.yaml is not YAML \(line 1\)"),
        (GOOD.replace("steps: 5", "steps: 5, betas: [0.9, 1]"), "train.betas.1 is 1: input should be less than 1"),
        (GOOD.replace("lora: true", "lora: {alpha: 0}"), "lora.alpha is 0: input should be greater than 0"),
        (GOOD.replace("fps: 3", "fps: .inf"), "data.fps is inf: input should be a finite number"),
        (
            GOOD.replace("steps: 5", "steps: 5, batch: 1000000000000"),
            "train.batch is 1000000000000: .* than or equal to",
        ),
        (GOOD.replace("lora: true", "lora: {targets: []}"), "lora.targets is .*: list should have at least 1 item"),
        (GOOD.replace("lora: true", "lora: {targets: [5]}"), "lora.targets.0 is 5: input should be a valid string"),
        (GOOD.replace("512x320", "\u0665x\u0665"), "data.size is .*: should be WIDTHxHEIGHT"),
        (GOOD.replace("512x320", "0x0"), "data.size is 0: should be WIDTHxHEIGHT"),
        (GOOD.replace("fps: 3", "workers: 1000000"), "data.workers is 1000000"),
        ("model: &a svd\nseed: *a", r"is not YAML \(line 2\): it has an alias"),
        ("model: !!int x", "is not YAML: a value does not fit its type"),
        ("model: 2001-99-99", "is not YAML: a value does not fit its type"),
        ("model: " + "[" * 20_000, "is not YAML: it has too many brackets"),
        ("seed: 0x" + "f" * 20_000, "seed is a number of 80000 bits"),
        ("model: " + "a" * 50_000, "train is missing"),
        ("seed: " + "a" * 50_000, "model is missing; seed is 'aaa"),
        ("? " + "a" * 50_000 + "\n: 1", "aaa is not a key of a recipe"),
        ("seed: {" + ", ".join(f"k{i}: [1, 2]" for i in range(5000)) + "}", "seed is {'k0': "),
        ("\n".join(f"k{i}: 1" for i in range(5000)), "and 4994 more"),
        ("{1: 2}", "1 is 1: keys should be strings"),
        (GOOD.replace("fps: 3", "speed: [0, 2]"), "data.speed.1 is 2: input should be less than"),
        ("just words", "mine.yaml is not a recipe: it should begin with a line such as 'model: svd'"),
    ],
)
def test_mistakes_are_named(text: str, sentence: str) -> None:
    with pytest.raises(UnstillError, match=sentence) as error:
        check_recipe(text, "mine.yaml")
    assert "\n" not in str(error.value) and len(str(error.value)) < 3000


def test_a_bomb_of_anchors_takes_no_memory() -> None:
    """Nine levels of nine aliases are 387 million items, of which the message once tried to write a `repr`."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    with pytest.raises(UnstillError, match="it has an alias") as error:
        check_recipe("\n".join(lines), "bomb.yaml")
    assert len(str(error.value)) < 200


def test_a_file_of_another_kind_is_not_read_as_a_recipe(tmp_path: Path) -> None:
    big = tmp_path / "video.yaml"
    big.write_bytes(b"a: 1\n" * 30_000)
    with pytest.raises(UnstillError, match="more than 100,000 bytes"):
        read_recipe(str(big))


def test_the_released_preset_means_the_released_time() -> None:
    released = GOOD.replace("paper", "released")
    assert check_recipe(GOOD, "x").noise.time == "quantile"
    assert check_recipe(released, "x").noise.time == "released"
    assert check_recipe(released, "x", {"noise.time": "quantile"}).noise.time == "quantile"
    assert check_recipe(released, "x", {"noise.log_sigma_mean": -1.2}).noise.time == "released"


def test_a_lora_with_its_defaults_takes_a_change() -> None:
    changed = check_recipe(GOOD, "x", {"lora.rank": 4}).lora
    assert changed is not None and changed.rank == 4


def test_a_recipe_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UnstillError, match="no recipe file svd-time-nois; did you mean svd-time-noise"):
        read_recipe("svd-time-nois")
    with pytest.raises(UnstillError, match="lora cannot be set|has no keys of its own"):
        check_recipe("model: svd\nlora: 3\ntrain: {steps: 1}", "x", {"lora.rank.deep": 1})
    file = tmp_path / "mine.yaml"
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(UnstillError, match="not a text file in UTF-8"):
        read_recipe(str(file))
    file.write_text(GOOD)
    assert read_recipe(str(file)).model == "svd"


@pytest.mark.parametrize("name", shipped())
def test_the_recipes_of_this_package_are_whole(name: str) -> None:
    """Once they are told where the videos are."""
    recipe = read_recipe(name, {} if name.startswith("pico") else {"data.videos": "clips"})
    model = find(recipe.model)
    assert model is not None
    family = {"StableVideoDiffusionPipeline": "svd", "WanImageToVideoPipeline": "wan"}.get(
        model.pipeline, model.pipeline.removesuffix("Pipeline").lower()
    )
    condition = recipe.condition
    plan = plan_of(family, condition.method, condition.preset, on=condition.on, parameters=condition.parameters())
    assert (condition.method == "none") == (name == "pico-still")
    assert plan.latents is not None or plan.tokens is not None
    if condition.preset:
        assert (family, condition.preset) in PLANS
    at_once = recipe.train.batch_per_device or recipe.train.batch
    assert recipe.train.batch % at_once == 0
    settings = recipe.data.settings(model.frames, model.fps, model.size, 0)
    assert settings.frames <= model.frames
