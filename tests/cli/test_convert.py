"""`unstill convert`: files in, folders or one sentence out."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import unstill.models.convert as convert_module
from tests.models.released import tiny_checkpoint, tiny_release, tokenizer_folder
from unstill.models.registry import find, load, pipeline_name


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("released")
    torch.save({"state_dict": tiny_checkpoint()}, folder / "model.ckpt")
    tokenizer_folder(folder / "tokenizer")
    return folder


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(convert_module.RELEASES, "dynamicrafter-512", tiny_release())


def test_a_released_file_becomes_a_folder_that_loads(unstill: Any, released: Path, tmp_path: Path) -> None:
    words = ("convert", released / "model.ckpt", tmp_path / "out", "--base", released / "tokenizer", "--json")
    result = unstill(*words, "--dtype", "float16")
    assert result.exit_code == 0, result.output
    made = json.loads(result.stdout)
    assert made["pipeline"] == "DynamiCrafterPipeline"
    pipe = load(made["out"], device="cpu", dtype=torch.float16)
    assert pipe.unet.dtype == torch.float16 and pipe.tokenizer is not None
    key = "model.diffusion_model.out.2.weight"
    assert torch.equal(pipe.unet.out[2].weight, tiny_checkpoint()[key].half())
    result = unstill(*words)
    assert result.exit_code == 2 and "exists already" in result.stderr


def test_a_folder_called_like_a_model_is_named_as_a_folder(
    unstill: Any, released: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = unstill("convert", released / "model.ckpt", "dynamicrafter-512", "--base", released / "tokenizer").stdout
    named = said.split("--model ")[1].strip()
    assert named == "./dynamicrafter-512" and pipeline_name(named) == "DynamiCrafterPipeline" and find(named) is None


@pytest.mark.parametrize(
    ("content", "options", "says"),
    [
        (b"<html>", (), "is a text file"),
        (None, ("--model", "videocrafter-512"), "it looks like DynamiCrafter 512"),
        (None, ("--model", "dynamicrafter-1024"), "it looks like DynamiCrafter 512"),
        (None, ("--model", "no-such-model"), "There is no model 'no-such-model'"),
    ],
)
def test_what_does_not_fit_is_one_sentence(
    unstill: Any, released: Path, tmp_path: Path, content: bytes | None, options: tuple[str, ...], says: str
) -> None:
    file = released / "model.ckpt"
    if content is not None:
        file = tmp_path / "model.ckpt"
        file.write_bytes(content)
    result = unstill("convert", file, tmp_path / "out", "--base", released / "tokenizer", *options)
    assert result.exit_code == 2 and says in result.stderr and result.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()
