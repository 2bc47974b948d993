"""Noise rectification against the released pipeline, in every prediction type, and against its own algebra."""

from pathlib import Path

import diffusers
import pytest
import torch
from safetensors.torch import load_file

import unstill
from tests.methods.sampler import Sampler, animatediff_ddim
from unstill.errors import UnstillError
from unstill.forward_process import ForwardProcess
from unstill.methods.base import Target
from unstill.methods.checks import check_method
from unstill.methods.early_start import EarlyStart
from unstill.methods.noise_rectification import NoiseRectification, frame_weights, rectify, rectify_video, rectify_x0


GOLDEN = Path(__file__).parents[1] / "golden" / "methods" / "noise_rectification.safetensors"


@pytest.fixture(scope="module")
def golden():
    return load_file(GOLDEN)


def test_default_weights(golden):
    torch.testing.assert_close(frame_weights(8), golden["weights"])
    expected = [1, 0.9286, 0.8571, 0.7857, 0.7143, 0.6429, 0.5714, 0.5] + [0.5] * 8
    torch.testing.assert_close(frame_weights(16), torch.tensor(expected), rtol=0, atol=5e-5)
    # Odd numbers, at which the released code fails: the flat part takes the frame in the middle.
    assert frame_weights(7).tolist() == [1.0, 0.75, 0.5, 0.5, 0.5, 0.5, 0.5]
    assert frame_weights(1).tolist() == [0.5]
    assert frame_weights(4, start=0.8, end=0.2).tolist() == pytest.approx([0.8, 0.2, 0.2, 0.2])


def test_equation_8():
    generator = torch.Generator().manual_seed(0)
    eps, noise = torch.randn(2, 2, 3, 5, 4, 4, generator=generator)
    weights = torch.rand(5, generator=generator)
    gap = noise - eps
    w = weights[:, None, None]
    result = rectify(eps, noise, weights)
    torch.testing.assert_close(result, eps + w * gap[:, :, :1] + (1 - w) * gap)
    assert torch.equal(result[:, :, 0], noise[:, :, 0])
    assert torch.equal(rectify(eps, noise, torch.zeros(5)), noise)
    torch.testing.assert_close(rectify(eps, noise, torch.ones(5)), eps + gap[:, :, :1])


@pytest.mark.parametrize("period", [(0.6, 0.6), (0.7, 0.3), (-0.1, 0.5), (0.0, 1.1)])
def test_periods_that_are_none(period):
    with pytest.raises(UnstillError, match="non-empty range"):
        NoiseRectification(period=period)


def network_a(guidance):
    """Network A of the golden data."""

    def eps(z, t):
        unguided, guided = torch.tanh(0.5 * z - 0.0005 * t), torch.tanh(0.7 * z.roll(1, 2) + 0.001 * t)
        return guided if guidance <= 1 else unguided + guidance * (guided - unguided)

    return eps


def network_b(z, t, sigma):
    """Network B of the golden data, guided by 7.5."""
    unguided = sigma * z + 0.1 * torch.tanh(0.5 * z - 0.0005 * t)
    guided = sigma * z + 0.1 * torch.tanh(0.7 * z.roll(1, 2) + 0.001 * t)
    return unguided + 7.5 * (guided - unguided)


@pytest.mark.parametrize(
    ("case", "guidance", "methods"),
    [
        ("default", 7.5, [NoiseRectification()]),
        ("default_nocfg", 1.0, [NoiseRectification(weights=frame_weights(8).tolist())]),
        ("sdedit_none", 7.5, [unstill.ImageStart()]),
    ],
)
def test_golden_sampling(golden, case, guidance, methods):
    pipe = Sampler(animatediff_ddim(), network_a(guidance), golden["z0"])
    with unstill.apply(pipe, *methods):
        final = pipe(25, latents=golden["noise"]).frames
    torch.testing.assert_close(pipe.visited[0], golden["A.initial_latents"])
    for step, name in [(1, "first"), (15, "step14"), (25, "last")]:
        expected = golden[f"A.{case}.{name}"]
        torch.testing.assert_close(pipe.visited[step][0], expected, rtol=0, atol=2e-5 * expected.abs().max().item())
    expected = golden[f"A.{case}.final_f64"].float()
    torch.testing.assert_close(final[0], expected, rtol=0, atol=2e-5 * expected.abs().max().item())


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_golden_sampling_in_every_prediction_type(golden, prediction):
    scheduler = animatediff_ddim(prediction_type=prediction)
    abar = scheduler.alphas_cumprod.double()

    def network(z, t):
        alpha, sigma = abar[int(t)].sqrt().item(), (1 - abar[int(t)]).sqrt().item()
        eps = network_b(z, t, sigma)
        x0 = (z - sigma * eps) / alpha
        return {"epsilon": eps, "v_prediction": alpha * eps - sigma * x0, "sample": x0}[prediction]

    pipe = Sampler(scheduler, network, golden["z0"])
    with unstill.apply(pipe, NoiseRectification()):
        final = pipe(25, latents=golden["noise"]).frames
    torch.testing.assert_close(final, golden["B.default.final_f64"].float(), rtol=0, atol=1e-4)


