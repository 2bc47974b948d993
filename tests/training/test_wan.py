"""Wan 2.2: which of two transformers is trained, and on which levels; the model whose image is the first frame."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests import pipelines as tiny
from tests.training.conftest import empty_pipeline, silent
from tests.training.test_families import PIPELINES, sample
from unstill.data.sources import SourceSettings, generator_for, open_source
from unstill.errors import UnstillError
from unstill.families.registry import training_for
from unstill.training import results, trainer
from unstill.training.encoded_dataset import Encoder
from unstill.training.recipe import Noise, Recipe
from unstill.training.setup import schedule_for


SHAPE = torch.Size((16, 3, 2, 2))


@pytest.mark.parametrize("logit_std", [0.0, 1.0])
def test_the_transformer_for_high_noise_is_trained_on_its_levels(logit_std: float) -> None:
    """Their share of the distribution; the time of TimeNoise stays that among the levels of both."""
    noise, u = Noise(logit_std=logit_std), (torch.arange(1000) + 0.5) / 1000
    pipe = PIPELINES["wan a14b"][0]()
    family = training_for(pipe)
    levels = schedule_for(pipe, family, SHAPE, noise).at(u)
    assert family.denoiser == "transformer"
    assert 0.875 <= levels.sigma.min() < 0.8755 and levels.sigma.max() > 0.99
    one = PIPELINES["wan"][0]()
    whole = schedule_for(one, training_for(one), SHAPE, noise).at(u)
    assert whole.sigma.min() < 0.15
    share = (whole.sigma >= 0.875).float().mean()
    assert 1 - levels.time.min().item() == pytest.approx(share.item(), abs=2e-3)
    expected = torch.tensor([0.875 + 0.125 * i / 10 for i in range(1, 10)])
    above = whole.sigma[whole.sigma >= 0.875]
    ours, theirs = ((x[:, None] < expected).float().mean(0) for x in (levels.sigma, above))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=5e-3)


def test_the_other_transformer_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    pipe = PIPELINES["wan a14b"][0]()
    family = training_for(pipe)
    before = {k: v.clone() for k, v in pipe.transformer_2.state_dict().items()}
    first = {k: v.clone() for k, v in pipe.transformer.state_dict().items()}
    source = open_source(SourceSettings(kind="world", frames=5, size=(16, 16), clips=2))
    monkeypatch.setattr(trainer, "opened", lambda recipe: (pipe, family, source))
    monkeypatch.setattr(pipe, "save_pretrained", empty_pipeline)
    monkeypatch.setattr(results, "_copy_statistics", lambda *_: None)
    recipe = Recipe.model_validate(
        {
            "model": "wan",
            "data": {"workers": 0},
            "condition": {"maximum": 1.0},
            "train": {"steps": 1, "batch": 2, "ema": None},
        }
    )
    trainer.train(recipe, tmp_path / "run", silent)
    assert all(torch.equal(v, before[k]) for k, v in pipe.transformer_2.state_dict().items())
    assert not all(torch.equal(v, first[k]) for k, v in pipe.transformer.state_dict().items())


def test_the_other_transformer_does_not_count_for_encoded_clips() -> None:
    """Its billions of weights are not read for the name of the cache."""
    found = []
    for value in (0.0, 1.0):
        torch.manual_seed(0)
        pipe = PIPELINES["wan a14b"][0]()
        torch.nn.init.constant_(pipe.transformer_2.patch_embedding.weight, value)
        found.append(Encoder(pipe, training_for(pipe)).fingerprint)
    assert found[0] == found[1]


def test_a_pipeline_without_the_transformer_for_high_noise() -> None:
    pipe = tiny.wan(experts=2, boundary_ratio=0.875)
    pipe.register_modules(transformer=None)
    with pytest.raises(UnstillError, match="without the transformer for high noise"):
        training_for(pipe)


def test_clips_of_one_frame_hold_nothing_but_the_image() -> None:
    pipe = PIPELINES["wan-5b"][0]()
    with pytest.raises(UnstillError, match="the first frame is the image; give 5 or more"):
        training_for(pipe).check_clip(pipe, 1, (16, 16))


def test_an_odd_number_of_latent_frames_of_cogvideox_1_5() -> None:
    """The first one is doubled, as in its own training; an even number stays, and so does 1.0."""
    for name, frames, expected in (("cogvideox 1.5", 9, 4), ("cogvideox 1.5", 13, 4), ("cogvideox", 9, 3)):
        pipe: Any = PIPELINES[name][0]()
        latents = Encoder(pipe, training_for(pipe))(sample(16, frames), generator_for(0))["latents"]
        assert latents.shape[1] == expected
        assert torch.equal(latents[:, 0], latents[:, 1]) == (frames == 9 and name == "cogvideox 1.5")


def test_positions_of_cogvideox_1_5_end_somewhere() -> None:
    pipe = PIPELINES["cogvideox 1.5"][0]()
    with pytest.raises(UnstillError, match="has positions for at most 16x16; give less"):
        training_for(pipe).check_clip(pipe, 9, (16, 32))
