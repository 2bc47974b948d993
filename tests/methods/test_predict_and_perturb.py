"""Predict and perturb against its loop, written by hand with Euler's method in flow matching."""

from dataclasses import replace
from typing import Any

import diffusers
import pytest
import torch

import unstill
from tests.methods.sampler import Sampler
from tests.pipelines import CASES, pipeline, sample
from unstill.errors import UnstillError
from unstill.methods.predict_and_perturb import PredictAndPerturb


IMAGE = torch.randn(1, 4, 1, 6, 6, generator=torch.Generator().manual_seed(3))
NAMES = [name for name in CASES if "LTX2" not in name]  # which has sound


def network(x: torch.Tensor, t: float) -> torch.Tensor:
    return 0.7 * torch.tanh(x) - 0.3 * x.roll(1, 2) + 0.001 * t


def by_hand(
    noise: torch.Tensor, sigmas: list[float], repeats: int, refined: int, tau: float, stop: float = 1.0
) -> tuple[torch.Tensor, list[int]]:
    """Also of every refined level the repeats after which its loop ended."""
    ended = []
    draw = torch.Generator().manual_seed(5)
    torch.randn(noise.shape, generator=draw)  # the first latents
    x = noise
    for i, (s, following) in enumerate(zip(sigmas, sigmas[1:], strict=False)):
        v = network(x, 1000 * s)
        x0, after = x - s * v, x + (following - s) * v
        if i < refined:
            done = False
            for repeat in range(repeats):
                x = (1 - s) * x0 + s * torch.randn(noise.shape, generator=draw)
                if done:  # only the noise is drawn, as in a pipeline, whose calls cannot be left out
                    continue
                v = network(x, 1000 * s)
                new, new_after = x - s * v, x + (following - s) * v
                mask = (new - x0).abs().mean(1, keepdim=True) > tau
                after = torch.where(mask, new_after, after)
                x0 = torch.where(mask, new, x0)
                done = (~mask).float().mean().item() > stop
                ended += [repeat + 1] if done or repeat + 1 == repeats else []
        x = after
    return x, ended


@pytest.mark.parametrize(("repeats", "until", "tau"), [(1, 0.2, 0.25), (3, 0.4, 0.7), (2, 0.5, 0.0), (0, 0.5, 0.3)])
def test_by_hand(repeats: int, until: float, tau: float) -> None:
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    pipe = Sampler(scheduler, network, IMAGE, frames=3)
    with unstill.apply(pipe, PredictAndPerturb(repeats=repeats, until=until, tau=tau)):
        found = pipe(5, generator=torch.Generator().manual_seed(5)).frames
    calls = len(pipe.visited) - 1
    scheduler.set_timesteps(5)
    noise = torch.randn(1, 4, 3, 6, 6, generator=torch.Generator().manual_seed(5))
    refined = {0.2: 1, 0.4: 2, 0.5: 3}[until]
    expected, _ = by_hand(noise, scheduler.sigmas.tolist(), repeats, refined, tau)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert calls == 5 + repeats * refined


def test_a_level_that_is_certain_is_not_refined_further() -> None:
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    pipe, method = (
        Sampler(scheduler, network, IMAGE, frames=3),
        PredictAndPerturb(repeats=4, until=0.5, tau=0.7, stop=0.6),
    )
    with unstill.apply(pipe, method):
        found = pipe(5, generator=torch.Generator().manual_seed(5)).frames
    noise = torch.randn(1, 4, 3, 6, 6, generator=torch.Generator().manual_seed(5))
    scheduler.set_timesteps(5)
    expected, ended = by_hand(noise, scheduler.sigmas.tolist(), 4, 3, 0.7, 0.6)
    assert min(ended) < 4  # else nothing would be tested
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    never, _ = by_hand(noise, scheduler.sigmas.tolist(), 4, 3, 0.7)
    assert not torch.allclose(found, never, atol=1e-3)
    with unstill.apply(pipe, replace(method, stop=1.0)):
        torch.testing.assert_close(
            pipe(5, generator=torch.Generator().manual_seed(5)).frames, never, rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize("name", NAMES)
def test_acts_repeats_and_leaves_nothing_behind(name: str) -> None:
    case, pipe = CASES[name], pipeline(name)
    plain = sample(case, pipe, num_inference_steps=3)
    with unstill.apply(pipe, PredictAndPerturb(repeats=1, until=0.3, tau=0.0)) as applied:
        video = sample(case, pipe, num_inference_steps=3)
        assert len(applied.run.grid.timesteps) == 4
        assert torch.equal(sample(case, pipe, num_inference_steps=3), video)
    assert video.isfinite().all() and not torch.equal(video, plain)
    for nothing in (PredictAndPerturb(repeats=0), PredictAndPerturb(until=0.0)):
        with unstill.apply(pipe, nothing):
            assert torch.equal(sample(case, pipe, num_inference_steps=3), plain)
    assert torch.equal(sample(case, pipe, num_inference_steps=3), plain)


def test_refusals() -> None:
    with pytest.raises(UnstillError, match="both decide the noise level"):
        unstill.apply(pipeline("WanImageToVideoPipeline"), PredictAndPerturb(), unstill.EarlyStart(start=0.9))
    with pytest.raises(UnstillError, match="which the sound of LTX2ImageToVideoPipeline cannot follow"):
        unstill.apply(pipeline("LTX2ImageToVideoPipeline"), PredictAndPerturb())


@pytest.mark.parametrize(
    "values", [{"repeats": -1}, {"repeats": 1.5}, {"until": 2.0}, {"tau": float("nan")}, {"stop": 1.5}]
)
def test_wrong_parameters(values: dict[str, Any]) -> None:
    with pytest.raises(UnstillError, match="0 to 100 repeats"):
        PredictAndPerturb(**values)
