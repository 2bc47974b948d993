"""Condition augmentations behind one call, and the presets by family."""

from typing import Any

import pytest
import torch

from tests import pipelines as tiny
from unstill.errors import UnstillError
from unstill.methods.conditioning_augmentation import ConditioningAugmentation
from unstill.methods.time_noise import TimeNoise
from unstill.training.condition_noise import KINDS, PLANS, Clean, ConstantNoise, MixedNoise, Replaced, plan_of
from unstill.training.recipe import Recipe
from unstill.training.setup import check_condition, opened


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("shape", [(3, 4, 5, 6, 6), (3, 7, 8)], ids=["latents", "tokens"])
def test_all_are_one_call(name: str, shape: tuple[int, ...]) -> None:
    condition = KINDS[name](**({} if name == "none" else {"noise_shape": "element"}))
    image, t = torch.randn(shape, generator=generator()).half(), torch.tensor([0.1, 0.5, 0.9])
    noised, level = condition.corrupt(image, t, generator(1))
    assert noised.shape == image.shape and noised.dtype == image.dtype and level.shape == (3,)
    again, _ = condition.corrupt(image, t, generator(1))
    assert torch.equal(noised, again)
    assert torch.equal(noised, image) == (name == "none")


def test_constant_noise_has_the_level_of_the_centre() -> None:
    t = torch.tensor([0.0, 0.5, 1.0])
    _, level = ConstantNoise(maximum=8.0, exponent=2.0).corrupt(torch.zeros(3, 4, 2, 5, 5), t, generator())
    assert level.tolist() == [0.0, 2.0, 8.0]
    noised, level = ConstantNoise(maximum=3.0, exponent=0.0).corrupt(torch.zeros(3, 4, 2, 32, 32), t, generator())
    assert level.tolist() == [3.0] * 3
    assert noised.std().item() == pytest.approx(3.0, rel=0.05)


def test_the_mix_keeps_a_share_of_the_image() -> None:
    image = torch.full((2, 4, 1, 64, 64), 10.0)
    noised, level = MixedNoise().corrupt(image, torch.tensor([0.2, 1.0]), generator())
    assert (level > 0).all() and (level < 1).all()
    torch.testing.assert_close(noised.mean((1, 2, 3, 4)), 10 * (1 - level), rtol=0.02, atol=0.02)
    torch.testing.assert_close(noised.std((1, 2, 3, 4)), level, rtol=0.05, atol=0.0)


def test_replaced_tokens_are_noise_or_untouched() -> None:
    tokens = torch.full((400, 3, 5), 7.0)
    noised, replaced = Replaced(probability=0.25).corrupt(tokens, 0.5, generator())
    untouched = (noised == 7).all((1, 2))
    assert torch.equal(untouched, replaced == 0)
    assert replaced.mean().item() == pytest.approx(0.25, abs=0.07)
    assert noised[~untouched].std().item() == pytest.approx(1.0, rel=0.1)


def test_presets_are_the_papers_and_the_released_ones() -> None:
    svd = plan_of("svd", preset="released")
    assert svd.latents == TimeNoise(maximum=15.0, noise_shape="clip") and svd.condition_on_level and svd.tokens is None
    released = plan_of("dynamicrafter", preset="released")
    assert released.latents == TimeNoise(noise_shape="element") and released.tokens == Replaced(probability=0.95)
    paper = plan_of("videocrafter", preset="paper")
    assert paper.latents is None and paper.tokens == TimeNoise(maximum=25.0, noise_shape="element")
    assert plan_of("videocrafter", preset="released").tokens == TimeNoise(scale=4.0, noise_shape="element")
    assert {name for _, name in PLANS} == {"paper", "released"}


def test_a_method_with_parameters() -> None:
    plan = plan_of("dynamicrafter", parameters={"maximum": 2.0}, on="both", condition_on_level=True)
    assert plan.latents == TimeNoise(maximum=2.0) and plan.tokens == TimeNoise(maximum=2.0, noise_shape="element")
    assert plan.condition_on_level
    assert plan_of("svd", "none").latents == Clean()
    assert plan_of("svd", "conditioning-augmentation", on="tokens").tokens == ConditioningAugmentation(
        noise_shape="element"
    )


def test_noise_that_an_empty_frame_would_give_away_is_refused() -> None:
    """Wan's condition has empty frames beside the image: the same noise in all of them could be subtracted."""
    latents = plan_of("wan", parameters={"maximum": 1.0}).latents
    assert latents == TimeNoise(maximum=1.0, noise_shape="element")
    for shape in ("frame", "clip"):
        with pytest.raises(UnstillError, match="leave noise_shape out, or make it element"):
            plan_of("wan", "constant", parameters={"noise_shape": shape})


def test_what_cannot_be_is_said() -> None:
    with pytest.raises(UnstillError, match="no parameter maximun; it has maximum, exponent, scale, noise_shape"):
        plan_of("svd", parameters={"maximun": 3})
    with pytest.raises(UnstillError, match="no preset 'best' for svd models; there are paper, released"):
        plan_of("svd", preset="best")
    with pytest.raises(UnstillError, match="give maximum and exponent"):
        plan_of("wan", preset="paper")
    with pytest.raises(UnstillError, match="stands alone, but there is maximum too; leave out"):
        plan_of("svd", preset="paper", parameters={"maximum": 3})


@pytest.mark.parametrize(
    ("model", "condition", "sentence"),
    [
        ("videocrafter-512", {"on": "latents"}, "videocrafter models see no latents of the image, .* give on: tokens"),
        ("cogvideox-5b-i2v", {"on": "both"}, "cogvideox models see no tokens of the image, .* give on: latents"),
        ("ltx-video", {"on": "tokens"}, "ltx models see no tokens"),
        ("ltx-video", {"preset": "paper"}, "no preset 'paper' for ltx models; give maximum and exponent instead"),
        ("hunyuanvideo-1.5-i2v", {"on": "both"}, None),
        ("videocrafter-512", {"on": "tokens"}, None),
        ("videocrafter-512", {"method": "none"}, None),
    ],
)
def test_noise_on_what_a_network_does_not_see(model: str, condition: dict[str, Any], sentence: str | None) -> None:
    recipe = Recipe.model_validate({"model": model, "condition": condition, "train": {"steps": 1}})
    if sentence is None:
        check_condition(recipe)
        return
    with pytest.raises(UnstillError, match=sentence):
        check_condition(recipe)


def test_a_network_without_image_latents_has_its_noise_on_the_tokens_by_default() -> None:
    plan = plan_of("videocrafter", usual_input="tokens")
    assert plan.latents is None and isinstance(plan.tokens, TimeNoise)
    check_condition(Recipe.model_validate({"model": "videocrafter-512", "train": {"steps": 1}}))


def test_tokens_of_a_wan_that_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unstill.models.registry.load", lambda *_, **__: tiny.wan(experts=2, boundary_ratio=0.875))
    settings = {"model": "wan2.2-i2v-a14b", "data": {"videos": "world"}, "condition": {"on": "both"}}
    with pytest.raises(UnstillError, match="wan models see no tokens of the image"):
        opened(Recipe.model_validate({**settings, "train": {"steps": 1}}))
