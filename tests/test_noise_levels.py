"""What `respace` promises of every scheduler, and what pipelines make of it."""

import copy
import inspect
import random
from typing import Any

import diffusers
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FlowMatchHeunDiscreteScheduler, FlowMatchLCMScheduler

import unstill
from tests import pipelines
from tests.schedulers import CASES, FLOW, LATENT_VP, Case
from unstill.errors import UnstillError
from unstill.forward_process import ForwardProcess
from unstill.methods.early_start import EarlyStart
from unstill.noise_schedule import Grid
from unstill.respacing import respace


SIGMA_ONLY = {"euler-svd", "edm", "edm-v", "edm-exponential", "edm-dpm++", "cosmos2"}
SPACINGS = {
    f"{name}-{spacing}": Case(CASES[name].cls, "ve", LATENT_VP | {"timestep_spacing": spacing})
    for name in ("euler", "euler-ancestral", "heun", "kdpm2", "kdpm2-ancestral")
    for spacing in ("linspace", "leading", "trailing")
}
MORE = {
    "flow-map": Case("FlowMapEulerDiscreteScheduler", "flow", {"shift": 3.0}),
    "unipc-flow-end": Case("UniPCMultistepScheduler", "flow", FLOW | {"final_sigmas_type": "sigma_min"}),
    "unipc-dynamic": Case(
        "UniPCMultistepScheduler", "flow", FLOW | {"use_dynamic_shifting": True, "time_shift_type": "exponential"}
    )._replace(schedule={"mu": 1.0}),
}
EVERY = {name: case for name, case in (CASES | SPACINGS | MORE).items() if not name.startswith("pndm")}


def shifted(case: Case, shift: float) -> Case:
    if case.schedule:
        return case._replace(schedule={"mu": float(torch.tensor(shift).log())})
    for key in ("shift", "flow_shift"):
        if key in case.config:
            return case._replace(config=case.config | {key: shift})
        if key in case.registered:
            return case._replace(registered=case.registered | {key: shift})
    return case


@pytest.mark.parametrize("name", EVERY)
def test_levels_stay_positive_fall_and_end_where_the_plain_schedule_ends(name: str) -> None:
    """Sampled from shifts 1 to 17, steps 1 to 50, starts .5 to .99. None of these is refused."""
    draw = random.Random(name)
    few = [(draw.randint(3, 17), steps) for steps in (1, 2, 3, 4, 6)]
    for shift, steps in [*few, (draw.randint(1, 17), draw.randint(5, 50)), (17, 13)]:
        scheduler = shifted(EVERY[name], float(shift)).build(steps)
        process = ForwardProcess.of(scheduler, kind="ve" if name == "cosmos2" else None)
        start = draw.uniform(0.5, 0.99)
        grid = respace(scheduler, process, **({"sigma": 80 * start} if name in SIGMA_ONLY else {"start": start}))
        told = f"shift {shift}, {steps} steps, start {start}"
        assert torch.isfinite(grid.nodes).all() and (grid.nodes.diff() < 0).all(), told
        assert grid.nodes[-1] >= 0 if grid.sigmas is None else grid.nodes[-1] > 0, told
        assert grid.timesteps.shape == scheduler.timesteps.shape, told
        if grid.sigmas is not None:
            own, plain = Grid.of(scheduler), scheduler.sigmas
            assert grid.sigmas.shape == plain.shape, told
            # DEIS and SASolver repeat the last level, whatever it is.
            end = grid.nodes[-1] if plain[-1] == own.nodes[-1] else plain[-1]
            assert grid.sigmas[-1].item() == pytest.approx(float(end)), told


