"""Schedules that are only a list of sigmas: their rule is recognised, and they begin lower by the same rule."""

import numpy as np
import pytest
import torch
from diffusers import EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler

from unstill.errors import UnstillError
from unstill.forward_process import ForwardProcess
from unstill.respacing import respace
from unstill.sigma_schedule import respace_sigmas


def shifted(u: np.ndarray, shift: float) -> torch.Tensor:
    return torch.tensor(shift * u / (1 + (shift - 1) * u), dtype=torch.float32)


def unipc(steps: int) -> UniPCMultistepScheduler:
    scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=5.0)
    scheduler.set_timesteps(steps)
    return scheduler


def flow_match(steps: int) -> FlowMatchEulerDiscreteScheduler:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=7.0)
    scheduler.set_timesteps(sigmas=np.linspace(1, 0, steps + 1)[:-1])
    return scheduler


def karras(steps: int) -> EulerDiscreteScheduler:
    scheduler = EulerDiscreteScheduler(
        use_karras_sigmas=True, sigma_max=700.0, sigma_min=0.002, timestep_type="continuous",
        prediction_type="v_prediction",
    )  # fmt: skip
    scheduler.set_timesteps(steps)
    return scheduler


@pytest.mark.parametrize("make,start", [(unipc, 0.9), (flow_match, 0.85), (karras, 100.0)])
@pytest.mark.parametrize("steps", [4, 20, 33])
def test_the_same_levels_as_by_the_rule_of_the_scheduler(make: object, start: float, steps: int) -> None:
    scheduler = make(steps)  # type: ignore[operator]
    by_rule = respace(scheduler, ForwardProcess.of(scheduler), sigma=start).sigmas
    assert by_rule is not None
    made = respace_sigmas(scheduler.sigmas, start)
    torch.testing.assert_close(made, by_rule, rtol=2e-4, atol=2e-6)
    assert made[0] == torch.tensor(start)


def test_a_table_rounded_down_counts_as_the_ramp_it_rounds() -> None:
    # ComfyUI's `simple`: 30 steps of a table of 1000, whose indices are rounded down.
    table = shifted(np.arange(1, 1001) / 1000, 8.0)
    sigmas = torch.stack([*[table[-(1 + int(k * 1000 / 30))] for k in range(30)], torch.tensor(0.0)])
    exact = shifted(np.linspace(1, 0, 31), 8.0)
    made = respace_sigmas(sigmas, 0.95)
    torch.testing.assert_close(made, respace_sigmas(exact, 0.95), rtol=0, atol=8e-3)


@pytest.mark.parametrize("start", [0.3, 0.5, 0.92])
@pytest.mark.parametrize("kind", ["beta", "cosine", "two steps", "one step"])
def test_any_falling_levels_keep_their_number_and_their_ends(kind: str, start: float) -> None:
    u = np.linspace(1, 0, 13)
    levels = {
        "beta": u**2 * (3 - 2 * u),
        "cosine": np.sin(u * np.pi / 2),
        "two steps": np.array([1.0, 0.6, 0]),
        "one step": np.array([1.0, 0]),
    }[kind]
    sigmas = torch.tensor(levels, dtype=torch.float32)
    made = respace_sigmas(sigmas, start)
    assert len(made) == len(sigmas) and made[0] == torch.tensor(start) and made[-1] == 0
    assert (made.diff() < 0).all()


def test_the_first_level_changes_nothing() -> None:
    sigmas = shifted(np.linspace(1, 0, 9), 3.0)
    assert respace_sigmas(sigmas, 1.0) is sigmas


@pytest.mark.parametrize(
    "sigmas,start,message",
    [
        ([1.0, 0.5, 0.0], 1.1, "goes from 1 down to 0"),
        ([1.0, 0.5, 0.2], 0.2, "above 0.2 and at most 1"),
        ([1.0, 0.5, 0.0], float("nan"), "out of range"),
        ([0.5, 1.0, 0.0], 0.4, "each below the one before"),
        ([1.0], 0.4, "two or more"),
        ([1.0, float("nan"), 0.0], 0.4, "each below the one before"),
    ],
)
def test_refusals(sigmas: list[float], start: float, message: str) -> None:
    with pytest.raises(UnstillError, match=message):
        respace_sigmas(torch.tensor(sigmas), start)
