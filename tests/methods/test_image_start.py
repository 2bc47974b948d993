"""ImageStart against diffusers' own noising, and against its grid."""

import diffusers
import pytest
import torch

import unstill
from tests.methods.sampler import Sampler
from unstill.errors import UnstillError
from unstill.methods.image_start import ImageStart


IMAGE = torch.randn(2, 4, 1, 6, 6, generator=torch.Generator().manual_seed(3))
NOISE = torch.randn(2, 4, 5, 6, 6, generator=torch.Generator().manual_seed(4))


def first(scheduler, *methods, steps=8):
    pipe = Sampler(scheduler, lambda x, t: 0.1 * x, IMAGE)
    with unstill.apply(pipe, *methods) as applied:
        pipe(steps, latents=NOISE)
    return pipe.visited[0], applied.run


@pytest.mark.parametrize("start", [1.0, 0.6, 0.1])
def test_begins_at_the_asked_training_time(start):
    scheduler = diffusers.DDIMScheduler(clip_sample=False, timestep_spacing="trailing")
    latents, run = first(scheduler, ImageStart(start=start))
    t = round(1000 * start) - 1
    assert len(run.grid.timesteps) == 8 and run.grid.timesteps[0] == t
    expected = diffusers.DDIMScheduler().add_noise(IMAGE.expand_as(NOISE), NOISE, torch.tensor([t]))
    torch.testing.assert_close(latents, expected)


@pytest.mark.parametrize("scheduler", [diffusers.EulerDiscreteScheduler, diffusers.FlowMatchEulerDiscreteScheduler])
def test_begins_at_the_asked_sigma(scheduler):
    latents, run = first(scheduler(), ImageStart(sigma=0.7))
    alpha = 1.0 if scheduler is diffusers.EulerDiscreteScheduler else 0.3
    torch.testing.assert_close(latents, alpha * IMAGE + 0.7 * NOISE)
    assert run.grid.sigmas[0].item() == pytest.approx(0.7)


def test_the_level_may_come_from_another_method():
    scheduler = diffusers.DDIMScheduler(clip_sample=False)
    together, run = first(scheduler, unstill.EarlyStart(start=0.6), ImageStart())
    alone, own = first(scheduler, ImageStart(start=0.6))
    assert torch.equal(together, alone) and torch.equal(run.grid.timesteps, own.grid.timesteps)
    with pytest.raises(UnstillError, match="ImageStart and EarlyStart both decide the noise level"):
        first(scheduler, unstill.EarlyStart(start=0.6), ImageStart(start=0.6))


def test_pure_noise_is_refused():
    with pytest.raises(UnstillError, match="begins with pure noise, .* give ImageStart a lower level"):
        first(diffusers.FlowMatchEulerDiscreteScheduler(), ImageStart())


def test_a_level_that_is_none():
    with pytest.raises(UnstillError, match="exactly one"):
        ImageStart(start=0.5, sigma=2.0)
    with pytest.raises(UnstillError, match="above 0|in \\(0, 1\\]"):
        ImageStart(start=0.0)
