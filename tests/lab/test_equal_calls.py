"""How many calls a method costs, and plain sampling for as many."""

import re
from typing import Any

import pytest
import torch

import unstill
from tests.pipelines import CASES, pico, pipeline, random_pico, sample
from unstill.lab.equal_calls import count_rows, equal_steps
from unstill.methods.base import Method


def computed(pipe: Any, network: torch.nn.Module, call: dict[str, Any], *methods: Method) -> int:
    """Rows that a network really computes."""
    rows = [0]
    handle = network.register_forward_pre_hook(
        lambda module, args, kwargs: rows.__setitem__(0, rows[0] + len((*args, *kwargs.values())[0])), with_kwargs=True
    )
    try:
        with unstill.apply(pipe, *methods):
            pipe(**call, generator=torch.Generator().manual_seed(0), output_type="latent")
    finally:
        handle.remove()
    return rows[0]


@pytest.mark.parametrize(
    ("methods", "steps"),
    [
        ([], 5),
        ([unstill.EarlyStart(sigma=20.0)], 5),
        ([unstill.PredictAndPerturb(repeats=3, until=0.4)], 11),
        ([unstill.ImageGuidance(scale=2.0)], 9),
        ([unstill.FreeInit(iterations=3)], 15),
        ([unstill.ReferenceBias(gamma=2.0, steps=1.0), unstill.PredictAndPerturb(repeats=1, until=0.2)], 6),
    ],
    ids=lambda value: (
        str(value) if isinstance(value, int) else "+".join(type(one).__name__ for one in value) or "plain"
    ),
)
def test_steps_for_as_many_calls(methods, steps) -> None:
    pipe = pico()
    call = {"image": torch.full((1, 3, 64, 64), 0.5), "guidance_scale": 1.0, "num_frames": 3, "num_inference_steps": 5}
    assert equal_steps(pipe, call, methods) == (5, steps)


@pytest.mark.parametrize(
    ("name", "component", "method"),
    [
        ("StableVideoDiffusionPipeline", "unet", unstill.PredictAndPerturb(repeats=2, until=0.5)),
        ("WanImageToVideoPipeline", "transformer", unstill.LowPassGuidance(until=1.0)),
        ("CogVideoXImageToVideoPipeline", "transformer", unstill.LowPassGuidance(until=1.0)),
    ],
)
def test_the_count_is_that_of_a_real_run_which_it_leaves_as_it_was(name, component, method) -> None:
    case, pipe = CASES[name], pipeline(name)
    call, plain = {"num_inference_steps": 3, **case.call}, sample(case, pipe)
    network = getattr(pipe, component)
    assert count_rows(pipe, call, [method]) == computed(pipe, network, call, method)
    assert "forward" not in vars(network) and torch.equal(sample(case, pipe), plain)


def test_where_not_every_step_has_the_same_passes_it_is_no_fewer_rows() -> None:
    """pico guides the motion level in some steps only."""
    pipe = pico()
    call = {"image": torch.full((1, 3, 64, 64), 0.5), "guidance_scale": 1.0, "num_frames": 3, "num_inference_steps": 6}
    call["motion"] = 0.3
    method = unstill.ImageGuidance(scale=2.0)
    _, steps = equal_steps(pipe, call, [method])
    rows = [count_rows(pipe, {**call, "num_inference_steps": n}) for n in (6, steps)]
    assert rows[0] > 6 and rows[1] >= count_rows(pipe, call, [method]) > rows[0]


def test_compare_adds_plain_sampling_at_equal_cost(tmp_path) -> None:
    random_pico().save_pretrained(tmp_path / "model")
    settings = ["predict-and-perturb:repeats=2|6,until=0.5", "early-start:sigma=20"]
    asked = {"model": str(tmp_path / "model"), "count": 1, "steps": 4, "frames": 3, "out": tmp_path / "out"}
    result = unstill.compare(settings, equal_calls=True, **asked)
    assert result is not None
    names = [row.setting for row in result.rows]
    assert names[0] == "plain" and len(names) == 6 and all(not row.failed for row in result.rows)
    few, many = (int(re.fullmatch(r"plain, (\d+) steps", name)[1]) for name in names[-2:])
    assert 4 < few < many
    plain = unstill.compare({"longer": ()}, **{**asked, "steps": few, "out": tmp_path / "longer"})
    assert plain is not None
    motion = {row.setting: row.means["motion"].value for row in (*result.rows, *plain.rows[1:])}
    assert motion["longer"] == motion[f"plain, {few} steps"] != motion["plain"]
