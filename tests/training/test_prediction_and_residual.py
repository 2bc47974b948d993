"""Prediction and residual: the loss and the sampling against versions written by hand, and what cannot be."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

import unstill
from tests.pipelines import pipeline, random_pico
from tests.training.test_families import FRAMES, sample
from unstill.data.seeding import generator_for
from unstill.errors import UnstillError
from unstill.families.registry import training_for
from unstill.forward_process import ForwardProcess
from unstill.training.condition_noise import plan_of
from unstill.training.encoded_dataset import Encoder
from unstill.training.loss import ConditionDropout, Objective, batch_of
from unstill.training.noise_sampling import schedule_of
from unstill.training.prediction_and_residual import composed_errors
from unstill.training.recipe import check_recipe
from unstill.training.setup import check_condition


RECIPE = "model: {}\ncondition: {{method: prediction-and-residual}}\ntrain: {{steps: 1}}"


def test_loss_and_gradients_by_hand() -> None:
    """|free - x0|^2 + |sg[free] + r - x0|^2: the free pass learns from its own error alone."""
    free, residual, target = torch.randn(3, 2, 4, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    free.requires_grad_()
    residual.requires_grad_()
    errors = composed_errors(free, residual, target)
    expected = [((f - t) ** 2).mean() + ((f + r - t) ** 2).mean() for f, r, t in zip(free, residual, target)]  # noqa: B905
    torch.testing.assert_close(errors, torch.stack(expected))
    errors.sum().backward()
    elements = target[0].numel()
    torch.testing.assert_close(free.grad, 2 * (free - target).detach() / elements)
    torch.testing.assert_close(residual.grad, 2 * (free + residual - target).detach() / elements)


def test_a_composition_of_v_is_one_of_x0() -> None:
    """x0 = alpha x_t - sigma v for alpha^2 + sigma^2 = 1: free + r in v is free + residual in x0."""
    noisy, free, residual = torch.randn(3, 1, 4, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    alpha, sigma = 0.6, 0.8
    x0 = alpha * noisy - sigma * (free + residual)
    torch.testing.assert_close(x0, (alpha * noisy - sigma * free) + (-sigma * residual))


def objective(pipe: Any, family: Any, given: dict[str, Tensor], method: Any, drop: ConditionDropout) -> Objective:
    dropped = family.dropped(pipe, {name: value[0] for name, value in given.items()})
    return Objective(
        family, schedule_of(ForwardProcess.of(pipe.scheduler)), plan_of(family.name, method), drop, dropped
    )


@pytest.mark.parametrize("kind", ["pico", "svd"])
def test_a_step_by_hand(kind: str) -> None:
    """Both passes see the same noisy clip, level and caption; one of them sees no image, whatever is dropped."""
    pipe, size = (random_pico(), 64) if kind == "pico" else (pipeline("StableVideoDiffusionPipeline"), 16)
    family = training_for(pipe)
    network = copy.deepcopy(getattr(pipe, family.denoiser)).eval()
    with torch.no_grad():
        for parameter in network.parameters():  # some layers begin at zero
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    given = batch_of([Encoder(pipe, family)(sample(size, FRAMES), generator_for(i)) for i in range(2)], "cpu")
    made = objective(pipe, family, given, "prediction-and-residual", ConditionDropout(text=0.5, image=0.5))
    errors, levels = made.errors(network, given, [generator_for("clip", i) for i in range(2)])

    expected = []
    for i in range(2):
        g, x0 = generator_for("clip", i), given["latents"][[i]]
        level = made.schedule.at(torch.rand(1, generator=g))
        assert level.sigma == levels.sigma[i]
        text_is_dropped = torch.rand(2, generator=g)[0] < 0.5
        eps = torch.randn(x0.shape[1:], generator=g)[None]
        seen = {name: value[[i]] for name, value in given.items()}
        if "text" in seen and text_is_dropped:
            seen["text"] = torch.zeros_like(seen["text"])
        blind = {name: torch.zeros_like(v) if name in ("image", "tokens") else v for name, v in seen.items()}
        noisy, usual = level.model_input(level.noised(x0, eps)), torch.full((1,), family.usual_noise)
        free, r = (family.predict(network, noisy, level.timestep, one, usual) for one in (blind, seen))
        target = level.target(x0, eps)
        expected.append((free - target).square().mean() + (free + r - target).square().mean())
    torch.testing.assert_close(errors, torch.stack(expected), rtol=1e-4, atol=1e-5)


def test_sampling_adds_up_two_passes() -> None:
    """The network with the image plus the one without it, caption and motion level kept."""
    pipe = random_pico()
    call: dict[str, Any] = {"motion": 0.5, "motion_guidance_scale": 1.0, "prompt": "a red ring", "guidance_scale": 1.0}
    call |= {"num_frames": 4, "num_inference_steps": 3, "output_type": "latent"}
    image = torch.rand(1, 3, pipe.size, pipe.size, generator=torch.Generator().manual_seed(0))
    with unstill.apply(pipe, unstill.PredictionAndResidual()):
        found = pipe(image, generator=torch.Generator().manual_seed(1), **call).frames
    by_hand = random_pico()
    forward = by_hand.transformer.forward

    def both(x: Tensor, label: Any, words: Tensor, ids: Tensor, **_: Any) -> tuple[Tensor]:
        blind = x.clone()
        blind[:, :, x.shape[2] // 2 :] = 0
        passes = (forward(one, label, words, ids, return_dict=False)[0] for one in (blind, x))
        return (sum(passes),)  # type: ignore[return-value]

    by_hand.transformer.forward = both
    expected = by_hand(image, generator=torch.Generator().manual_seed(1), **call).frames
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_what_cannot_be_is_said() -> None:
    with pytest.raises(UnstillError, match="has no parameters; leave them out .*: maximum"):
        plan_of("pico", "prediction-and-residual", parameters={"maximum": 1.0})
    with pytest.raises(UnstillError, match="needs a model that works without its image, too, and WanImageToVideo"):
        check_condition(check_recipe(RECIPE.format("wan2.1-i2v-14b-480p"), "recipe"))
    check_condition(check_recipe(RECIPE.format("pico"), "recipe"))
    with pytest.raises(UnstillError, match="needs a model that was trained without its image, too, and Wan"):
        unstill.apply(pipeline("WanImageToVideoPipeline"), unstill.PredictionAndResidual())