def test_golden_flow_matching(golden):
    sigmas = golden["flow.sigmas"]
    pipe = Sampler(
        diffusers.FlowMatchEulerDiscreteScheduler(),
        lambda x, t: 0.6 * x + 0.2 * torch.tanh(0.7 * x.roll(1, 2) + t / 1000),
        golden["z0"],
    )
    with unstill.apply(pipe, NoiseRectification()):
        pipe(latents=golden["noise"], sigmas=sigmas[:-1].tolist())
    for step, expected in zip([0, 1, 6, 10], golden["flow.latents_f64"].float(), strict=True):
        torch.testing.assert_close(pipe.visited[step][0], expected, rtol=1e-5, atol=1e-5)


LATENTS = torch.randn(2, 4, 1, 6, 6, generator=torch.Generator().manual_seed(3))
VP = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
KARRAS_V = {**VP, "prediction_type": "v_prediction", "use_karras_sigmas": True}
SCHEDULERS = {
    "ddim": lambda: diffusers.DDIMScheduler(**VP, clip_sample=False),
    "ddim v zero-snr": lambda: diffusers.DDIMScheduler(
        **VP,
        clip_sample=False,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
    ),
    "ddim x0": lambda: diffusers.DDIMScheduler(**VP, clip_sample=False, prediction_type="sample"),
    "euler": lambda: diffusers.EulerDiscreteScheduler(**VP),
    "euler karras v": lambda: diffusers.EulerDiscreteScheduler(**KARRAS_V),
    "heun": lambda: diffusers.HeunDiscreteScheduler(**VP),
    "dpm++": lambda: diffusers.DPMSolverMultistepScheduler(**VP),
    "unipc": lambda: diffusers.UniPCMultistepScheduler(**VP),
    "unipc flow": lambda: diffusers.UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    ),
    "flow euler": lambda: diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
    "edm": diffusers.EDMEulerScheduler,
}


def lazy(name):
    """A network that gives small, coupled outputs whatever it predicts."""
    return lambda x, t: 0.3 * torch.tanh(x.roll(1, 2)) + 0.1


@pytest.mark.parametrize("name", SCHEDULERS)
def test_frame_0_is_the_image_when_all_steps_are_corrected(name):
    # Frame 0 of the corrected eps is the noise, so that a deterministic solver walks it straight to the image, also
    # from the pure noise with which flow matching and zero-terminal-SNR schedules begin.
    pipe = Sampler(SCHEDULERS[name](), lazy(name), LATENTS, frames=5)
    with unstill.apply(pipe, NoiseRectification(period=(0, 1))):
        final = pipe(5, generator=torch.Generator().manual_seed(0)).frames
    scale = pipe.visited[0].std().item()
    torch.testing.assert_close(final[:, :, 0], LATENTS[:, :, 0], rtol=1e-3, atol=2e-5 * scale + 1e-3)
    assert (final[:, :, 1] - LATENTS[:, :, 0]).abs().max() > 0.05  # the other frames are freer


def test_equation_8_in_terms_of_the_video():
    generator = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(2, 2, 3, 5, 4, 4, generator=generator, dtype=torch.float64)
    image = torch.randn(2, 3, 1, 4, 4, generator=generator, dtype=torch.float64)
    weights = frame_weights(5)
    for alpha in (0.8, 0.05):
        sigma = (1 - alpha**2) ** 0.5
        sample = alpha * image + sigma * noise
        eps = rectify((sample - alpha * x0) / sigma, noise, weights)
        torch.testing.assert_close((sample - sigma * eps) / alpha, rectify_video(x0, image, weights))


class Standing(diffusers.DDIMScheduler):
    """Keeps what it was given instead of stepping."""

    def step(self, model_output, timestep, sample, return_dict=True):
        self.given = [*getattr(self, "given", []), model_output]
        return (sample,)


def test_without_signal_an_eps_prediction_is_left_as_it_is():
    pipe = Sampler(Standing(**VP, clip_sample=False, timestep_spacing="trailing"), lazy(""), LATENTS)
    pipe.scheduler.alphas_cumprod[-1] = 0
    with unstill.apply(pipe, NoiseRectification()):
        pipe(5, generator=torch.Generator().manual_seed(0))
        given = pipe.scheduler.given
    own = lazy("")(pipe.visited[0], 0)
    assert [torch.equal(output, own) for output in given] == [True, False, False, True, True]


