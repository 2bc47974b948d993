"""The file that a LoRA run leaves: read by diffusers, by peft and by `load_lora`, it is the merged model."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model, set_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.training.conftest import empty_pipeline, silent, start
from tests.training.test_families import PIPELINES, _of_the_pipeline, sample
from unstill.data.sources import SourceSettings, open_source
from unstill.errors import UnstillError
from unstill.families.registry import training_for
from unstill.training import results, trainer
from unstill.training.lora import METADATA, load_lora
from unstill.training.recipe import Recipe


RANK, ALPHA = 4, 16.0


def fresh(name: str) -> Any:
    """A tiny pipeline, the same at every call."""
    torch.manual_seed(0)
    pipe = PIPELINES[name][0]()
    pipe.set_progress_bar_config(disable=True)
    with torch.no_grad():
        for parameter in getattr(pipe, training_for(pipe).denoiser).parameters():  # some layers begin at zero
            parameter.add_(0.05 * torch.randn(parameter.shape))
    return pipe


@pytest.fixture(scope="module", params=[name for name in PIPELINES if " " not in name])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Any, Path]:
    """(family, merged pipeline, lora.safetensors) after two steps."""
    name, (_, size, frames), out = request.param, PIPELINES[request.param], tmp_path_factory.mktemp("run")
    pipe = fresh(name)
    settings = SourceSettings(kind="world", frames=frames, size=(size, size), clips=4)
    recipe = Recipe.model_validate(
        {
            "model": name,
            "data": {"workers": 0},
            "condition": {"maximum": 1.0},
            "lora": {"rank": RANK, "alpha": ALPHA},
            "train": {"steps": 2, "batch": 2, "learning_rate": 1e-2, "ema": None},
        }
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "opened", lambda recipe: (pipe, training_for(pipe), open_source(settings)))
        patch.setattr(pipe, "save_pretrained", empty_pipeline)
        patch.setattr(results, "_copy_statistics", lambda *_: None)
        trainer.train(recipe, out / "run", silent)
    getattr(pipe, training_for(pipe).denoiser).eval()
    return name, pipe, out / "run" / "lora.safetensors"


def answer(name: str, pipe: Any) -> torch.Tensor:
    """What the denoiser answers at the first step of a call of the pipeline."""
    family = training_for(pipe)
    network = getattr(pipe, family.denoiser).eval()
    _, size, frames = PIPELINES[name]
    call = _of_the_pipeline(pipe, family, sample(size, frames))
    with torch.no_grad():
        return network(**{**call, "return_dict": False})[0]


def with_peft(pipe: Any, path: Path) -> None:
    with safe_open(path, "pt") as file:
        config = json.loads(file.metadata()[METADATA])
    component = training_for(pipe).denoiser
    own = {key.removeprefix(f"{component}."): value for key, value in load_file(path).items()}
    model = getattr(pipe, component)
    inject_adapter_in_model(LoraConfig(**{k.removeprefix(f"{component}."): v for k, v in config.items()}), model)
    assert not set_peft_model_state_dict(model, own).unexpected_keys


def with_diffusers(pipe: Any, path: Path) -> None:
    component = training_for(pipe).denoiser
    network = getattr(pipe, component)
    if hasattr(pipe, "load_lora_weights"):
        pipe.load_lora_weights(path.parent, weight_name=path.name)
    elif hasattr(network, "load_lora_adapter"):
        network.load_lora_adapter(path.parent, prefix=component, weight_name=path.name)
    else:  # diffusers has no loader for these
        assert training_for(pipe).name in ("svd", "pico")
        load_lora(pipe, path)


def without_header(pipe: Any, path: Path) -> None:
    """As programs do that know no alpha: B A is added as it is."""
    model = getattr(pipe, training_for(pipe).denoiser)
    weights, prefix = load_file(path), f"{training_for(pipe).denoiser}."
    with torch.no_grad():
        for key, down in weights.items():
            if ".lora_A." in key:
                layer = model.get_submodule(key.removeprefix(prefix).partition(".lora_A")[0])
                layer.weight += weights[key.replace(".lora_A.", ".lora_B.")] @ down


@pytest.mark.parametrize("load", [load_lora, with_diffusers, with_peft, without_header])
def test_a_fresh_pipeline_with_the_file_is_the_merged_one(
    trained: tuple[str, Any, Path], load: Callable[..., None]
) -> None:
    name, merged, path = trained
    pipe = fresh(name)
    plain, expected = answer(name, pipe), answer(name, merged)
    scale = (expected - plain).abs().max()
    assert scale > 1e-3  # a quarter of the strength would be seen
    load(pipe, path)
    assert (answer(name, pipe) - expected).abs().max() < 2e-3 * scale


def test_a_weight_of_0_leaves_the_model_and_one_half_is_between(trained: tuple[str, Any, Path]) -> None:
    name, _, path = trained
    found = []
    for weight in (0.0, 0.5, 1.0):
        pipe = fresh(name)
        load_lora(pipe, path, weight)
        found.append(answer(name, pipe))
    whole = (found[2] - found[0]).abs().max()
    # Loaded weights lie at other addresses, so that the last bits of products differ between two pipelines.
    assert (found[0] - answer(name, fresh(name))).abs().max() < 1e-4 * whole
    assert (found[1] - found[0]).abs().max() < whole


@pytest.mark.parametrize("trained", ["pico"], indirect=True)
def test_files_that_are_no_lora_of_the_model(trained: tuple[str, Any, Path], tmp_path: Path) -> None:
    path = trained[2]
    (tmp_path / "text.safetensors").write_text("no weights")
    save_file({"a": torch.zeros(2)}, tmp_path / "other.safetensors")
    save_file(load_file(path), tmp_path / "bare.safetensors")
    for file, says in (
        (tmp_path / "missing.safetensors", "cannot be read"),
        (tmp_path / "text.safetensors", "cannot be read"),
        (tmp_path / "other.safetensors", "holds no LoRA"),
        (tmp_path / "bare.safetensors", METADATA),
    ):
        with pytest.raises(UnstillError, match=says):
            load_lora(fresh("pico"), file)
    pipe = fresh("svd")
    before = pipe.unet.state_dict().keys()
    with pytest.raises(UnstillError, match="was not trained on a StableVideoDiffusionPipeline"):
        load_lora(pipe, path)
    assert pipe.unet.state_dict().keys() == before


def test_a_run_is_decided_by_its_recipe(make: Callable[..., Recipe], tmp_path: Path) -> None:
    recipe = make(lora={"rank": 2}, train__steps=3, save__every=100)
    (other_process,) = start(recipe, tmp_path / "process")
    torch.manual_seed(1)
    trainer.train(recipe, tmp_path / "first", silent)
    torch.manual_seed(2)

    class Stopped(Exception):
        pass

    def stop(stage: str, done: int, *_: Any) -> None:
        if stage == "training" and done == 2:
            raise Stopped

    with pytest.raises(Stopped):  # before the first checkpoint
        trainer.train(recipe, tmp_path / "resumed", stop)
    trainer.train(recipe, tmp_path / "resumed", silent)
    other_process.join()
    curves = [(tmp_path / name / "loss.csv").read_bytes() for name in ("first", "resumed", "process")]
    assert curves[0] == curves[1] == curves[2]
    weights = [load_file(tmp_path / name / "lora.safetensors") for name in ("first", "resumed", "process")]
    assert all(torch.equal(weights[0][key], other[key]) for other in weights[1:] for key in weights[0])
    reseeded = make(lora={"rank": 2}, train__steps=3, save__every=100, seed=1)
    trainer.train(reseeded, tmp_path / "reseeded", silent)
    assert (tmp_path / "reseeded" / "loss.csv").read_bytes() != curves[0]
