"""The forward process against what each diffusers scheduler itself computes."""

import copy
from typing import Any, get_args

import pytest
import torch
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    FlowMatchLCMScheduler,
    IPNDMScheduler,
    UniPCMultistepScheduler,
)

from tests.schedulers import CASES
from unstill.errors import UnstillError
from unstill.forward_process import ForwardProcess
from unstill.predictions import Prediction, affine, training_target


SHAPE = (2, 4, 3, 5, 5)


def draw(seed: int) -> torch.Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return ((a - b).abs().max() / b.abs().max()).item()


def process_of(name: str, scheduler: Any) -> ForwardProcess:
    return ForwardProcess.of(scheduler, kind="ve" if name == "cosmos2" else None)


def steps_of(scheduler: Any) -> list[int]:
    """First, middle and last step, on the first evaluation of two-evaluation solvers."""
    n = len(scheduler.timesteps)
    order = scheduler.order if len(getattr(scheduler, "sigmas", [])) else 1
    return sorted({0, n // 2 // order * order, (n - 1) // order * order})


def own_x0(scheduler: Any, step: int, output: torch.Tensor, sample: torch.Tensor, name: str) -> torch.Tensor:
    """x0 as the scheduler computes it, by whichever door it leaves open."""
    s, t = copy.deepcopy(scheduler), scheduler.timesteps[step]
    if hasattr(s, "step_index"):
        s._step_index = step
    if name.startswith("pndm"):  # a step to t < 0 is a step to abar = 1
        return s._get_prev_sample(sample, t, -1, output)
    if name == "lcm":
        return s.step(output, t, sample).denoised
    if name == "tcd":
        s.timesteps = s.timesteps[: step + 1]
        return s.step(output, t, sample, eta=0.0).prev_sample
    if name == "cogvideox-dpm":
        return s.step(output, None, t, None, sample, return_dict=False)[1]
    if hasattr(s, "convert_model_output"):
        return s.convert_model_output(output, sample=sample)
    if name.startswith(("flow", "cosmos2")):  # the step is x + (next - sigma) v, and ends on x0 where next = 0
        s.sigmas[step + 1] = 0
        return s.step(output, t, sample).prev_sample
    return s.step(output, t, sample).pred_original_sample


@pytest.mark.parametrize("name", CASES)
def test_kind(name: str) -> None:
    if name != "cosmos2":
        assert ForwardProcess.of(CASES[name].fresh()).kind == CASES[name].kind


@pytest.mark.parametrize("name", CASES)
def test_add_noise_is_the_schedulers(name: str) -> None:
    scheduler = CASES[name].build()
    process, x0, eps = process_of(name, scheduler), draw(0), draw(1)
    for step in steps_of(scheduler):
        t = scheduler.timesteps[step]
        if name == "cosmos2":  # its pipeline noises by hand
            expected = x0 + scheduler.sigmas[step] * eps
        elif name in ("sasolver-flow", "flow-ltx-rf"):  # add_noise without flow sigmas, or none; their steps know
            expected = (1 - scheduler.sigmas[step]) * x0 + scheduler.sigmas[step] * eps
        elif name == "flow-heun":  # its scale_noise indexes a scalar timestep only, with the last step index
            scheduler._step_index = step
            expected = scheduler.scale_noise(x0, t, eps)
        elif hasattr(scheduler, "scale_noise"):
            expected = scheduler.scale_noise(x0, t[None], eps)
        else:
            if hasattr(scheduler, "_begin_index"):
                scheduler._begin_index = step  # rounded timesteps may repeat: say which one
            expected = scheduler.add_noise(x0, eps, t[None])
        assert relative(process.add_noise(x0, eps, t, step=step), expected) <= 1e-6


@pytest.mark.parametrize("name", CASES)
def test_x0_is_the_schedulers(name: str) -> None:
    scheduler = CASES[name].build()
    process, output = process_of(name, scheduler), draw(2)
    for step in steps_of(scheduler):
        t = scheduler.timesteps[step]
        sample = draw(3) * max(1.0, process.alpha_sigma(t, step)[1])
        if name.startswith("pndm"):  # its formula cancels: in float32 the last bits depend on the processor
            output, sample = output.double(), sample.double()
        expected = own_x0(scheduler, step, output, sample, name)
        if name == "lcm":  # returns the consistency function of x0
            skip, out = scheduler.get_scalings_for_boundary_condition_discrete(t)
            mine = out * process.to_x0(output, sample, t) + skip * sample
        elif name == "tcd":  # the last step goes deterministically to t = 0, which is not clean
            mine = process.add_noise(process.to_x0(output, sample, t), process.to_eps(output, sample, t), 0)
        elif name.startswith("deis"):  # converts to eps instead
            mine = process.to_eps(output, sample, t, step=step)
        else:
            mine = process.to_x0(output, sample, t, step=step)
        assert relative(mine, expected) <= 1e-6


@pytest.mark.parametrize("name", CASES)
def test_conversions_agree_with_each_other(name: str) -> None:
    scheduler = CASES[name].build()
    process, output, sample, wide = process_of(name, scheduler), draw(4), draw(5), torch.float64
    output, sample = output.to(wide), sample.to(wide)
    for step in steps_of(scheduler):
        t = scheduler.timesteps[step]
        alpha, sigma = process.alpha_sigma(t, step)
        if alpha < 1e-3:
            continue
        x0, eps = process.to_x0(output, sample, t, step), process.to_eps(output, sample, t, step)
        assert relative(alpha * x0 + sigma * eps, sample) <= 1e-9
        assert relative(process.from_x0(x0, sample, t, step), output) <= 1e-6
        delta = draw(6).to(wide)
        corrected = process.correct(output, delta, sample, t, step)
        assert relative(process.to_eps(corrected, sample, t, step) - eps, delta) <= 1e-6


@pytest.mark.parametrize("name", ["kdpm2", "kdpm2-ancestral"])
def test_midpoints_of_two_evaluation_solvers(name: str) -> None:
    """On odd steps the sample stands at the interpolated level: the level by which the model input is scaled there."""
    scheduler = CASES[name].build()
    process, sample = ForwardProcess.of(scheduler), draw(0)
    for step in (1, 5):
        scheduler._step_index, scheduler.sample = step, sample
        sigma = process.alpha_sigma(scheduler.timesteps[step], step)[1]
        scaled = scheduler.scale_model_input(sample, scheduler.timesteps[step])
        assert relative(sample / (sigma**2 + 1) ** 0.5, scaled) <= 1e-6


@pytest.mark.parametrize("name", CASES)
def test_step_and_timestep_name_the_same_level(name: str) -> None:
    scheduler = CASES[name].build()
    process = process_of(name, scheduler)
    for step in steps_of(scheduler):
        t = scheduler.timesteps[step]
        assert process.alpha_sigma(t, step) == pytest.approx(process.alpha_sigma(t), rel=1e-6)


@pytest.mark.parametrize("name", ["euler", "dpm++", "euler-svd", "edm", "flow", "ddim"])
def test_levels_off_the_schedule(name: str) -> None:
    """A timestep means the same level whether the current schedule visits it or not."""
    visited, fresh = CASES[name].build(7), CASES[name].fresh()
    for t in visited.timesteps[[0, 3, 6]]:
        expected, found = ForwardProcess.of(visited).alpha_sigma(t), ForwardProcess.of(fresh).alpha_sigma(t)
        assert found == pytest.approx(expected, rel=2e-6)


def test_a_new_schedule_is_noticed() -> None:
    scheduler = CASES["flow"].build(10)
    process = ForwardProcess.of(scheduler)
    process.alpha_sigma(0, step=3)
    scheduler.set_timesteps(4)
    assert process.alpha_sigma(0, step=3)[1] == scheduler.sigmas[3].item()
    scheduler.sigmas[3] = 0.125  # in place, as Cosmos 2 does
    assert process.alpha_sigma(0, step=3) == (0.875, 0.125)


def test_inside_inference_mode() -> None:
    with torch.inference_mode():
        scheduler = CASES["flow"].build(10)
        assert ForwardProcess.of(scheduler).alpha_sigma(0, step=3)[1] == scheduler.sigmas[3].item()


def test_gain_diverges_with_one_over_alpha() -> None:
    assert affine("v_prediction", 0.6, 0.8).eps_output == pytest.approx(0.6)
    scheduler = CASES["ddim-v-zsnr"].build()
    process, x = ForwardProcess.of(scheduler), draw(0)
    t = scheduler.timesteps[0]
    assert process.alpha_sigma(t)[0] == 0 and process.gain(t) == float("inf")
    with pytest.raises(UnstillError, match="skip this step"):
        process.correct(x, x, x, t)
    assert torch.isfinite(process.to_x0(x, x, t)).all() and torch.isfinite(process.to_eps(x, x, t)).all()
    alpha = process.alpha_sigma(scheduler.timesteps[1])[0]
    assert process.gain(scheduler.timesteps[1]) == pytest.approx(1 / alpha)


def test_half_precision_stays_half_and_computes_in_float32() -> None:
    process = ForwardProcess.of(CASES["euler-svd"].build())
    t = process.scheduler.timesteps[0]
    output, sample = draw(0).half(), (700 * draw(1)).half()
    x0 = process.to_x0(output, sample, t)
    assert x0.dtype == torch.float16
    assert torch.equal(x0, process.to_x0(output.float(), sample.float(), t).half())
    assert process.to_x0(output, sample.float(), t).dtype == torch.float32
    assert process.correct(output, draw(2), sample.float(), t).dtype == torch.float16


def test_errors_say_what_to_do() -> None:
    with pytest.raises(UnstillError, match="IPNDMScheduler has no forward process.*kind="):
        ForwardProcess.of(IPNDMScheduler())
    with pytest.raises(UnstillError, match="not a kind"):
        ForwardProcess.of(CASES["ddim"].fresh(), kind="vpp")  # type: ignore[arg-type]
    for cls, config in ((FlowMatchEulerDiscreteScheduler, {"stochastic_sampling": True}), (FlowMatchLCMScheduler, {})):
        with pytest.raises(UnstillError, match="an inverted sigma"):
            ForwardProcess.of(cls(invert_sigmas=True, **config))
    with pytest.raises(UnstillError, match="no alphas_cumprod"):
        ForwardProcess.of(FlowMatchEulerDiscreteScheduler(), kind="vp")
    with pytest.raises(UnstillError, match="does not go with"):
        ForwardProcess.of(UniPCMultistepScheduler(use_flow_sigmas=True, prediction_type="v_prediction"))


@pytest.mark.parametrize("prediction", get_args(Prediction))
def test_training_targets_are_the_outputs_that_mean_the_clip(prediction: Prediction) -> None:
    flow = 0.3, 0.7
    alpha, sigma = {"flow_prediction": flow, "reversed_flow": flow, "edm": (1.0, 0.7), "edm_v": (1.0, 0.7)}.get(
        prediction, (0.6, 0.8)
    )
    data = 0.5 if prediction.startswith("edm") else 1.0
    x0, eps = torch.randn(2, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    levels = torch.tensor([alpha, sigma], dtype=torch.float64)
    output, x = training_target(prediction, *levels, x0, eps, data), alpha * x0 + sigma * eps
    c = affine(prediction, alpha, sigma, data)
    torch.testing.assert_close(c.x0_sample * x + c.x0_output * output, x0)
    torch.testing.assert_close(c.eps_sample * x + c.eps_output * output, eps)
