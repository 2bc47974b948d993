"""The losses against the official training steps, and what they have in common with the forward processes."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests import pipelines as tiny
from tests.models.weights import DC_TINY, with_golden_weights
from unstill.errors import UnstillError
from unstill.families.dynamicrafter import DynamiCrafterTraining
from unstill.families.registry import training_for
from unstill.families.svd import SVDTraining
from unstill.forward_process import ForwardProcess
from unstill.methods.time_noise import corrupt, sample_level
from unstill.models.dynamicrafter import DynamiCrafterScheduler, DynamiCrafterUNet
from unstill.training.loss_weights import denoising
from unstill.training.noise_sampling import EDM, Flow, VariancePreserving, schedule_of


GOLDEN = Path(__file__).parents[1] / "golden" / "training"


def test_the_official_dynamicrafter_step() -> None:
    """v-prediction, zero terminal SNR, dynamic rescale, TimeNoise; through the family's own call of the network."""
    g = load_file(GOLDEN / "dynamicrafter_step.safetensors")
    schedule = schedule_of(ForwardProcess.of(DynamiCrafterScheduler()))
    assert isinstance(schedule, VariancePreserving)
    levels = schedule.of_steps(g["t"])
    beta = sample_level(levels.time, 100.0, 5.0, g["normal_for_beta"])
    torch.testing.assert_close(beta, g["beta_s"])
    image = corrupt(g["cond_latent_clean"].expand(-1, -1, 4, -1, -1), beta, g["cond_noise"])
    noisy = levels.noised(g["x0"], g["noise"])
    seen = torch.cat([levels.model_input(noisy), image], 1)
    torch.testing.assert_close(seen, g["unet_input"], rtol=1e-5, atol=2e-5)
    torch.testing.assert_close(levels.target(g["x0"], g["noise"]), g["target_v"], rtol=1e-5, atol=2e-6)

    unet = with_golden_weights(DynamiCrafterUNet(**DC_TINY), 1234)
    given = {"image": image, "text": g["context"][:, :77], "tokens": g["context"][:, 77:], "fps": g["fs"]}
    with torch.no_grad():
        output = DynamiCrafterTraining().predict(unet, levels.model_input(noisy), levels.timestep, given, beta)
    torch.testing.assert_close(output, g["unet_output"], rtol=1e-4, atol=1e-4)
    loss = denoising(output, g["x0"], g["noise"], levels).mean()
    torch.testing.assert_close(loss, g["loss"][0], rtol=1e-5, atol=0)


