"""The whole trainer on tiny networks of the large families: LoRA, checkpointing, accumulation, half precision."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.training.conftest import empty_pipeline, silent
from tests.training.test_families import PIPELINES
from unstill.data.sources import SourceSettings, open_source
from unstill.families.registry import training_for
from unstill.training import results, trainer
from unstill.training.recipe import Recipe


LARGE = ("svd", "dynamicrafter", "wan", "wan-5b", "cogvideox", "ltx", "hunyuanvideo-1.5")


@pytest.fixture(params=LARGE)
def run(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Trains a tiny network for two steps; gives the losses, and what of its weights changed."""
    factory, size, frames = PIPELINES[request.param]

    def trained(
        name: str, condition: dict[str, Any] | None = None, dropout: bool = True, **changes: Any
    ) -> tuple[list[float], set[str]]:
        torch.manual_seed(0)
        pipe = factory()
        family = training_for(pipe)
        network = getattr(pipe, family.denoiser)
        with torch.no_grad():  # some layers begin at zero, and hide what lies before them
            for parameter in network.parameters():
                parameter.add_(0.05 * torch.randn(parameter.shape))
        for layer in network.modules():
            if isinstance(layer, torch.nn.Dropout) and not dropout:
                layer.p = 0.0
        before = {key: value.clone() for key, value in network.state_dict().items()}
        settings = SourceSettings(kind="world", frames=frames, size=(size, size), clips=4)
        monkeypatch.setattr(trainer, "opened", lambda recipe: (pipe, family, open_source(settings)))
        monkeypatch.setattr(pipe, "save_pretrained", empty_pipeline)
        monkeypatch.setattr(results, "_copy_statistics", lambda *_: None)
        lora = changes.pop("lora", None)
        recipe = Recipe.model_validate(
            {
                "model": request.param,
                "data": {"workers": 0, "cache_folder": str(tmp_path / "cache")},
                "condition": condition or {"maximum": 1.0},
                "lora": lora,
                "train": {"steps": 2, "batch": 4, "learning_rate": 1e-2, "ema": None, **changes},
            }
        )
        result = trainer.train(recipe, tmp_path / name, silent)
        assert result is not None
        after = network.state_dict()
        assert after.keys() == before.keys()
        changed = {key for key, value in after.items() if not torch.equal(value.float(), before[key].float())}
        return result.losses, changed

    return trained


def test_checkpointing_changes_nothing_but_memory(run: Callable[..., Any]) -> None:
    plain, changed = run("plain")
    losses, moved = run("checkpointed", gradient_checkpointing=True)
    torch.testing.assert_close(losses, plain, rtol=1e-4, atol=0)
    assert moved == changed and len(changed) > 10


@pytest.mark.parametrize("run", ["dynamicrafter", "wan"], indirect=True)
def test_accumulation_changes_nothing_but_dropout(run: Callable[..., Any]) -> None:
    whole, _ = run("whole", dropout=False)
    losses, _ = run("accumulated", dropout=False, batch_per_device=1)
    torch.testing.assert_close(losses, whole, rtol=1e-4, atol=0)


def test_a_lora_changes_the_layers_it_stands_beside_alone(run: Callable[..., Any], tmp_path: Path) -> None:
    _, changed = run("lora", lora=True, gradient_checkpointing=True, batch_per_device=2, mixed_precision="bf16")
    keys = load_file(tmp_path / "lora" / "lora.safetensors")
    added = {key.partition(".")[2].partition(".lora_")[0] for key in keys}  # without the component
    moved = {key.removesuffix(".weight") for key in changed}
    # In bf16 the rest is rounded where the whole pipeline is cast; a LoRA's own layers are among those that moved.
    assert added and added <= moved


@pytest.mark.parametrize("run", ["wan"], indirect=True)
def test_every_baseline(run: Callable[..., Any]) -> None:
    losses = [run(m, {"method": m})[0][0] for m in ("none", "conditioning-augmentation", "constant", "mix")]
    assert len(set(losses)) == 4
