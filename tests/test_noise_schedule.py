"""Starting lower: exact levels, the scheduler's own rule, and the published grids."""

import copy
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler

from tests.schedulers import CASES, FLOW, LATENT_VP, LTX
from unstill.errors import UnstillError
from unstill.forward_process import ForwardProcess
from unstill.noise_schedule import Grid, before_step, install, level_of
from unstill.respacing import respace


GOLDEN = Path(__file__).parent / "golden" / "grids.json"
NO_START = {"pndm", "pndm-v"}
SIGMA_ONLY = {"euler-svd", "edm", "edm-v", "edm-exponential", "edm-dpm++", "cosmos2"}
STARTING = sorted(set(CASES) - NO_START)


def process_of(name: str, scheduler: Any) -> ForwardProcess:
    return ForwardProcess.of(scheduler, kind="ve" if name == "cosmos2" else None)


def ask(name: str, level: float) -> dict[str, float]:
    return {"sigma": 80 * level} if name in SIGMA_ONLY else {"start": level}


@pytest.mark.parametrize("level", [0.96, 0.5])
@pytest.mark.parametrize("name", STARTING)
def test_begins_exactly_at_the_asked_level_with_as_many_steps(name: str, level: float) -> None:
    scheduler = CASES[name].build(12)
    before = copy.deepcopy(scheduler.__dict__)
    process, asked = process_of(name, scheduler), ask(name, level)
    grid = respace(scheduler, process, **asked)
    assert str(scheduler.__dict__) == str(before)
    timestep, alpha, sigma = level_of(process, **asked)
    assert len(grid.timesteps) == len(scheduler.timesteps) and grid.timesteps.dtype == scheduler.timesteps.dtype
    assert grid.sigmas is None or grid.sigmas.shape == scheduler.sigmas.shape
    assert (grid.timesteps.diff() <= 0).all()
    install(scheduler, grid)
    assert process.alpha_sigma(grid.timesteps[0], step=0) == pytest.approx((alpha, sigma), rel=1e-5)
    assert grid.timesteps[0].item() == pytest.approx(timestep, rel=1e-5)
    levels = [process.alpha_sigma(0, step=k) for k in range(0, len(grid.timesteps), grid.order)]
    assert all(s / a > t / b for (a, s), (b, t) in zip(levels, levels[1:], strict=False))


@pytest.mark.parametrize("sigma", [3.0, 0.7])
@pytest.mark.parametrize("name", ["euler", "euler-trailing", "euler-karras-v", "euler-ancestral", "heun", "kdpm2"])
def test_sigmas_between_training_steps_are_exact(name: str, sigma: float) -> None:
    scheduler = CASES[name].build(12)
    process = ForwardProcess.of(scheduler)
    grid = respace(scheduler, process, sigma=sigma)
    assert grid.sigmas is not None and grid.sigmas[0].item() == pytest.approx(sigma, rel=1e-6)
    # The network is told the nearest training step.
    table = ((1 - scheduler.alphas_cumprod) / scheduler.alphas_cumprod).sqrt().log()
    assert grid.timesteps[0].item() == pytest.approx((table - math.log(sigma)).abs().argmin().item(), abs=1e-3)


@pytest.mark.parametrize("name", CASES)
def test_start_one_and_the_first_sigma_are_the_identity(name: str) -> None:
    if name in NO_START:
        return
    scheduler = CASES[name].build(12)
    process = process_of(name, scheduler)
    asked = {"sigma": scheduler.sigmas[0].item()} if name in SIGMA_ONLY else {"start": 1.0}
    grid = respace(scheduler, process, **asked)
    assert grid.own and torch.equal(grid.timesteps, scheduler.timesteps)
    assert grid.sigmas is None or torch.equal(grid.sigmas, scheduler.sigmas)


@pytest.mark.parametrize("key", json.loads(GOLDEN.read_text())["trailing"])
def test_trailing_grids_of_conditional_image_leakage(key: str) -> None:
    """The released sampler's own grids, produced by running it; M = 920 with a leading t = -1, its bug, is cut."""
    golden = json.loads(GOLDEN.read_text())["trailing"][key]
    scheduler = DDIMScheduler(**LATENT_VP, timestep_spacing="trailing")
    scheduler.set_timesteps(golden["steps"])
    grid = respace(scheduler, ForwardProcess.of(scheduler), start=golden["M"] / 1000)
    assert grid.timesteps.flip(0).tolist() == [t for t in golden["timesteps_ascending"] if t >= 0]


