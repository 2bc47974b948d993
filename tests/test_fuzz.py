"""
Hostile input to the command line: recipes, settings, methods, statistics, model folders, checkpoints, pictures,
manifests and cells. Whatever they hold, the command ends with 0 or 2, says one sentence if 2, prints no traceback, and
changes no file that it was given.

The examples of the suite are fixed and few. A longer search with others: UNSTILL_FUZZ=20 pytest tests/test_fuzz.py,
which makes 20 times as many at random.
"""

import dataclasses
import io
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner

from tests.pipelines import pico
from unstill.cli import app
from unstill.latent_statistics import LatentStatistics
from unstill.methods.registry import method_classes
from unstill.statistics_file import KEY
from unstill.training.pico_recipe import PicoRecipe
from unstill.training.recipe import Recipe, shipped, yaml_of


TIMES = int(os.environ.get("UNSTILL_FUZZ", "0"))
CALLS = {"0": 0, "2": 0}


def few(count: int) -> Callable[[Any], Any]:
    """So many examples: the same ones in every run of the suite."""
    return settings(
        max_examples=count * (TIMES or 1),
        derandomize=not TIMES,
        phases=[Phase.generate],  # a failing example is small as it is
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder: a tiny model, a picture, statistics, a checkpoint and a finished comparison."""
    folder = tmp_path_factory.mktemp("home")
    torch.manual_seed(0)
    pico().save_pretrained(folder / "model")
    Image.radial_gradient("L").resize((24, 20)).convert("RGB").save(folder / "photo.png")
    LatentStatistics().update(torch.randn(3, 4, 2, 16, 16)).save(folder / "statistics.safetensors")
    torch.save({"model.diffusion_model.init_attn.0.weight": torch.ones(2)}, folder / "model.ckpt")
    compared = run(folder, *COMPARE, "--out", folder / "compared", out="compared")
    assert compared == 0
    return folder


COMPARE = ("compare", "--model", "model", "--method", "early-start:sigma=9", "--count", 1, "--steps", 1, "--frames", 2)


def content(folder: Path, out: str) -> dict[Path, bytes]:
    return {
        file: file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file() and not file.relative_to(folder).parts[0].startswith(out)
    }


def run(folder: Path, *words: object, out: str = "out") -> int:
    """The exit code of the command in `folder`; only what begins with `out` may change there."""
    before, here = content(folder, out), Path.cwd()
    os.chdir(folder)
    try:
        result = CliRunner().invoke(app, [str(word) for word in words])
    finally:
        os.chdir(here)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    said = result.stderr
    assert result.exit_code in (0, 2), (result.exit_code, said)
    assert "Traceback" not in said + result.stdout
    if result.exit_code == 2:
        assert said.count("\n") == 1 and re.search(r"[.?)\]]\n$", said) and 5 < len(said) < 5000, said
    assert content(folder, out) == before
    CALLS[str(result.exit_code)] += 1
    return int(result.exit_code)


# ---- what inputs are made of ----------------------------------------------------------------------------------------

NUMBERS = ("nan", "inf", "-inf", "1e300", "-1", "0", "1e9", "1e-320", "0.5", "2", "\u0665", "1_0", "0x10", "9" * 5000)
words = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=12)
values = st.sampled_from((*NUMBERS, "true", "none", "", "0:0.5", "1:nan", ":", "a|b")) | words
# As JSON or YAML can hold them.
hostile = st.sampled_from(
    [None, True, [], {}, "", "x", -1, 0, 1.5, 10**40, 1e308, -1e308, float("nan"), float("inf"), "x" * 5000, [[[[]]]]]
    + ["\ud800", "\u0665x\u0665", "*a", "../../x", {"a": {"b": []}}, [1, "a"], 10**12, 63]
) | st.recursive(st.none() | words | st.floats() | st.integers(), lambda x: st.lists(x) | st.dictionaries(words, x))


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """Bytes with some changed, left out or put in."""
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(0, len(data) - 1)))
        kind = draw(st.sampled_from(("flip", "cut", "drop", "insert", "repeat")))
        some = draw(st.binary(min_size=1, max_size=8))
        data = {
            "flip": data[:place] + some + data[place + len(some) :],
            "cut": data[:place],
            "drop": data[:place] + data[place + len(some) :],
            "insert": data[:place] + some + data[place:],
            "repeat": data[:place] + data[place : place + 40] * 20 + data[place:],
        }[kind]
    return data


@st.composite
def changed(draw: st.DrawFn, document: Any) -> Any:
    """A JSON document in which one value is another one."""
    document = json.loads(json.dumps(document))
    parent, key, inner = None, None, document
    while isinstance(inner, dict | list) and inner and (parent is None or draw(st.booleans())):
        parent = inner
        key = draw(st.sampled_from(sorted(inner) if isinstance(inner, dict) else range(len(inner))))
        inner = inner[key]
    if parent is None or draw(st.integers(0, 9)) == 0:
        return draw(hostile)
    if isinstance(parent, dict) and draw(st.integers(0, 5)) == 0:
        del parent[key]
    else:
        parent[key] = draw(hostile)
    return document


@st.composite
def methods(draw: st.DrawFn) -> str:
    name = draw(st.sampled_from(sorted(method_classes())) | words)
    cls: Any = method_classes().get(name)
    known = [*(field.name for field in dataclasses.fields(cls)), *cls.presets] if cls else ["start"]
    keys = draw(st.lists(st.sampled_from(known) | words, max_size=3))
    settings = ",".join(draw(st.sampled_from((f"{key}={draw(values)}", key))) for key in keys)
    return draw(st.sampled_from((f"{name}:{settings}", f"{name}{settings}", name)))


ANIMATE = ("--steps", 1, "--frames", 2, "--out", "out.mp4", "--seed", 1)


# ---- the inputs -----------------------------------------------------------------------------------------------------

keys = [
    *(name for name in Recipe.model_fields if name not in ("train",)),
    *(f"{part}.{key}" for part in ("data", "condition", "noise", "drop", "train", "save", "lora", "validate")
      for key in ("size", "frames", "clips", "workers", "stride", "preset", "targets", "rank", "batch", "steps",
                  "betas", "ema", "every", "videos", "maximum", "log_sigma_std", "text", "x")),
]  # fmt: skip


@few(40)
@given(st.data())
def test_recipes(home: Path, data: st.DataObject) -> None:
    import yaml

    text = yaml_of(data.draw(st.sampled_from(shipped())))
    if data.draw(st.booleans()):
        made = yaml.safe_dump(data.draw(changed(yaml.safe_load(text))), allow_unicode=True).encode(errors="replace")
    else:
        made = data.draw(damaged(text.encode()))
    (home / "recipe.yaml").write_bytes(made)
    run(home, "train", "recipe.yaml", "--settings")


@few(40)
@given(st.sampled_from(keys) | words, values | hostile.map(lambda x: json.dumps(x)[:2000]), st.booleans())
def test_single_keys(home: Path, key: str, value: str, twice: bool) -> None:
    options = ["--set", f"{key}={value}"] * (1 + twice)
    run(home, "train", shipped()[0], "--settings", *options)


@few(30)
@given(st.sampled_from([field.name for field in dataclasses.fields(PicoRecipe)]) | words, values)
def test_settings_of_pico(home: Path, key: str, value: str) -> None:
    run(home, "train", f"pico:{key}={value}", "--settings")


@few(25)
@given(methods())
def test_methods(home: Path, method: str) -> None:
    run(home, "animate", "photo.png", "--model", "model", *ANIMATE, "--method", method)


@few(20)
@given(words | st.sampled_from(("\u0665x\u0665", "0x0", "99999x99999", "64x64", "64X64", "1e3x5", "-1x5", "\u00b2x2")))
def test_sizes(home: Path, size: str) -> None:
    run(home, "animate", "photo.png", "--model", "model", *ANIMATE, f"--size={size}")


@few(25)
@given(st.data())
def test_statistics(home: Path, data: st.DataObject) -> None:
    file = home / "hostile.safetensors"
    if data.draw(st.booleans()):
        file.write_bytes(data.draw(damaged((home / "statistics.safetensors").read_bytes())))
    else:
        text = data.draw(changed({"version": 1, "count": 3, "meta": {"model": "x"}}))
        shape = data.draw(st.sampled_from([(4, 2, 16, 16), (4, 2, 16, 15), (4, 2, 16), (0, 2, 16, 16), (1,), ()]))
        mean, m2 = torch.zeros(4, 2, 16, 16, dtype=torch.float64), torch.ones(shape, dtype=torch.float64)
        number = data.draw(st.sampled_from([0.0, float("nan"), float("inf"), -1.0, 1e308]))
        data.draw(st.sampled_from([mean, m2])).view(-1)[:1] = number
        said = text if isinstance(text, str) else json.dumps(text)
        save_file({"mean": mean, "m2": m2}, file, {KEY: said.encode(errors="replace").decode()})
    method = "analytic_init:sigma=9,resize=true,statistics=hostile.safetensors"
    run(home, "animate", "photo.png", "--model", "model", *ANIMATE, "--method", method)


@few(20)
@given(st.data())
def test_model_folders(home: Path, data: st.DataObject) -> None:
    shutil.rmtree(home / "other", ignore_errors=True)
    shutil.copytree(home / "model", home / "other")
    files = [file for file in sorted((home / "other").rglob("*.json"))]
    file = data.draw(st.sampled_from([home / "other" / "model_index.json", *files]))
    if data.draw(st.booleans()):
        file.write_text(json.dumps(data.draw(changed(json.loads(file.read_text())))))
    else:
        file.write_bytes(data.draw(damaged(file.read_bytes())))
    run(home, "animate", "photo.png", "--model", "other", *ANIMATE)


@few(25)
@given(st.data())
def test_checkpoints(home: Path, data: st.DataObject) -> None:
    if data.draw(st.booleans()):
        (home / "other.ckpt").write_bytes(data.draw(damaged((home / "model.ckpt").read_bytes())))
    else:
        names = [
            "scale_arr",
            "model.diffusion_model.init_attn.0.weight",
            "model.diffusion_model.input_blocks.0.0.weight",
        ]
        names += ["attn_temp.weight", "cond_stage_model.model.x", "state_dict", "shadow_params", 1]
        shapes = st.sampled_from([(), (0,), (3,), (2, 2), (8, 4, 3, 3)])
        tensors = shapes.map(lambda shape: torch.full(shape, 0.7)) | st.sampled_from([None, 1, "x", [], {}, [1]])
        torch.save(data.draw(st.dictionaries(st.sampled_from(names), tensors) | tensors), home / "other.ckpt")
    run(home, "convert", "other.ckpt", "out_converted")


@few(25)
@given(st.data())
def test_pictures(home: Path, data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "PPM")))
    mode = data.draw(st.sampled_from(("RGB", "L") if kind in ("JPEG", "PPM", "WEBP") else ("RGB", "L", "1", "P")))
    size = data.draw(st.sampled_from([(1, 1), (2, 90), (24, 20)]))
    file = io.BytesIO()
    Image.radial_gradient("L").resize(size).convert(mode).save(file, kind)
    (home / f"other.{kind.lower()}").write_bytes(data.draw(damaged(file.getvalue())))
    run(home, "animate", f"other.{kind.lower()}", "--model", "model", *ANIMATE)


@few(6)
@given(st.data())
def test_manifests_and_cells(home: Path, data: st.DataObject) -> None:
    shutil.rmtree(home / "out_compared", ignore_errors=True)
    shutil.copytree(home / "compared", home / "out_compared")
    cells = sorted((home / "out_compared" / "done").glob("*.json"))
    file = data.draw(st.sampled_from([home / "out_compared" / "manifest.json", *cells]))
    if data.draw(st.booleans()):
        file.write_text(json.dumps(data.draw(changed(json.loads(file.read_text())))))
    else:
        file.write_bytes(data.draw(damaged(file.read_bytes())))
    run(home, *COMPARE, "--out", "out_compared")
    for table in (home / "out_compared").glob("*.csv"):
        assert not re.search(r"\b(nan|inf|1e\+308)\b", table.read_text())


def test_what_was_called() -> None:
    """The calls of this run: both ends occur."""
    print(f"\n{sum(CALLS.values())} calls: {CALLS['0']} with exit code 0, {CALLS['2']} with 2")
    assert not TIMES or all(CALLS.values())
