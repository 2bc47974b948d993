"""Every scheduler on Gaussian data, whose exact score is known: from any start it must sample the right Gaussian.

For x0 ~ N(m, v) the marginal at a level is N(alpha m, sigma^2 + alpha^2 v) and the posterior means of x0 and eps are
affine in x: what a deterministic solver makes of a start is one affine map, found without sampling from what becomes
of the mean and of one standard deviation above it.
"""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.schedulers import CASES
from unstill.forward_process import ForwardProcess
from unstill.noise_schedule import before_step, install
from unstill.respacing import respace


MEAN, VARIANCE, STEPS = 0.3, 0.25, 50  # steps: a divisor of 1000, where diffusers' own DDIM stride is exact
SAMPLES = 40_000
Level = tuple[float, float]  # alpha, sigma
SIGMA_ONLY = {"euler-svd", "edm", "edm-v", "edm-exponential", "edm-dpm++", "cosmos2"}
STARTS = (1.0, 0.96, 0.7)

FIRST_ORDER = [
    *("ddim", "ddim-offset", "ddim-trailing", "ddim-v-zsnr", "ddim-sample", "ddim-parallel", "cogvideox-ddim", "tcd"),
    *("euler", "euler-trailing", "euler-karras-v", "euler-sample", "euler-svd", "edm", "edm-v", "edm-exponential"),
    *("flow", "flow-ltx", "flow-karras", "cosmos2"),
]
HIGHER_ORDER = [
    *("dpm++", "dpm++karras-v", "dpm++zsnr", "dpm++lu", "dpm++single", "deis", "unipc", "unipc-exponential"),
    *("unipc-zsnr", "heun", "heun-karras", "kdpm2", "edm-dpm++", "flow-heun", "unipc-flow", "dpm++flow", "deis-flow"),
]
ANCESTRAL = ["ddpm", "ddpm-trailing", "euler-ancestral"]
CONSISTENCY = ["lcm", "flow-lcm"]
STOCHASTIC_HIGHER_ORDER = ["dpm++sde", "sasolver", "sasolver-flow", "cogvideox-dpm", "kdpm2-ancestral"]


def marginal(level: Level) -> Level:
    """Mean and variance of x at a level."""
    alpha, sigma = level
    return alpha * MEAN, sigma**2 + alpha**2 * VARIANCE


def exact_output(process: ForwardProcess, x: torch.Tensor, level: Level) -> torch.Tensor:
    """What the perfect network says: the posterior means of x0 and eps, as the scheduler's prediction type."""
    (alpha, sigma), (mean, variance) = level, marginal(level)
    x0 = MEAN + alpha * VARIANCE / variance * (x - mean)
    eps = sigma / variance * (x - mean)
    match process.prediction:
        case "epsilon":
            return eps
        case "sample":
            return x0
        case "flow_prediction":
            return eps - x0
        case "v_prediction":
            return (alpha * eps - sigma * x0) / math.hypot(alpha, sigma)
        case "edm" | "edm_v":  # c_out F = x0 - c_skip x
            data = process.scheduler.config.sigma_data
            skip, out = data**2 / (sigma**2 + data**2), sigma * data / math.hypot(sigma, data)
            return (x0 - skip * x) / (out if process.prediction == "edm" else -out)


class Sampling:
    """One run of a scheduler from the asked start; `exact=False` leaves out `before_step`."""

    def __init__(self, name: str, start: float, exact: bool = True) -> None:
        self.name, self.exact = name, exact
        self.scheduler = CASES[name].build(STEPS)
        self.process = ForwardProcess.of(self.scheduler, kind="ve" if name == "cosmos2" else None)
        if name in SIGMA_ONLY:
            asked = {"sigma": start * self.scheduler.sigmas[0].item()}
        else:
            asked = {"start": start}
        self.grid = respace(self.scheduler, self.process, **asked)
        install(self.scheduler, self.grid)
        visited = range(0, len(self.grid.timesteps), self.grid.order)
        self.levels = [self.process.alpha_sigma(0, step=k) for k in visited] + [self.end()]

    def end(self) -> Level:
        """The level at which sampling ends: clean, but for solvers that stop at the lowest trained one."""
        if self.name == "tcd":
            return self.process.alpha_sigma(0)
        if self.grid.sigmas is None:
            final = float(getattr(self.scheduler, "final_alpha_cumprod", 1.0))
            return math.sqrt(final), math.sqrt(1 - final)
        sigma = self.grid.sigmas[-1].item()
        alpha = {"flow": 1 - sigma, "vp_sigma": 1 / math.hypot(1, sigma)}.get(self.process.kind, 1.0)
        return alpha, sigma * alpha if self.process.kind == "vp_sigma" else sigma

    def run(self, x: torch.Tensor) -> torch.Tensor:
        old = None
        generator = torch.Generator().manual_seed(0)
        for step, t in enumerate(self.grid.timesteps):
            self.scheduler.is_scale_input_called = True  # the oracle needs no scaled input
            output = exact_output(self.process, x, self.process.alpha_sigma(t, step=step))
            if self.exact:
                before_step(self.scheduler, self.grid, step)
            if self.name == "cogvideox-dpm":
                back = self.grid.timesteps[step - 1] if step else None
                x, old = self.scheduler.step(output, old, t, back, x, generator=generator, return_dict=False)
                continue
            chosen: dict[str, Any] = {"eta": 0.0} if self.name == "tcd" else {}
            if self.name in ANCESTRAL + CONSISTENCY + STOCHASTIC_HIGHER_ORDER:
                chosen["generator"] = generator
            x = self.scheduler.step(output, t, x, return_dict=False, **chosen)[0]
        return x

    def affine_result(self) -> tuple[float, float]:
        """Mean and variance that a deterministic solver makes of the exact marginal at the start."""
        mean, variance = marginal(self.levels[0])
        start = torch.tensor([mean, mean + math.sqrt(variance)]).view(1, 2, 1, 1)
        middle, above = self.run(start).double().flatten().tolist()
        return middle, (above - middle) ** 2

    def sampled_result(self) -> tuple[float, float]:
        mean, variance = marginal(self.levels[0])
        noise = torch.randn(SAMPLES, generator=torch.Generator().manual_seed(1))
        x = self.run((mean + math.sqrt(variance) * noise).view(1, -1, 1, 1)).double()
        return x.mean().item(), x.var().item()


