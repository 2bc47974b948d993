"""LTX-Video: noise on its image, the timestep of that frame, and the shift of its levels."""

from typing import Any

import diffusers
import pytest
import torch

from tests import pipelines as tiny
from tests.training.test_families import PIPELINES, Recorder, sample
from unstill.data.sources import generator_for
from unstill.errors import UnstillError
from unstill.families.registry import training_for
from unstill.forward_process import ForwardProcess
from unstill.training import setup
from unstill.training.condition_noise import ConstantNoise, Plan, plan_of
from unstill.training.encoded_dataset import Encoder
from unstill.training.loss import ConditionDropout, Objective, batch_of
from unstill.training.noise_sampling import schedule_of
from unstill.training.recipe import Recipe
from unstill.training.setup import schedule_for


def test_its_own_image_noise_is_a_constant_noise_of_exponent_2() -> None:
    """`image_cond_noise_scale` of LTXConditionPipeline adds scale t^2 eps to the image, whose timestep stays 0."""
    g = torch.Generator().manual_seed(0)
    image = torch.randn(1, 8, 1, 4, 4, generator=g)
    ours, level = ConstantNoise(maximum=0.15, exponent=2.0).corrupt(image, 0.6, torch.Generator().manual_seed(1))
    packed, mask = image.flatten(2).transpose(1, 2), torch.ones(1, 16)
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(1)).flatten(2).transpose(1, 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("diffusers.pipelines.ltx.pipeline_ltx_condition.randn_tensor", lambda *_, **__: noise)
        theirs = diffusers.LTXConditionPipeline.add_noise_to_image_conditioning_latents(
            0.6, packed, packed, 0.15, mask, None
        )
    torch.testing.assert_close(ours.flatten(2).transpose(1, 2), theirs)
    assert level.item() == pytest.approx(0.15 * 0.36)


def _call(plan: Plan) -> dict[str, Any]:
    torch.manual_seed(0)
    pipe = PIPELINES["ltx"][0]()
    family = training_for(pipe)
    given = batch_of([Encoder(pipe, family)(sample(32, 9), generator_for(0))], "cpu")
    recorder = Recorder(pipe.transformer)
    schedule = schedule_for(pipe, family, given["latents"].shape[1:])
    objective = Objective(family, schedule, plan, ConditionDropout(), {}, None)
    with torch.no_grad():
        objective.errors(recorder, given, [generator_for("clip", 0)])
    return {**recorder.calls[0], "image": given["image"].flatten(2).transpose(1, 2)}


@pytest.mark.parametrize("method", ["constant", "time-noise", "mix", "conditioning-augmentation"])
def test_the_timestep_of_the_image_is_the_level_of_its_noise(method: Any) -> None:
    """Where the network is given the level: the image is (1 - s) y + s eps at timestep 1000 s, as the frames are."""
    parameters = {"maximum": 0.5, "exponent": 0.0} if method == "constant" else {}
    parameters |= {"maximum": 0.9} if method in ("conditioning-augmentation", "time-noise") else {}
    process = ForwardProcess.of(tiny.ltx().scheduler)
    given = {"parameters": parameters, "process": process, "image_is_frame": True}
    call = _call(plan_of("ltx", method, condition_on_level=True, **given))
    told = call["timestep"][0, :64]
    assert (told == told[0]).all() and 0 < told[0] < 1000
    if method == "constant":
        assert told[0].item() == pytest.approx(1000 / 3)
    s = told[0] / 1000
    noise = (call["hidden_states"][:, :64] - (1 - s) * call["image"]) / s
    assert abs(noise.mean()) < 0.2 and noise.std().item() == pytest.approx(1, abs=0.15)

    silent = _call(plan_of("ltx", method, condition_on_level=False, **given))
    assert (silent["timestep"][0, :64] == 0).all()


@pytest.mark.parametrize("kind", ["exponential", "linear"])
def test_levels_are_shifted_by_the_number_of_tokens_as_in_sampling(kind: str) -> None:
    """The sigmas that the pipeline visits, without their stretching to `shift_terminal`."""
    pipe = tiny.ltx(use_dynamic_shifting=True, base_shift=0.95, max_shift=2.05, time_shift_type=kind)
    family, shape = training_for(pipe), torch.Size((8, 11, 16, 22))
    tokens = 12 * 16 * 22
    mu = 0.95 + 1.1 * (tokens - 256) / (4096 - 256)
    pipe.scheduler.set_timesteps(sigmas=[1.0, 0.75, 0.5, 0.25], mu=mu)
    schedule = schedule_of(ForwardProcess.of(pipe.scheduler), shift=family.shift(pipe, shape))
    torch.testing.assert_close(schedule.at(torch.tensor([0.75, 0.5, 0.25])).sigma, pipe.scheduler.sigmas[1:4])
    assert family.shift(tiny.ltx(shift=3.0), shape) is None


def test_a_shift_that_no_rule_is_known_for() -> None:
    with pytest.raises(UnstillError, match="by the size of the video"):
        schedule_of(ForwardProcess.of(tiny.ltx(**tiny.LTX_LEVELS).scheduler))


def test_clips_and_conditions_that_do_not_go_with_an_image_that_is_a_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = tiny.ltx()
    with pytest.raises(UnstillError, match="the first frame is the image; give 5 or more"):
        training_for(pipe).check_clip(pipe, 1, (32, 32))
    monkeypatch.setattr("unstill.models.registry.load", lambda *_, **__: pipe)
    recipe = Recipe.model_validate(
        {"model": "ltx-video", "data": {"videos": "world", "condition_frame": "random"}, "train": {"steps": 1}}
    )
    with pytest.raises(UnstillError, match="is the first frame of the video itself; leave it out"):
        setup.opened(recipe)