def test_every_item_of_a_batch_for_itself(golden):
    pipe = Sampler(SCHEDULERS["dpm++"](), lazy(""), LATENTS, frames=5)
    noise = torch.randn(2, 4, 5, 6, 6, generator=torch.Generator().manual_seed(0))
    with unstill.apply(pipe, NoiseRectification()):
        together = pipe(6, latents=noise).frames
        for i in range(2):
            pipe.image_latents = LATENTS[i : i + 1]
            torch.testing.assert_close(pipe(6, latents=noise[i : i + 1]).frames, together[i : i + 1])


@pytest.mark.parametrize(("name", "steps"), [("ddim", 10), ("heun", 10)])
@pytest.mark.parametrize("period", [(0, 0.6), (0.3, 0.7), (0.05, 0.55)])
def test_the_period_counts_steps(name, steps, period, monkeypatch):
    corrected = []
    monkeypatch.setattr(
        ForwardProcess, "correct", lambda self, output, delta, sample, t, step: corrected.append(step) or output
    )
    pipe = Sampler(SCHEDULERS[name](), lazy(name), LATENTS, frames=5)
    with unstill.apply(pipe, NoiseRectification(period=period)) as applied:
        pipe(steps, generator=torch.Generator().manual_seed(0))
    order = applied.run.grid.order
    expected = [i for i in range(steps) if steps * period[0] <= i < steps * period[1]]
    calls = {call // order for call in corrected}
    assert sorted(calls) == expected
    assert len(corrected) == order * len(expected)


def test_another_method_may_make_the_first_latents(golden):
    # From any start: the noise is the one that would have made it from the image, so frame 0 still ends on the image.
    class Shifted(unstill.Method):
        owns = frozenset({"latents"})

        def on_start(self, run, latents):
            return 0.9 * latents + 0.3

    finals = []
    for methods in [(Shifted(), NoiseRectification(period=(0, 1))), (NoiseRectification(period=(0, 1)), Shifted())]:
        pipe = Sampler(animatediff_ddim(), network_a(1.0), golden["z0"])
        with unstill.apply(pipe, *methods):
            finals.append(pipe(25, latents=golden["noise"]).frames)
        torch.testing.assert_close(pipe.visited[0], 0.9 * golden["noise"] + 0.3)
        torch.testing.assert_close(finals[-1][:, :, :1], golden["z0"], rtol=1e-3, atol=1e-3)
    assert torch.equal(*finals)


def test_a_lower_start_for_flow_matching_keeps_the_image(golden):
    pipe = Sampler(SCHEDULERS["flow euler"](), lazy(""), golden["z0"])
    with unstill.apply(pipe, EarlyStart(sigma=0.95), NoiseRectification()):
        pipe(6, latents=golden["noise"])
    torch.testing.assert_close(pipe.visited[0], 0.05 * golden["z0"] + 0.95 * golden["noise"])


def test_wrong_number_of_weights(golden):
    calls = []
    pipe = Sampler(animatediff_ddim(), lambda z, t: calls.append(t), golden["z0"])
    with unstill.apply(pipe, NoiseRectification(weights=[1.0, 0.5])):
        with pytest.raises(UnstillError, match="2 weights for a video of 8 latent frames"):
            pipe(6, latents=golden["noise"])
    assert not calls


def test_without_an_image():
    target = Target("AnimateDiffPipeline", None, 1, False, False, 0)
    with pytest.raises(UnstillError, match="AnimateDiffPipeline has none; give it with apply"):
        check_method(NoiseRectification(), (), target)


@pytest.mark.parametrize("alpha,sigma", [(0.3, 0.7), (1.0, 20.0), (0.0, 1.0)])
def test_equation_8_of_a_predicted_x0(alpha, sigma):
    """In terms of the noise where the sample holds a signal, and exact for frame 0, which is the image."""
    draw = torch.Generator().manual_seed(0)
    image = torch.randn(2, 3, 1, 4, 4, generator=draw, dtype=torch.float64)
    noise, x0 = torch.randn(2, 2, 3, 5, 4, 4, generator=draw, dtype=torch.float64)
    sample, weights = alpha * image + sigma * noise, frame_weights(5)
    made = rectify_x0(x0, sample, noise, image, weights, alpha, sigma)
    torch.testing.assert_close(made, rectify_video(x0, image, weights), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(made[:, :, :1], image)
    other = noise.flip(0)  # not the noise of the sample: only the form in terms of the noise holds
    if alpha:
        by_hand = (sample - sigma * rectify((sample - alpha * x0) / sigma, other, weights)) / alpha
        torch.testing.assert_close(rectify_x0(x0, sample, other, image, weights, alpha, sigma), by_hand)