@pytest.mark.parametrize(
    "cls", [FlowMatchEulerDiscreteScheduler, FlowMatchHeunDiscreteScheduler, FlowMatchLCMScheduler]
)
def test_few_flow_steps_under_a_large_shift(cls: type) -> None:
    """Even from u(.9) to the scheduler's own lowest level, then shifted: FlowMatchEuler(shift=5) at 4 steps."""
    scheduler: Any = cls(shift=5.0)
    scheduler.set_timesteps(4)
    grid = respace(scheduler, ForwardProcess.of(scheduler), start=0.9)
    assert grid.nodes.tolist() == pytest.approx([0.9, 0.7906, 0.5817, 0.0244], abs=5e-5)
    assert grid.timesteps[:: grid.order][0] == pytest.approx(900)


def test_a_shift_set_after_the_configuration_is_followed() -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=1.0)
    scheduler.set_shift(5.0)
    scheduler.set_timesteps(sigmas=[1.0, 0.75, 0.5, 0.25])
    grid = respace(scheduler, ForwardProcess.of(scheduler), start=0.9)
    even = torch.tensor([9 / 14 * k / 4 for k in (4, 3, 2, 1)], dtype=torch.float64)  # u(.9) = 9 / 14
    torch.testing.assert_close(grid.nodes, 5 * even / (1 + 4 * even), rtol=0, atol=1e-6)


@pytest.mark.parametrize("mu", [0.5, 1.6, 2.8])
@pytest.mark.parametrize("steps", [2, 3, 4])
def test_few_steps_of_a_dynamic_shift(steps: int, mu: float) -> None:
    """The ramp that pipelines give, begun at u(.9): `mu` is not told to `respace`."""
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    scheduler.set_timesteps(sigmas=[1 - k / steps for k in range(steps)], mu=mu)
    grid = respace(scheduler, ForwardProcess.of(scheduler), start=0.9)
    shift = float(torch.tensor(mu).exp())
    first = 0.9 / (shift - (shift - 1) * 0.9)
    even = [first * (steps - k) / steps for k in range(steps)]
    assert grid.nodes.tolist() == pytest.approx([shift * u / (1 + (shift - 1) * u) for u in even], abs=2e-5)


@pytest.mark.parametrize("name", ["deis-flow", "sasolver-flow"])
def test_solvers_that_repeat_their_last_level(name: str) -> None:
    scheduler = CASES[name].build(3)
    assert scheduler.sigmas[-1] == scheduler.sigmas[-2]
    grid = respace(scheduler, ForwardProcess.of(scheduler), start=0.5)
    # u = 3/12, 2/12, 1/12 under shift 3.
    assert grid.sigmas is not None
    assert grid.sigmas.tolist() == pytest.approx([0.5, 0.375, 3 / 14, 3 / 14], abs=1e-5)


@pytest.mark.parametrize("name", ["deis-flow", "sasolver-flow", "flow-ltx-rf"])
@pytest.mark.parametrize("steps", [1, 4])
def test_on_wan(name: str, steps: int) -> None:
    pipe = copy.copy(pipelines.pipeline("WanImageToVideoPipeline"))  # shares the networks
    pipe.scheduler = CASES[name].fresh()
    with unstill.apply(pipe, EarlyStart(start=0.9)) as applied:
        pipelines.sample(pipelines.CASES["WanImageToVideoPipeline"], pipe, num_inference_steps=steps)
        assert torch.isfinite(applied.sample).all()
        assert (Grid.of(pipe.scheduler).nodes[0], len(pipe.scheduler.timesteps)) == (pytest.approx(0.9), steps)


@pytest.mark.parametrize("name", sorted(SPACINGS) + ["ddim-linspace", "ddim", "edm-exponential"])
def test_one_step_visits_the_asked_level(name: str) -> None:
    scheduler = EVERY[name].build(1)
    process = ForwardProcess.of(scheduler)
    if name in SIGMA_ONLY:
        grid = respace(scheduler, process, sigma=20.0)
        assert grid.sigmas is not None and grid.sigmas.tolist() == pytest.approx([20.0, 0.0])
        return
    grid = respace(scheduler, process, start=0.9)
    assert grid.timesteps.tolist() == pytest.approx([899], abs=1e-3)
    if grid.sigmas is not None:
        abar = scheduler.alphas_cumprod[899].double()
        first, *rest = grid.sigmas.tolist()
        assert first == pytest.approx(float(((1 - abar) / abar).sqrt()), rel=1e-5) and set(rest) == {0.0}


