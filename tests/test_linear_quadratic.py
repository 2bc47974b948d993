"""Linear-quadratic levels (MochiPipeline, LTXConditionPipeline), and schedulers that count from noise to data."""

from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.ltx.pipeline_ltx_condition import linear_quadratic_schedule

import unstill
from tests.pipelines import CASES, pipeline, sample
from unstill.errors import UnstillError
from unstill.forward_process import ForwardProcess
from unstill.noise_schedule import Grid, install
from unstill.respacing import respace
from unstill.sigma_schedule import respace_sigmas


STARTS = (0.5, 0.9, 0.96, 0.975, 0.98, 0.99)


def scheduler_of(steps: int, inverted: bool) -> Any:
    scheduler = FlowMatchEulerDiscreteScheduler(invert_sigmas=inverted)
    scheduler.set_timesteps(sigmas=linear_quadratic_schedule(steps).tolist())
    return scheduler


def expected(start: float, steps: int) -> list[float]:
    """The curve between its own points, begun where it is at `start`, found by bisection."""
    linear = steps // 2
    slope = 0.025 / linear
    bend = (linear - 0.025 * steps) / (linear * (steps - linear) ** 2)

    def level(index: float) -> float:
        return 1 - slope * index - bend * max(index - linear, 0.0) ** 2

    low, high = 0.0, float(steps)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if level(middle) > start else (low, middle)
    return [level(low + (steps - low) * k / steps) for k in range(steps)]


@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize("steps", [2, 3, 4, 7, 8, 25, 50, 64])
def test_a_lower_start_keeps_the_curve(steps: int, inverted: bool) -> None:
    scheduler = scheduler_of(steps, inverted)
    process = ForwardProcess.of(scheduler)
    own = Grid.of(scheduler)
    for start in STARTS:
        grid = respace(scheduler, process, start=start)
        assert grid.sigmas is not None and own.sigmas is not None
        levels = 1 - grid.sigmas if inverted else grid.sigmas
        assert levels[:-1].tolist() == pytest.approx(expected(start, steps), abs=2e-6)
        assert levels[0].item() == pytest.approx(start, abs=1e-6)
        assert (levels[:-1].diff() < 0).all() and (levels[:-1] > 0).all()
        assert grid.sigmas[-1] == own.sigmas[-1] == float(inverted)
        assert grid.timesteps.shape == own.timesteps.shape
        torch.testing.assert_close(grid.timesteps, 1000 * grid.sigmas[:-1])
    assert respace(scheduler, process, start=1.0).own


def test_the_curve_is_recognised_in_a_list_of_levels() -> None:
    """As ComfyUI's samplers have it; 8 steps."""
    sigmas = torch.tensor([*linear_quadratic_schedule(8).tolist(), 0.0])
    assert respace_sigmas(sigmas, 0.96)[:-1].tolist() == pytest.approx(expected(0.96, 8), abs=1e-6)


@pytest.mark.parametrize("shift", [1.0, 3.0, 17.0])
@pytest.mark.parametrize("steps", [1, 2, 4, 30])
def test_inverted_levels_are_those_of_the_plain_scheduler(steps: int, shift: float) -> None:
    plain, inverted = (FlowMatchEulerDiscreteScheduler(shift=shift, invert_sigmas=flag) for flag in (False, True))
    for scheduler in (plain, inverted):
        scheduler.set_timesteps(steps)
    for start in STARTS:
        grid = respace(plain, ForwardProcess.of(plain), start=start)
        mirrored = respace(inverted, ForwardProcess.of(inverted), start=start)
        assert grid.sigmas is not None and mirrored.sigmas is not None
        torch.testing.assert_close(mirrored.sigmas, 1 - grid.sigmas, rtol=0, atol=1e-6)
        torch.testing.assert_close(mirrored.timesteps, 1000 - grid.timesteps, rtol=0, atol=1e-3)


def test_the_inverted_process_is_what_the_scheduler_steps() -> None:
    """A step to sigmas = 1 of a perfect network's output ends on x0, from every level."""
    scheduler = scheduler_of(6, inverted=True)
    process = ForwardProcess.of(scheduler)
    assert (process.kind, process.prediction) == ("flow", "reversed_flow")
    x0, eps = torch.randn(2, 1, 4, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    for step, t in enumerate(scheduler.timesteps):
        alpha, sigma = process.alpha_sigma(t, step)
        assert (alpha, sigma) == pytest.approx((float(t) / 1000, 1 - float(t) / 1000))
        assert (alpha, sigma) == pytest.approx(process.alpha_sigma(t))
        noisy = process.add_noise(x0, eps, t, step)
        scheduler._step_index = step
        own = scheduler.sigmas.clone()
        scheduler.sigmas[step + 1] = 1
        ended = scheduler.step(x0 - eps, t, noisy).prev_sample
        scheduler.sigmas = own
        torch.testing.assert_close(ended, x0, rtol=0, atol=1e-5)
        torch.testing.assert_close(process.to_x0(x0 - eps, noisy, t, step), x0, rtol=0, atol=1e-5)
        torch.testing.assert_close(process.to_eps(x0 - eps, noisy, t, step), eps, rtol=0, atol=1e-5)
    assert process.alpha_sigma(137.0) == pytest.approx((0.137, 0.863))  # off the schedule


def test_an_inverted_scheduler_ends_where_the_plain_one_does() -> None:
    """The same latents, to rounding, from the same level, with the output's sign changed."""
    ends = []
    for inverted in (False, True):
        scheduler = scheduler_of(8, inverted)
        install(scheduler, respace(scheduler, ForwardProcess.of(scheduler), start=0.96))
        x = torch.randn(1, 4, 3, 5, 5, generator=torch.Generator().manual_seed(0))
        for t in scheduler.timesteps:
            level = 1 - t / 1000 if inverted else t / 1000
            velocity = (x - 0.3) * level  # any function of the sample and of its level
            x = scheduler.step(-velocity if inverted else velocity, t, x).prev_sample
        ends.append(x)
    torch.testing.assert_close(*ends, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("MochiPipeline", {}, "has invert_sigmas=False.*counts time as with invert_sigmas=True"),
        ("WanImageToVideoPipeline", {"invert_sigmas": True}, "counts time as with invert_sigmas=False"),
        ("LTXConditionPipeline", {"shift": 3.0}, "load it with shift=1"),
        ("LTXConditionPipeline", {"shift_terminal": 0.1}, "load it with shift=1"),
    ],
)
def test_schedulers_that_count_otherwise_than_the_network_are_refused(
    name: str, config: dict[str, Any], message: str
) -> None:
    pipe = CASES[name].build()
    pipe.scheduler = FlowMatchEulerDiscreteScheduler(**config)
    with pytest.raises(UnstillError, match=message):
        unstill.apply(pipe, unstill.EarlyStart(start=0.9))


@pytest.mark.parametrize(("name", "timesteps"), [("MochiPipeline", 40.0), ("LTXConditionPipeline", 960.0)])
def test_the_network_is_told_the_level_it_starts_at(name: str, timesteps: float) -> None:
    pipe, told = pipeline(name), []
    handle = pipe.transformer.register_forward_pre_hook(
        lambda module, args, kwargs: told.append(kwargs["timestep"].max().item()), with_kwargs=True
    )
    with unstill.apply(pipe, unstill.EarlyStart(start=0.96)):
        sample(CASES[name], pipe)
    handle.remove()
    assert told[0] == pytest.approx(timesteps, abs=1e-3)