def along(levels: list[Level], update: Callable[[Level, Level, float, float], Level]) -> Level:
    """Mean and variance after stepping down `levels` from the exact marginal; `update` maps the two over one step."""
    mean, variance = marginal(levels[0])
    for here, there in zip(levels, levels[1:], strict=False):
        mean, variance = update(here, there, mean, variance)
    return mean, variance


def slopes(level: Level) -> Level:
    """d x0 / d x and d eps / d x of the posterior means."""
    alpha, sigma = level
    variance = marginal(level)[1]
    return alpha * VARIANCE / variance, sigma / variance


def ode(here: Level, there: Level, mean: float, variance: float) -> Level:
    """The first-order deterministic step, alike for DDIM, Euler and flow: alpha' x0 + sigma' eps (DDIM, Eq. 12)."""
    x0, eps = slopes(here)
    slope = there[0] * x0 + there[1] * eps
    return there[0] * MEAN + slope * (mean - here[0] * MEAN), slope**2 * variance


def ancestral(here: Level, there: Level, mean: float, variance: float) -> Level:
    """A draw from q(x' | x, x0), of precision 1 / sigma'^2 + ratio^2 / noise (DDPM, Eq. 7)."""
    if there[1] == 0:
        return ode(here, there, mean, variance)
    ratio = here[0] / there[0]
    noise = here[1] ** 2 - (ratio * there[1]) ** 2
    spread = 1 / (1 / there[1] ** 2 + ratio**2 / noise)
    slope = spread * (there[0] * slopes(here)[0] / there[1] ** 2 + ratio / noise)
    return there[0] * MEAN + slope * (mean - here[0] * MEAN), slope**2 * variance + spread


def consistency(here: Level, there: Level, mean: float, variance: float) -> Level:
    """x0, noised again."""
    slope = there[0] * slopes(here)[0]
    return there[0] * MEAN + slope * (mean - here[0] * MEAN), slope**2 * variance + there[1] ** 2


def assert_sampled(found: Level, expected: Level) -> None:
    """Within five standard errors of mean and variance."""
    assert found[0] == pytest.approx(expected[0], abs=5 * math.sqrt(expected[1] / SAMPLES))
    assert found[1] == pytest.approx(expected[1], rel=5 * math.sqrt(2 / SAMPLES))


def bias(levels: list[Level]) -> float:
    """Relative error in variance that the first-order solver has on these levels: the scale of discretisation."""
    return abs(along(levels, ode)[1] / marginal(levels[-1])[1] - 1)


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("name", FIRST_ORDER)
def test_first_order_solvers_follow_the_closed_form(name: str, start: float) -> None:
    sampling = Sampling(name, start)
    assert sampling.affine_result() == pytest.approx(along(sampling.levels, ode), rel=1e-4)


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("name", HIGHER_ORDER)
def test_higher_order_solvers_are_closer_to_the_truth(name: str, start: float) -> None:
    sampling = Sampling(name, start)
    mean, variance = sampling.affine_result()
    true_mean, true_variance = marginal(sampling.levels[-1])
    assert abs(variance / true_variance - 1) <= 0.75 * bias(sampling.levels)
    assert mean == pytest.approx(true_mean, rel=1e-4)


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("name", ANCESTRAL)
def test_ancestral_solvers_follow_the_closed_form(name: str, start: float) -> None:
    sampling = Sampling(name, start)
    assert_sampled(sampling.sampled_result(), along(sampling.levels, ancestral))


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("name", CONSISTENCY)
def test_consistency_solvers_follow_the_closed_form(name: str, start: float) -> None:
    sampling = Sampling(name, start)
    assert_sampled(sampling.sampled_result(), along(sampling.levels, consistency))


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("name", STOCHASTIC_HIGHER_ORDER)
def test_stochastic_higher_order_solvers_are_close_to_the_truth(name: str, start: float) -> None:
    sampling = Sampling(name, start)
    mean, variance = sampling.sampled_result()
    true_mean, true_variance = marginal(sampling.levels[-1])
    assert mean == pytest.approx(true_mean, abs=5 * math.sqrt(true_variance / SAMPLES))
    assert abs(variance / true_variance - 1) <= bias(sampling.levels) + 5 * math.sqrt(2 / SAMPLES)


@pytest.mark.parametrize("name", ["ddim", "ddim-trailing", "ddim-v-zsnr", "ddim-parallel", "cogvideox-ddim"])
def test_without_exact_steps_the_oracle_fails(name: str) -> None:
    """diffusers takes t - T // n as the previous timestep whatever `timesteps` says: the wrong variance, silently."""
    sampling = Sampling(name, 0.7, exact=False)
    assert sampling.affine_result()[1] != pytest.approx(along(sampling.levels, ode)[1], rel=0.05)
