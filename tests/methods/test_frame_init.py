"""FrameInit against ConsistI2V, and in a sampler."""

from pathlib import Path

import diffusers
import pytest
import torch
from safetensors.torch import load_file

import unstill
from tests.methods.sampler import Sampler, animatediff_ddim
from unstill.errors import UnstillError
from unstill.forward_process import ForwardProcess
from unstill.methods.frame_init import FrameInit
from unstill.methods.frequency import low_pass, mix
from unstill.methods.noise_levels import diffuse, training_level
from unstill.methods.progressive_noise import progressive


GOLDEN = Path(__file__).parents[1] / "golden" / "methods" / "frame_init.safetensors"
FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}


@pytest.fixture(scope="module")
def golden():
    return load_file(GOLDEN)


def first_latents(scheduler, method, golden, size="even", methods=()):
    pipe = Sampler(scheduler, lambda x, t: 0.1 * x, golden[f"{size}.z0"])
    with unstill.apply(pipe, method, *methods):
        pipe(4, latents=golden[f"{size}.noise"])
    return pipe.visited[0]


@pytest.mark.parametrize("size", ["even", "odd"])
@pytest.mark.parametrize("filter", ["gaussian", "butterworth", "ideal", "box"])
def test_golden_first_latents(golden, size, filter):
    first = first_latents(animatediff_ddim(), FrameInit.preset("released", filter=filter), golden, size)
    torch.testing.assert_close(first, golden[f"{size}.frameinit.{filter}"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("level", "name"), [(0.85, "z_850"), (0.999, "z_999"), (1.0, "z_999")])
def test_golden_levels(golden, level, name):
    process = ForwardProcess.of(animatediff_ddim())
    image = golden["even.z0"].expand_as(golden["even.noise"])
    torch.testing.assert_close(diffuse(process, image, golden["even.noise"], level), golden[f"even.{name}"])


def test_the_scheduler_scales_the_latents_as_its_noise(golden):
    linear = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "linear"}
    vp = first_latents(animatediff_ddim(), FrameInit(), golden)
    scheduler = diffusers.EulerDiscreteScheduler(**linear)
    ve = first_latents(scheduler, FrameInit(), golden)
    scheduler.set_timesteps(4)
    torch.testing.assert_close(ve, vp * scheduler.init_noise_sigma, rtol=1e-5, atol=1e-5)


def test_flow_matching_counts_its_level_in_sigma(golden):
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    assert training_level(ForwardProcess.of(scheduler), 0.85) == (pytest.approx(0.15), 0.85)
    first = first_latents(scheduler, FrameInit(spatial=1e3, temporal=1e3), golden)  # lets everything pass
    torch.testing.assert_close(first, 0.15 * golden["even.z0"] + 0.85 * golden["even.noise"], rtol=1e-4, atol=1e-4)


def test_a_filter_that_passes_nothing_changes_nothing(golden):
    assert torch.equal(first_latents(animatediff_ddim(), FrameInit(spatial=0.0), golden), golden["even.noise"])


def test_with_rectification_frame_0_ends_on_the_image(golden):
    for methods in [
        (FrameInit(), unstill.NoiseRectification(period=(0, 1))),
        (unstill.NoiseRectification(period=(0, 1)), FrameInit()),
    ]:
        pipe = Sampler(animatediff_ddim(), lambda x, t: 0.5 * torch.tanh(x.roll(1, 2)), golden["even.z0"])
        with unstill.apply(pipe, *methods):
            final = pipe(25, latents=golden["even.noise"]).frames
        torch.testing.assert_close(pipe.visited[0], first_latents(animatediff_ddim(), FrameInit(), golden))
        torch.testing.assert_close(final[:, :, :1], golden["even.z0"], rtol=1e-3, atol=1e-4)


def test_correlated_noise_in_the_high_band_in_either_order(golden):
    noise = unstill.ProgressiveNoise()
    first = first_latents(animatediff_ddim(), FrameInit(), golden, methods=(noise,))
    own = progressive(golden["even.noise"][:, :, :1], golden["even.noise"], 2.0)
    low = diffuse(ForwardProcess.of(animatediff_ddim()), golden["even.z0"].expand_as(own), own, 0.85)
    torch.testing.assert_close(first, mix(low, own, low_pass((8, 8, 8), "gaussian", 0.25, 0.25)))
    pipe = Sampler(animatediff_ddim(), lambda x, t: 0.1 * x, golden["even.z0"])
    with unstill.apply(pipe, noise, FrameInit()):
        pipe(4, latents=golden["even.noise"])
    assert torch.equal(pipe.visited[0], first)


def test_what_is_refused(golden):
    with pytest.raises(UnstillError, match=r"in \(0, 1\], not 1.5"):
        FrameInit(level=1.5)
    with pytest.raises(UnstillError, match="is not a filter"):
        FrameInit(filter="sharp")
    pipe = Sampler(diffusers.FlowMatchEulerDiscreteScheduler(), None, golden["even.z0"])
    with pytest.raises(UnstillError, match="keeps nothing of a video .* give FrameInit a lower"):
        unstill.apply(pipe, FrameInit(level=1.0))
    pipe.scheduler = animatediff_ddim()
    with pytest.raises(UnstillError, match="both decide the first latents"):
        unstill.apply(pipe, FrameInit(), unstill.ImageStart())
    with pytest.raises(UnstillError, match="given twice"):
        unstill.apply(pipe, FrameInit(), FrameInit(level=0.5))


def test_edm_schedulers_count_training_time_along_their_ramp_of_levels():
    for schedule in ("karras", "exponential"):
        scheduler = diffusers.EDMEulerScheduler(sigma_min=0.02, sigma_max=200.0, sigma_schedule=schedule)
        scheduler.set_timesteps(11)  # levels at 1, 0.9, ... 0 of the ramp
        for step, share in ((0, 1.0), (2, 0.8), (10, 0.0)):
            alpha, sigma = training_level(ForwardProcess.of(scheduler), share)
            assert sigma / alpha == pytest.approx(scheduler.sigmas[step].item(), rel=1e-4)
            assert alpha**2 + sigma**2 == pytest.approx(1)