def test_the_official_svd_loss() -> None:
    """EDM with weight (sigma^2 + 1) / sigma^2, which our unweighted error of v has to equal; t = sigma / 700."""
    g = load_file(GOLDEN / "svd_step.safetensors")
    levels = EDM(-1.2, 1.2, time="released").of_sigmas(g["sigma"])
    beta = sample_level(levels.time, 15.0, 5.0, g["normal_for_beta"])
    torch.testing.assert_close(beta, g["beta_s"])
    x0, noise = g["latents"].transpose(1, 2), g["noise"].transpose(1, 2)
    clean = g["cond_latents_clean_unscaled"].transpose(1, 2)
    given = {
        "image": corrupt(clean, beta, g["cond_noise_scalar"].view(-1, 1, 1, 1, 1)),
        "tokens": torch.zeros(2, 1, 8),
        "fps": torch.full((2,), 4.0),  # the pipeline tells one less, the official training the rate itself: 3
        "motion": torch.full((2,), 20.0),
    }
    calls: list[Any] = []

    def network(x: Tensor, t: Tensor, tokens: Tensor, ids: Tensor, return_dict: bool) -> tuple[Tensor]:
        calls.append((x, t, ids))
        return (torch.tanh(0.4 * x[:, :, :4] - 0.02 * x[:, :, 4:] + 0.1 * t.view(-1, 1, 1, 1, 1)),)

    output = SVDTraining().predict(network, levels.model_input(levels.noised(x0, noise)), levels.timestep, given, beta)
    x, c_noise, ids = calls[0]
    torch.testing.assert_close(x, g["unet_input"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(c_noise, g["c_noise"])
    torch.testing.assert_close(ids, g["added_time_ids"])
    loss = denoising(output, x0, noise, levels).mean()
    torch.testing.assert_close(loss, g["loss"][0], rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    "scheduler",
    [
        diffusers.DDIMScheduler(prediction_type="epsilon"),
        diffusers.DDIMScheduler(prediction_type="v_prediction", rescale_betas_zero_snr=True),
        diffusers.DDPMScheduler(prediction_type="sample"),
        diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        tiny._flow_unipc(),
        tiny._cogvideox_scheduler(diffusers.CogVideoXDDIMScheduler),
    ],
    ids=lambda s: type(s).__name__,
)
def test_training_and_sampling_agree_on_the_forward_process(scheduler: Any) -> None:
    """The right answer at a level, handed to the sampler's own conversion at that timestep, is the clip."""
    process = ForwardProcess.of(scheduler)
    levels = schedule_of(process).at(torch.tensor([0.1, 0.6, 0.9]))
    g = torch.Generator().manual_seed(0)
    x0, eps = torch.randn(2, 3, 4, 2, 3, 3, generator=g)
    noisy, answer = levels.noised(x0, eps), levels.target(x0, eps)
    for i, t in enumerate(levels.timestep.tolist()):
        torch.testing.assert_close(process.to_x0(answer[i], noisy[i], t), x0[i], rtol=1e-3, atol=1e-3)
        alpha, sigma = process.alpha_sigma(t)
        torch.testing.assert_close(
            (levels.alpha[i].item(), levels.sigma[i].item()), (alpha, sigma), rtol=1e-3, atol=1e-5
        )
    assert denoising(answer, x0, eps, levels).max() == 0
    torch.testing.assert_close(denoising(answer + 2, x0, eps, levels), torch.full((3,), 4.0))


def test_svd_is_trained_as_it_is_sampled() -> None:
    scheduler = tiny.stable_video_diffusion().scheduler
    process, levels = ForwardProcess.of(scheduler), EDM().of_sigmas(torch.tensor([0.05, 3.0, 400.0]))
    x0, eps = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    noisy, answer = levels.noised(x0, eps), levels.target(x0, eps)
    for i, t in enumerate(levels.timestep.tolist()):
        torch.testing.assert_close(process.to_x0(answer[i], noisy[i], t), x0[i], rtol=1e-3, atol=1e-3)
        scheduler.set_timesteps(4)
    assert isinstance(schedule_of(process), EDM)


def test_training_time_is_spread_evenly_over_the_training_distribution() -> None:
    """u is the time for all kinds; for VP it is t / T as released, for plain flow matching sigma itself."""
    u = (torch.arange(1000) + 0.5) / 1000
    vp = schedule_of(ForwardProcess.of(diffusers.DDIMScheduler()))
    assert torch.equal(vp.at(u).timestep, torch.arange(1000.0))
    torch.testing.assert_close(vp.at(u).time, torch.arange(1000) / 1000)
    torch.testing.assert_close(Flow().at(u).sigma, u)
    for schedule in (EDM(-1.2, 1.2), Flow(shift=3.0), Flow(std=1.0)):
        levels = schedule.at(u)
        assert (levels.sigma.diff() > 0).all()
        torch.testing.assert_close(levels.time, u)
    log = EDM(-1.2, 1.2).at(u).sigma.log()
    assert log.mean().item() == pytest.approx(-1.2, abs=1e-3) and log.std().item() == pytest.approx(1.2, rel=5e-3)
    # Why the map is needed: with the released one TimeNoise does not know the time (facts: mu = -1 always).
    assert EDM(-1.2, 1.2, time="released").at(u).time.max() < 0.05


def test_a_timestep_of_the_zero_snr_schedule_is_pure_noise() -> None:
    schedule = schedule_of(ForwardProcess.of(DynamiCrafterScheduler()))
    levels = schedule.at(torch.tensor([0.9999]))
    assert levels.alpha.item() == pytest.approx(0, abs=1e-4) and levels.rescale.item() == pytest.approx(0.7)


def test_a_network_without_a_loss_is_refused() -> None:
    with pytest.raises(UnstillError, match="there is no loss here"):
        schedule_of(ForwardProcess.of(diffusers.EDMEulerScheduler()))
    with pytest.raises(UnstillError, match="cannot be trained here"):
        training_for(SimpleNamespace())
