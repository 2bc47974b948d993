"""Conditioning augmentation against the noising of a diffusers scheduler with the same betas."""

from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler

import unstill
from tests.pipelines import CASES, pipeline, random_pico, sample
from unstill.errors import UnstillError
from unstill.hooks import adapter_for
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


@pytest.mark.parametrize(("guidance", "own"), [(1.0, 0.0), (2.0, 0.0), (1.0, 0.3)])
def test_pico_is_told_of_the_noise(guidance: float, own: float) -> None:
    """The third of the ids is 100 times the noise's deviation in the rows with an image, at every step."""
    pipe = random_pico()
    told: list[torch.Tensor] = []
    forward = pipe.transformer.forward

    def recorded(*args: Any, **kwargs: Any) -> Any:
        told.append(args[3].clone())
        return forward(*args, **kwargs)

    pipe.transformer.forward = recorded
    call = {"motion": 0.5, "num_frames": 2, "num_inference_steps": 2, "guidance_scale": guidance, "output_type": "pt"}
    image = torch.rand(1, 3, pipe.size, pipe.size, generator=torch.Generator().manual_seed(0))

    def ids() -> torch.Tensor:
        told.clear()
        pipe(image, noise_aug_strength=own, generator=torch.Generator().manual_seed(0), **call)
        return torch.stack(told)

    plain = ids()
    _, sigma = vp(torch.tensor([0.1]))
    with unstill.apply(pipe, ConditioningAugmentation(level=0.1)):
        noised = ids()
    assert len(noised) == 2  # steps
    assert plain[:, -1, 2].tolist() == pytest.approx([100 * own] * 2)
    assert noised[:, -1, 2].tolist() == pytest.approx([100 * (own**2 + sigma.item() ** 2) ** 0.5] * 2)
    noised[:, -1, 2] = plain[:, -1, 2]
    assert torch.equal(noised, plain)
    assert torch.equal(ids(), plain)


@pytest.mark.parametrize("name", ["WanImageToVideoPipeline", "CogVideoXImageToVideoPipeline", "PicoPipeline"])
def test_noise_that_grows_with_the_square_of_the_level(name: str) -> None:
    """c + strength t^2 eps, fresh in every step, the same in both passes of one."""
    pipe, case = pipeline(name), CASES[name]
    adapter, channels = adapter_for(pipe), case.latents[0]
    call = {"num_inference_steps": 3} | ({"guidance_scale": 1.0} if name == "PicoPipeline" else {})
    plain = sample(case, pipe, **call)

    def views(*methods: Any) -> list[torch.Tensor]:
        found: list[torch.Tensor] = []

        def keep(module: Any, args: Any, kwargs: Any) -> None:
            x = kwargs[adapter.condition_input] if adapter.condition_input in kwargs else args[0]
            found.extend(adapter.condition_view(x, channels).clone().split(1))

        with unstill.apply(pipe, *methods) as applied:
            handle = pipe.transformer.register_forward_pre_hook(keep, with_kwargs=True)
            sample(case, pipe, **call)
            handle.remove()
        process, grid = adapter.process(pipe.scheduler), getattr(applied.run, "grid", None)
        levels.extend(process.alpha_sigma(t, i) for i, t in enumerate(grid.timesteps) if grid is not None)
        return found

    levels: list[tuple[float, float]] = []
    method = ConditioningAugmentation(schedule="t2", strength=0.5, noise_shape="element")
    nothing = ConditioningAugmentation(schedule="t2", strength=0.0)
    clean, noised = views(nothing), views(method)
    each = len(noised) // 3
    differences = [a - b for a, b in zip(noised, clean, strict=True)]
    for step in range(3):
        alpha, sigma = levels[step]
        expected = 0.5 * (sigma / (alpha + sigma)) ** 2
        of_step = differences[step * each : (step + 1) * each]
        assert of_step[-1].std().item() == pytest.approx(expected * adapter_unit(pipe), rel=0.35, abs=1e-6)
        seen = of_step[1:] if adapter.zero_unconditional else of_step
        assert all(torch.allclose(one, of_step[-1], atol=1e-6) for one in seen)
    first, second = differences[each - 1], differences[2 * each - 1]
    assert not torch.allclose(first / first.std(), second / second.std())
    assert torch.equal(sample(case, pipe, **call), plain)
    with unstill.apply(pipe, nothing):
        assert torch.equal(sample(case, pipe, **call), plain)


def adapter_unit(pipe: Any) -> float:
    """Image latents as the denoiser sees them, in units of the video latents."""
    return 1 / adapter_for(pipe).condition_scale(pipe)


def test_wrong_schedules() -> None:
    for wrong in ({"schedule": "t3"}, {"schedule": "t2", "strength": -1.0}):
        with pytest.raises(UnstillError, match="a schedule 'constant' or 't2' and a strength"):
            ConditioningAugmentation(**wrong)
