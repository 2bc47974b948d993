"""Conditioning augmentation against the noising of a diffusers scheduler with the same betas."""

import pytest
import torch
from diffusers import DDPMScheduler

from unstill.errors import UnstillError
from unstill.methods.conditioning_augmentation import ConditioningAugmentation, augment, vp


def test_noises_as_the_models_own_schedule_does():
    scheduler = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    generator = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 3, 4, 1, 8, 8, generator=generator)
    timesteps = torch.tensor([0, 499, 999])  # timestep t is noised by t + 1 of the 1000 steps
    alpha, sigma = vp((timesteps + 1) / 1000, (0.00085, 0.012))
    torch.testing.assert_close(augment(clean, alpha, sigma, noise), scheduler.add_noise(clean, noise, timesteps))


def test_levels_in_training_are_uniform_and_do_not_depend_on_time():
    method = ConditioningAugmentation(maximum=0.5)
    latents = torch.zeros(4000, 1, 1, 1, 1)
    _, early = method.corrupt(latents, 0.0, torch.Generator().manual_seed(0))
    noised, late = method.corrupt(latents, 1.0, torch.Generator().manual_seed(0))
    assert torch.equal(early, late)
    quantiles = early.quantile(torch.tensor([0.1, 0.5, 0.9]))
    torch.testing.assert_close(quantiles, torch.tensor([0.05, 0.25, 0.45]), rtol=0, atol=0.02)
    sigma = vp(late, method.betas)[1]
    torch.testing.assert_close(noised.std(), sigma.square().mean().sqrt(), rtol=0.05, atol=0)


def test_level_zero_is_clean():
    alpha, sigma = vp(torch.zeros(2), (0.00085, 0.012))
    assert alpha.tolist() == [1, 1] and sigma.tolist() == [0, 0]


def test_wrong_parameters():
    with pytest.raises(UnstillError, match=r"level in \[0, 1\]"):
        ConditioningAugmentation(level=1.5)
    with pytest.raises(UnstillError, match="element, frame, clip"):
        ConditioningAugmentation(noise_shape="pixel")