@pytest.mark.parametrize("name", ["edm", "edm-dpm++"])
@pytest.mark.parametrize("sigma", [None, 20.0])
def test_edm_latents_have_the_deviation_of_the_level(name: str, sigma: float | None) -> None:
    """`init_noise_sigma` of EDM schedulers comes from the configuration: sqrt(sigma_max^2 + 1), here 200.0025."""
    case = CASES[name]
    pipe = copy.copy(pipelines.pipeline("AnimateDiffPipeline"))
    pipe.scheduler = case._replace(config=case.config | {"sigma_max": 200.0}).fresh()
    own = pipe.scheduler.init_noise_sigma
    expected = own if sigma is None else (sigma**2 + 1) ** 0.5
    with unstill.apply(pipe, *([] if sigma is None else [EarlyStart(sigma=sigma)])):
        scheduler, seen = pipe.scheduler, []
        own_scaling = scheduler.scale_model_input

        def scale_model_input(sample: torch.Tensor, timestep: Any) -> torch.Tensor:
            seen.append((scheduler.init_noise_sigma, sample.std().item()))
            return own_scaling(sample, timestep)

        scheduler.scale_model_input = scale_model_input
        for _ in range(2):
            seen.clear()
            pipelines.sample(pipelines.CASES["AnimateDiffPipeline"], pipe, num_inference_steps=3)
            assert seen[0] == (pytest.approx(expected, rel=1e-6), pytest.approx(expected, rel=0.15))
    assert pipe.scheduler.init_noise_sigma == own


def test_a_flow_schedule_of_unconverted_levels_is_refused() -> None:
    scheduler = Case("DPMSolverMultistepScheduler", "flow", FLOW | {"use_karras_sigmas": True}).build(5)
    with pytest.raises(UnstillError, match=r"visits sigma=157.407 with use_flow_sigmas=True, where levels end at 1"):
        respace(scheduler, ForwardProcess.of(scheduler), start=0.9)


def test_minimax_h3_names_what_is_opposite() -> None:
    pipe = copy.copy(pipelines.pipeline("WanImageToVideoPipeline"))  # shares the networks
    pipe.scheduler = Case("MiniMaxH3Scheduler", "flow", {}).fresh()
    with pytest.raises(UnstillError, match="velocity towards the data.*use FlowMatchEulerDiscreteScheduler"):
        unstill.apply(pipe, EarlyStart(start=0.9))


def scheduler_classes() -> dict[str, Any]:
    """Every scheduler class of diffusers that can be made without arguments."""
    found = {name: getattr(diffusers, name) for name in dir(diffusers) if name.endswith("Scheduler")}
    return {
        name: cls
        for name, cls in found.items()
        if isinstance(cls, type)
        and issubclass(cls, diffusers.SchedulerMixin)
        and all(
            parameter.default is not parameter.empty
            or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
            for parameter in inspect.signature(cls).parameters.values()
        )
    }


@pytest.mark.parametrize(("name", "cls"), scheduler_classes().items())
def test_every_scheduler_of_diffusers_is_spaced_anew_or_refused_in_a_sentence(name: str, cls: Any) -> None:
    scheduler = cls()
    try:
        process = ForwardProcess.of(scheduler)
    except UnstillError as error:
        assert name in str(error)
        return
    scheduler.set_timesteps(10)
    for level in ({"start": 0.9}, {"sigma": 0.9}, {"sigma": 20.0}):
        try:
            grid = respace(scheduler, process, **level)
        except UnstillError as error:
            assert name in str(error)
        else:
            assert len(grid.timesteps) == len(scheduler.timesteps)
