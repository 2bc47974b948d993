"""TimeNoise against the released sampling code, its closed form, and the released training steps."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from unstill.errors import UnstillError
from unstill.methods.time_noise import TimeNoise, center, corrupt, sample_level


GOLDEN = Path(__file__).parents[1] / "golden" / "methods" / "time_noise.safetensors"


@pytest.fixture(scope="module")
def golden():
    return load_file(GOLDEN)


def test_levels_are_the_released_ones(golden):
    level = sample_level(golden["exact.t"] / 1000, 100, 5, golden["exact.normal"])
    torch.testing.assert_close(level, golden["exact.beta_s_bm100_a5"])
    level = sample_level(golden["dc.t"] / 1000, 100, 5, golden["dc.normal_for_beta"])
    torch.testing.assert_close(level, golden["dc.beta_s"])
    level = sample_level(golden["svd.sigma"] / 700, 15, 5, golden["svd.normal_for_beta"])
    torch.testing.assert_close(level, golden["svd.beta_s"])


def test_quantiles_have_the_closed_form_of_a_logit_normal(golden):
    normal = torch.special.ndtri(golden["quantiles.levels"])
    for (maximum, exponent, t), closed, empirical in zip(
        golden["quantiles.settings"].tolist(),
        golden["quantiles.closed_form"],
        golden["quantiles.empirical"],
        strict=True,
    ):
        level = sample_level(t, maximum, exponent, normal)
        torch.testing.assert_close(level, closed)
        torch.testing.assert_close(level, empirical, rtol=0.02, atol=0)


def test_the_centre_runs_from_minus_one_to_one():
    assert center(0.0, 5) == -1 and center(1.0, 5) == 1
    assert center(0.5, 1, scale=4.0) == 0
    torch.testing.assert_close(center(torch.tensor([0.2, 0.9]), 5), 2 * torch.tensor([0.2, 0.9]) ** 5 - 1)
    assert sample_level(0.5, 8.0, 1.0, 0.0).item() == 4.0


@pytest.mark.parametrize(
    ("shape", "size"), [("element", (2, 4, 6, 8, 8)), ("frame", (2, 4, 1, 8, 8)), ("clip", (2, 1, 1, 1, 1))]
)
def test_corrupt_adds_noise_of_the_drawn_level(shape, size):
    latents = torch.randn(2, 4, 6, 8, 8, generator=torch.Generator().manual_seed(0))
    method = TimeNoise(maximum=3.0, noise_shape=shape)
    noised, level = method.corrupt(latents, 0.7, torch.Generator().manual_seed(1))

    generator = torch.Generator().manual_seed(1)
    normal, noise = torch.randn(2, generator=generator), torch.randn(size, generator=generator)
    expected = 3 * torch.sigmoid(2 * torch.tensor(0.7) ** 5 - 1 + normal)
    torch.testing.assert_close(level, expected)
    torch.testing.assert_close(noised, latents + expected.view(2, 1, 1, 1, 1) * noise)


def test_the_released_presets_noise_like_the_released_training(golden):
    # DynamiCrafter repeats the image over frames and noises each alone; SVD shifts a clip by one number.
    clean = golden["dc.cond_latent_clean"].expand_as(golden["dc.cond_noise"])
    noised = corrupt(clean, golden["dc.beta_s"], golden["dc.cond_noise"])
    torch.testing.assert_close(noised, golden["dc.noised"])
    assert TimeNoise.preset("released").noise_shape == "element"
    clean = golden["svd.cond_latents_clean_unscaled"].transpose(1, 2)  # (B, F, C, H, W) there
    noised = corrupt(clean, golden["svd.beta_s"], golden["svd.cond_noise_scalar"].view(2, 1, 1, 1, 1))
    torch.testing.assert_close(noised.transpose(1, 2), golden["svd.noised"])
    assert TimeNoise.preset("released-svd").noise_shape == "clip"


def test_tokens_and_half_precision():
    tokens = torch.zeros(3, 16, 32, dtype=torch.bfloat16)
    method = TimeNoise.preset("released-videocrafter")
    noised, level = method.corrupt(tokens, torch.tensor([0.1, 0.5, 0.9]), torch.Generator().manual_seed(0))
    assert noised.dtype == torch.bfloat16 and level.dtype == torch.float32
    torch.testing.assert_close(noised.float().flatten(1).std(1), level, rtol=0.1, atol=0)


def test_no_maximum_no_noise():
    latents = torch.randn(2, 4, 1, 8, 8)
    assert torch.equal(TimeNoise(maximum=0.0).corrupt(latents, 0.5)[0], latents)


def test_wrong_parameters():
    with pytest.raises(UnstillError, match="exponent above 0"):
        TimeNoise(exponent=0.0)
    with pytest.raises(UnstillError, match="element, frame, clip"):
        TimeNoise(noise_shape="pixel")
    with pytest.raises(UnstillError, match="no preset 'papers'"):
        TimeNoise.preset("papers")