@pytest.mark.parametrize("name", ["ddim-trailing", "ddpm-trailing", "cogvideox-ddim", "dpm++zsnr", "euler-trailing"])
def test_trailing_has_no_step_too_many_at_any_start(name: str) -> None:
    for steps in (25, 50):
        scheduler = CASES[name].build(steps)
        process = ForwardProcess.of(scheduler)
        for size in (820, 870, 920, 970, 987, 995, 999):  # the released sampler gives 51 steps for most of these
            timesteps = respace(scheduler, process, start=size / 1000).timesteps.tolist()
            assert (len(timesteps), timesteps[0]) == (steps, size - 1) and timesteps[-1] >= 0


@pytest.mark.parametrize("sigma", json.loads(GOLDEN.read_text())["svd"])
def test_karras_ramps_of_stable_video_diffusion(sigma: str) -> None:
    """The ramps that the released SVD configurations give at 25 steps, above and below the default of 700."""
    golden = json.loads(GOLDEN.read_text())["svd"][sigma]
    scheduler = CASES["euler-svd"].build(25)
    grid = respace(scheduler, ForwardProcess.of(scheduler), sigma=float(sigma))
    assert grid.sigmas is not None
    torch.testing.assert_close(grid.sigmas, torch.tensor(golden["sigmas"]), rtol=1e-5, atol=0)
    torch.testing.assert_close(grid.timesteps, torch.tensor(golden["timesteps"]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("first", [0.95, 0.6])
def test_flow_ramps_begin_later_under_the_same_shift(first: float) -> None:
    """The even ramp begun later, given to the scheduler itself: neither `mu` nor the stretch is known to `respace`."""
    steps, mu = 20, 1.7
    config = {k: v for k, v in LTX.items() if k != "shift_terminal"}
    scheduler, expected = FlowMatchEulerDiscreteScheduler(**config), FlowMatchEulerDiscreteScheduler(**config)
    scheduler.set_timesteps(sigmas=np.linspace(1, 0, steps + 1)[:-1], mu=mu)
    expected.set_timesteps(sigmas=np.linspace(first, 0, steps + 1)[:-1], mu=mu)
    grid = respace(scheduler, ForwardProcess.of(scheduler), sigma=expected.sigmas[0].item())
    torch.testing.assert_close(grid.sigmas, expected.sigmas, rtol=0, atol=2e-6)
    torch.testing.assert_close(grid.timesteps, expected.timesteps, rtol=0, atol=2e-3)


def test_flow_ramp_keeps_its_terminal_level() -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(**LTX)
    scheduler.set_timesteps(sigmas=np.linspace(1, 1 / 20, 20), mu=1.2)
    grid = respace(scheduler, ForwardProcess.of(scheduler), start=0.8)
    assert grid.sigmas is not None
    assert grid.sigmas[[0, -2, -1]].tolist() == pytest.approx([0.8, 0.1, 0.0], rel=1e-6)


def test_unipc_flow_follows_its_own_ramp() -> None:
    scheduler, steps, first = UniPCMultistepScheduler(**FLOW), 15, 0.7
    scheduler.set_timesteps(steps)
    even = np.linspace(first, 1 / 1000, steps + 1)[:-1]
    shifted = 3 * even / (1 + 2 * even)
    grid = respace(scheduler, ForwardProcess.of(scheduler), sigma=shifted[0])
    assert grid.sigmas is not None
    np.testing.assert_allclose(grid.sigmas[:-1].numpy(), shifted, atol=1e-6)
    assert grid.timesteps.tolist() == [round(1000 * s) for s in shifted]


def test_cosmos_flow_karras_ramp() -> None:
    """UniPC with Karras sigmas and flow coordinates, as Cosmos 2.5 has it: s = sigma / (sigma + 1)."""
    config = FLOW | {"use_karras_sigmas": True, "sigma_max": 200.0, "sigma_min": 0.01}
    scheduler = UniPCMultistepScheduler(**config)
    scheduler.set_timesteps(10)
    grid = respace(scheduler, ForwardProcess.of(scheduler), sigma=0.9)
    ramp = np.linspace(9 ** (1 / 7), 0.01 ** (1 / 7), 10) ** 7
    assert grid.sigmas is not None
    np.testing.assert_allclose(grid.sigmas[:-1].numpy(), ramp / (ramp + 1), rtol=1e-5)


@pytest.mark.parametrize("steps", [1, 2])
def test_very_few_flow_steps(steps: int) -> None:
    scheduler = CASES["flow"].build(steps)
    grid = respace(scheduler, ForwardProcess.of(scheduler), start=0.5)
    assert grid.sigmas is not None and grid.sigmas[0] == 0.5 and grid.sigmas[-1] == 0


@pytest.mark.parametrize("name", ["ddim-trailing", "ddim-parallel", "cogvideox-ddim"])
def test_before_step_leads_to_the_next_timestep(name: str) -> None:
    """A model that always finds x0 = 0 leaves sigma(next) / sigma(t) of the sample: 0 after the last step."""
    scheduler = CASES[name].build(7)
    process = ForwardProcess.of(scheduler)
    grid = respace(scheduler, process, start=0.9)
    install(scheduler, grid)
    for step, t in enumerate(grid.timesteps):
        sample = torch.ones(1, dtype=torch.float64)
        output = process.from_x0(torch.zeros_like(sample), sample, t)
        before_step(scheduler, grid, step)
        found = scheduler.step(output, t, sample).prev_sample.item()
        following = process.alpha_sigma(grid.timesteps[step + 1])[1] if step < 6 else 0.0
        assert found == pytest.approx(following / process.alpha_sigma(t)[1], abs=1e-6)


def test_before_step_leaves_the_schedulers_own_grid_alone() -> None:
    scheduler = CASES["ddim-linspace"].build(7)
    before_step(scheduler, Grid.of(scheduler), 0)
    assert scheduler.num_inference_steps == 7


@pytest.mark.parametrize("name", ["dpm++single", "lcm", "euler", "unipc-flow"])
def test_a_longer_grid_runs_to_its_end(name: str) -> None:
    """As a method makes it that visits the first levels twice, and begins the solver at the second visit."""
    scheduler, again = CASES[name].build(8), 2
    own = Grid.of(scheduler)
    grid = Grid(
        torch.cat([own.timesteps[:again], own.timesteps]),
        None if own.sigmas is None else torch.cat([own.sigmas[:again], own.sigmas]),
    )
    plain, begun_later = copy.deepcopy(scheduler), scheduler
    install(begun_later, grid)
    begun_later._step_index = again
    x = y = torch.ones(1, 2, 1, 1)
    for t in own.timesteps:
        x = plain.step(x, t, x, return_dict=False, **seeded(name))[0]
        y = begun_later.step(y, t, y, return_dict=False, **seeded(name))[0]
    torch.testing.assert_close(x, y)


def seeded(name: str) -> dict[str, torch.Generator]:
    return {"generator": torch.Generator().manual_seed(0)} if name == "lcm" else {}


@pytest.mark.parametrize(
    ("name", "asked", "message"),
    [
        ("ddim", {}, "exactly one"),
        ("ddim", {"start": 0.9, "sigma": 3.0}, "exactly one"),
        ("ddim", {"sigma": 3.0}, "DDIMScheduler.*give start="),
        ("unipc", {"sigma": 3.0}, "UniPC.*give start="),
        ("euler-svd", {"start": 0.9}, "EulerDiscrete.*give sigma="),
        ("edm", {"start": 0.9}, "EDMEuler.*give sigma="),
        ("ddim", {"start": 0.0}, "out of range"),
        ("ddim", {"start": 960}, "out of range"),
        ("flow", {"sigma": 80.0}, "at most at 1"),
        ("euler", {"sigma": 80.0}, "at most at 14.6"),
        ("pndm", {"start": 0.9}, "PNDMScheduler.*no lower start"),
        ("ddim", {"start": 0.005}, "Fewer than 10 levels"),
        ("unipc", {"start": 0.005}, "Fewer than 10 levels"),
        ("flow-ltx", {"start": 0.05}, "start higher"),
    ],
)
def test_errors(name: str, asked: dict[str, float], message: str) -> None:
    scheduler = CASES[name].build(10)
    with pytest.raises(UnstillError, match=message):
        respace(scheduler, ForwardProcess.of(scheduler), **asked)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("flow", [1.0, 0.9, 0.3, 0.28, 0.1]),
        ("euler", [10.0, 8.0, 1.0, 0.5, 0.0]),
        ("euler-svd", [700.0, 80.0, 1.0, 0.0]),
    ],
)
def test_sigmas_of_the_callers_own_making_are_refused(name: str, given: list[float]) -> None:
    scheduler = CASES[name].fresh()
    scheduler.set_timesteps(sigmas=given)
    with pytest.raises(UnstillError, match="do not follow its own spacing rule"):
        respace(scheduler, ForwardProcess.of(scheduler), sigma=0.8)
