"""NI-VSDS and its regeneration against the released I4VGen pipelines, and against its other form."""

from pathlib import Path

import diffusers
import pytest
import torch
from diffusers.schedulers import scheduling_ddpm
from safetensors.torch import load_file

import unstill
from tests.methods.sampler import Sampler, animatediff_ddim, network_c
from unstill.errors import UnstillError
from unstill.forward_process import ForwardProcess
from unstill.methods.base import Run
from unstill.methods.ni_vsds import NIVSDS, share, update, weight
from unstill.methods.noise_levels import signal_share


GOLDEN = Path(__file__).parents[1] / "golden" / "methods" / "ni_vsds.safetensors"


@pytest.fixture(scope="module")
def golden():
    return load_file(GOLDEN)


def lavie():
    return diffusers.DDPMScheduler(beta_start=0.0001, beta_end=0.02, clip_sample=False, timestep_spacing="leading")


@pytest.mark.parametrize(
    ("case", "scheduler", "guidance"),
    [("released", animatediff_ddim(), 7.5), ("paper", animatediff_ddim(), 7.5), ("lavie", lavie(), 7.0)],
)
def test_golden_distillation(golden, case, scheduler, guidance):
    process = ForwardProcess.of(scheduler)
    noise = golden[f"{case}.noise"]
    video = golden[f"{case}.static"].expand_as(noise)
    for i, t in enumerate(golden[f"{case}.timesteps"].tolist()):
        alpha, sigma = process.alpha_sigma(t)
        assert weight(alpha, sigma) == pytest.approx(golden[f"{case}.w"][i].item(), rel=1e-5)
        eps = network_c(process.add_noise(video, noise, t), t, guidance)
        video = update(video, eps, noise, weight(alpha, sigma), golden[f"{case}.step_size"][i].item())
        if i == 0:
            torch.testing.assert_close(video, golden[f"{case}.v_hat_1"], rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(video, golden[f"{case}.v_hat_last"], rtol=1e-5, atol=1e-4)
    first = process.add_noise(video, golden[f"{case}.regen_noise"], golden[f"{case}.regen_timesteps"][0].item())
    torch.testing.assert_close(first, golden[f"{case}.regen_first"], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(("alpha", "sigma"), [(0.05, 0.99875), (0.6, 0.8), (0.3, 0.7), (1.0, 12.0)])
def test_moves_a_share_of_the_way_to_the_predicted_video(alpha, sigma):
    generator = torch.Generator().manual_seed(0)
    video, eps, noise = torch.randn(3, 1, 2, 3, 4, 4, generator=generator, dtype=torch.float64)
    x0 = (alpha * video + sigma * noise - sigma * eps) / alpha
    moved = update(video, eps, noise, weight(alpha, sigma), 0.7)
    torch.testing.assert_close(moved, video + share(alpha, sigma, 0.7) * (x0 - video))


def test_nothing_moves_at_either_end_of_the_process():
    assert share(0.0, 1.0, 1.0) == 0 == share(1.0, 0.0, 1.0)


class Noises:
    """What `Run.draw` gives, in order."""

    def __init__(self, monkeypatch, *noises):
        draws = iter(noises)
        monkeypatch.setattr(Run, "draw", lambda run, shape: next(draws))


@pytest.mark.parametrize(
    ("case", "method", "scheduler", "steps", "guidance"),
    [
        ("released", NIVSDS.preset("released"), animatediff_ddim(), 25, 7.5),
        ("paper", NIVSDS(), animatediff_ddim(), 25, 7.5),
        ("lavie", NIVSDS.preset("released-lavie"), lavie(), 50, 7.0),
    ],
)
def test_golden_sampling(golden, monkeypatch, case, method, scheduler, steps, guidance):
    noise, static = golden[f"{case}.noise"], golden[f"{case}.static"]
    pipe = Sampler(scheduler, lambda z, t: network_c(z, t, guidance), static)
    Noises(monkeypatch, golden[f"{case}.regen_noise"])
    if case == "lavie":
        steps_noise = iter(golden["lavie.regen_step_noise"])
        monkeypatch.setattr(scheduling_ddpm, "randn_tensor", lambda *args, **kwargs: next(steps_noise))
    with unstill.apply(pipe, method) as applied:
        final = pipe(steps, latents=noise).frames
        visited = applied.run.grid.timesteps.tolist()
    iterations = len(golden[f"{case}.timesteps"])
    assert visited[:iterations] == golden[f"{case}.timesteps"].tolist()
    assert visited[iterations:] == golden[f"{case}.regen_timesteps"].tolist()
    torch.testing.assert_close(pipe.visited[iterations], golden[f"{case}.regen_first"], rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(final, golden[f"{case}.regen_last"], rtol=1e-5, atol=1e-4)


VP = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
ZERO_SNR = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
IMAGE = torch.randn(2, 4, 1, 6, 6, generator=torch.Generator().manual_seed(3))


def loop(scheduler, method, seed=0, steps=10, image=IMAGE):
    """A run on a small network, with what it visited."""
    pipe = Sampler(scheduler, lambda x, t: 0.3 * torch.tanh(x.roll(1, 2)) + 0.1, image, frames=5)
    with unstill.apply(pipe, method) as applied:
        final = pipe(steps, generator=torch.Generator().manual_seed(seed)).frames
    return pipe, applied, final


@pytest.mark.parametrize(
    "scheduler",
    [
        diffusers.DDIMScheduler(**VP, clip_sample=False, **ZERO_SNR),
        diffusers.DDIMScheduler(**VP, clip_sample=False, prediction_type="sample"),
        diffusers.DDPMScheduler(**VP, clip_sample=False),
        diffusers.EulerDiscreteScheduler(**VP, use_karras_sigmas=True),
        diffusers.DPMSolverMultistepScheduler(**VP),
        diffusers.DPMSolverSinglestepScheduler(**VP),
        diffusers.DEISMultistepScheduler(**VP),
        diffusers.UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0),
        diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
    ],
    ids=lambda scheduler: type(scheduler).__name__,
)
@pytest.mark.parametrize("regenerated", [10, 7])
def test_any_process_and_solver(scheduler, regenerated):
    # The loop by hand, in terms of x0; the regeneration is what the bare scheduler makes of the same latents.
    torch.manual_seed(1)
    pipe, applied, final = loop(scheduler, NIVSDS(regenerate=regenerated / 10))
    run, process = applied.run, ForwardProcess.of(scheduler)
    scheduler.set_timesteps(10)
    noise = torch.randn(2, 4, 5, 6, 6, generator=torch.Generator().manual_seed(0))
    iterations, skipped = len(run.grid.timesteps) - regenerated, 10 - regenerated
    assert torch.equal(run.grid.timesteps[:iterations], scheduler.timesteps[:iterations])
    assert torch.equal(run.grid.timesteps[iterations:], scheduler.timesteps[skipped:])

    video = IMAGE.expand_as(noise)
    for i, t in enumerate(scheduler.timesteps[:iterations]):
        noised = process.add_noise(video, noise, t, i)
        torch.testing.assert_close(pipe.visited[i], noised, rtol=1e-4, atol=1e-4)
        alpha, sigma = process.alpha_sigma(t, i)
        x0 = process.to_x0(pipe.network(noised, t), noised, t, i)
        video = video + share(alpha, sigma, 1.0) * (x0 - video)
    again = Sampler(scheduler, pipe.network, IMAGE, frames=5)
    x = pipe.visited[iterations]
    scheduler.set_timesteps(10)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(skipped)
    torch.manual_seed(1)  # DDPM draws
    for t in scheduler.timesteps[skipped:]:
        if hasattr(scheduler, "scale_model_input"):
            scheduler.scale_model_input(x, t)
        x = scheduler.step(again.network(x, t), t, x, return_dict=False)[0]
    assert torch.equal(final, x)


@pytest.mark.parametrize(
    ("scheduler", "first"),
    [
        (diffusers.FlowMatchEulerDiscreteScheduler(shift=5.0), 2),  # 1 and .978 come first
        (diffusers.FlowMatchEulerDiscreteScheduler(), 1),
        (diffusers.DDIMScheduler(**VP, clip_sample=False, **ZERO_SNR), 1),
        (diffusers.DDIMScheduler(**VP, clip_sample=False), 0),
        (diffusers.EulerDiscreteScheduler(**VP), 0),
    ],
)
def test_by_default_the_regeneration_keeps_something_of_the_image(scheduler, first, caplog):
    pipe, applied, final = loop(scheduler, NIVSDS())
    run, process = applied.run, ForwardProcess.of(scheduler)
    scheduler.set_timesteps(10)
    shares = [signal_share(*process.alpha_sigma(t, i)) for i, t in enumerate(scheduler.timesteps)]
    expected = next(i for i, share in enumerate(shares) if share >= 0.05) if shares[0] <= 1e-3 else 0
    assert torch.equal(run.grid.timesteps[-(10 - expected) :], scheduler.timesteps[expected:])
    assert expected == first
    assert ("regenerates from step" in caplog.text) == (expected > 0)
    if expected:
        assert f"step {expected + 1} of 10" in caplog.text and shares[expected] >= 0.05
        caplog.clear()
        loop(scheduler, NIVSDS(regenerate=1.0))
        assert "keeps nothing of the image" in caplog.text
    # two images give two videos
    other = loop(scheduler, NIVSDS(), image=IMAGE.flip(-1))[2]
    assert (final - other).abs().max() > 1e-3


def test_the_regeneration_draws_its_noise_from_the_generator():
    pipe, applied, final = loop(diffusers.DDIMScheduler(**VP, clip_sample=False), NIVSDS(step_size=0.0))
    generator = torch.Generator().manual_seed(0)
    first, fresh = (torch.randn(2, 4, 5, 6, 6, generator=generator) for _ in range(2))
    # With step size 0 the video stays the image.
    alpha, sigma = applied.run.process.alpha_sigma(applied.run.grid.timesteps[0])
    torch.testing.assert_close(pipe.visited[0], alpha * IMAGE + sigma * first)
    restart = len(pipe.visited) - 11
    torch.testing.assert_close(pipe.visited[restart], alpha * IMAGE + sigma * fresh)
    assert torch.equal(final, loop(pipe.scheduler, NIVSDS(step_size=0.0))[2])


def test_step_sizes_as_numbers_lists_and_functions():
    scheduler = diffusers.DDIMScheduler(**VP, clip_sample=False)
    by_list = loop(scheduler, NIVSDS(step_size=[2.0, 3.0, 0.5]))[2]
    by_function = loop(scheduler, NIVSDS(step_size=lambda i: (2.0, 3.0)[i] if i < 2 else 0.5))[2]
    assert torch.equal(by_list, by_function)
    assert torch.equal(loop(scheduler, NIVSDS(step_size=[1.0]))[2], loop(scheduler, NIVSDS())[2])
    assert not torch.equal(by_list, loop(scheduler, NIVSDS())[2])


@pytest.mark.parametrize(
    ("tau", "steps", "paper", "released"), [(0.4, 25, 15, 16), (0.4, 50, 30, 31), (0.44, 25, 14, 15)]
)
def test_which_levels_are_visited(tau, steps, paper, released):
    for counted, expected in [(False, paper), (True, released)]:
        _, applied, _ = loop(animatediff_ddim(), NIVSDS(tau=tau, counted=counted), steps=steps)
        assert len(applied.run.grid.timesteps) - steps == expected


def test_what_is_refused():
    with pytest.raises(UnstillError, match=r"tau in \[0, 1\)"):
        NIVSDS(tau=1.0)
    with pytest.raises(UnstillError, match="empty list"):
        NIVSDS(step_size=[])
    pipe = Sampler(diffusers.HeunDiscreteScheduler(), None, IMAGE)
    with pytest.raises(UnstillError, match="one model call per noise level, and HeunDiscreteScheduler makes 2"):
        unstill.apply(pipe, NIVSDS())
    pipe = Sampler(diffusers.PNDMScheduler(), None, IMAGE)
    with unstill.apply(pipe, NIVSDS()), pytest.raises(UnstillError, match="does not visit every level once"):
        pipe(10)
    pipe = Sampler(animatediff_ddim(), None, IMAGE)
    with pytest.raises(UnstillError, match="NIVSDS and NoiseRectification both act on every step"):
        unstill.apply(pipe, NIVSDS(), unstill.NoiseRectification())
    with pytest.raises(UnstillError, match="both decide the noise level"):
        unstill.apply(pipe, NIVSDS(), unstill.EarlyStart(start=0.9))
    with pytest.raises(UnstillError, match="both decide the first latents"):
        unstill.apply(pipe, unstill.FrameInit(), NIVSDS())
    with unstill.apply(pipe, NIVSDS(tau=0.99)), pytest.raises(UnstillError, match="no noise level above tau=0.99"):
        pipe(10)
