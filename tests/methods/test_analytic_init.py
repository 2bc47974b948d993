"""Early start and Analytic-Init against the released code, and against a Gaussian whose every score is known."""

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import pytest
import torch
from safetensors.torch import load_file

import unstill
from tests.pipelines import CASES, pipeline, sample
from unstill.errors import UnstillError
from unstill.forward_process import ForwardProcess
from unstill.latent_statistics import LatentStatistics
from unstill.methods.analytic_init import AnalyticInit, initial_latents
from unstill.methods.base import Method
from unstill.methods.early_start import EarlyStart
from unstill.noise_schedule import level_of


GOLDEN = load_file(Path(__file__).parents[1] / "golden/leakage/analytic_init.safetensors")
SVD = "StableVideoDiffusionPipeline"


def group(name: str) -> dict[str, torch.Tensor]:
    return {key.split(".")[1]: value for key, value in GOLDEN.items() if key.startswith(name + ".")}


def statistics(mean: torch.Tensor, variance: float) -> LatentStatistics:
    """Of two videos mean +- sqrt(variance)."""
    return LatentStatistics().update(torch.stack([mean - variance**0.5, mean + variance**0.5]))


class Denoiser(torch.nn.Module):
    """In the place of the UNet of Stable Video Diffusion."""

    config = SimpleNamespace(in_channels=8, num_frames=4, addition_time_embed_dim=8)
    add_embedding = SimpleNamespace(linear_1=SimpleNamespace(in_features=24))
    device, dtype = torch.device("cpu"), torch.float32

    def forward(self, x: torch.Tensor, t: torch.Tensor, **others: Any) -> tuple[torch.Tensor]:
        return (self.predict(*x.chunk(2, dim=2), t),)


class Toy(Denoiser):
    """The network of the golden data."""

    def predict(self, z: torch.Tensor, image: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return torch.tanh(0.3 * z + 0.1 * image + 0.05 * t)


class Gaussian(Denoiser):
    """The exact v-prediction for videos N(mean, variance)."""

    mean, variance = 2.0, 0.25

    def predict(self, z: torch.Tensor, image: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        sigma = (4 * t).exp()
        norm = (sigma**2 + 1).sqrt()
        x = z * norm
        x0 = self.mean + self.variance / (self.variance + sigma**2) * (x - self.mean)
        return (x / norm**2 - x0) * norm / sigma


def svd_with(denoiser: Denoiser) -> Any:
    pipe = copy.copy(pipeline(SVD))
    vars(pipe)["unet"] = denoiser
    return pipe


@pytest.mark.parametrize("name", ["dc512", "vc512"])
def test_first_latents_of_variance_preserving_models(name: str) -> None:
    data = group(name)
    scheduler = diffusers.DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", rescale_betas_zero_snr=name == "dc512"
    )
    timestep, alpha, sigma = level_of(ForwardProcess.of(scheduler), start=0.96)
    assert timestep == 959
    got = initial_latents(data["mean"], data["tr_cov_d"], alpha, sigma, data["eps"])
    torch.testing.assert_close(got, data["init"], atol=2e-6, rtol=2e-6)


@pytest.mark.parametrize("swapped", [False, True])
def test_first_latents_of_stable_video_diffusion(swapped: bool) -> None:
    data = group("svd")
    moments = (data["expectation"], data["tr_cov_d"])
    got = initial_latents(*(moments[::-1] if swapped else moments), 1.0, (100.0**2 + 1) ** 0.5, data["eps"])
    expected = group("svd_asis" if swapped else "svd_intended")["init"]
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-6)


def test_stable_video_diffusion_end_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A scheduler of sigma_max 700 started at 100: the released code's first latents, levels, layout and guidance."""
    data, golden = group("svd"), group("svd_intended")
    pipe = svd_with(Toy())
    image = data["image_latents"][0]  # (1, C, h, w)
    pipe._encode_vae_image = lambda *args, **kwargs: torch.cat([torch.zeros_like(image), image])
    moments = statistics(data["expectation"][0].transpose(0, 1), data["tr_cov_d"].item())
    method = AnalyticInit.preset("released-svd", statistics=moments)
    call = {"num_frames": 4, "num_inference_steps": 25, "latents": data["eps"], "max_guidance_scale": 3.0}
    with unstill.apply(pipe, method) as handle:
        final = sample(CASES[SVD], pipe, **call)
    assert handle.run.grid.sigmas[0] == pytest.approx(100.0)
    torch.testing.assert_close(final, golden["final"], atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize("sigma", [1.0, 5.0, 100.0])
def test_a_gaussian_is_sampled_right_from_any_level(sigma: float) -> None:
    """Analytic-Init begins in the distribution of noisy data. An early start alone begins with its mean missing."""
    pipe = svd_with(Gaussian())
    mean, variance = Gaussian.mean, Gaussian.variance
    call = {"num_frames": 4, "num_inference_steps": 250, "height": 64, "width": 64, "max_guidance_scale": 1.0}

    def moments_of(method: Method) -> tuple[float, float]:
        with unstill.apply(pipe, method):
            x = sample(CASES[SVD], pipe, **call)
        return x.mean().item(), x.var().item()

    data = statistics(torch.full((4, 4, 32, 32), mean), variance)
    assert moments_of(AnalyticInit(sigma=sigma, statistics=data)) == pytest.approx((mean, variance), rel=0.06)
    # The probability flow of a Gaussian is linear: x0 - mean = sqrt(variance / (variance + sigma^2)) (x - mean).
    shrunk = (variance / (variance + sigma**2)) ** 0.5
    expected = (mean - shrunk * mean, shrunk**2 * (sigma**2 + 1))
    assert moments_of(EarlyStart(sigma=sigma)) == pytest.approx(expected, rel=0.06)


def test_full_start_of_a_zero_snr_schedule_is_noise() -> None:
    """alpha = 0: the statistics say nothing, the pipeline's own first latents come out."""
    name = "CogVideoXImageToVideoPipeline"
    pipe = pipeline(name)
    plain = sample(CASES[name], pipe)
    data = statistics(torch.full(CASES[name].latents, 3.0), 4.0)
    with unstill.apply(pipe, AnalyticInit(start=1.0, statistics=data)):
        assert torch.equal(sample(CASES[name], pipe), plain)


def test_trivial_statistics_are_an_early_start() -> None:
    """Mean 0 and variance 1 in variance-preserving coordinates: N(0, I) at every level."""
    name = "AnimateDiffPipeline"
    pipe, case = pipeline(name), CASES[name]
    with unstill.apply(pipe, EarlyStart(start=0.7)):
        plain = sample(case, pipe)
    with unstill.apply(pipe, AnalyticInit(start=0.7, statistics=statistics(torch.zeros(case.latents), 1.0))):
        torch.testing.assert_close(sample(case, pipe), plain)


def test_data_scale_and_extra_variance() -> None:
    """DynamiCrafter trains on alpha * scale * x0 + sigma * eps."""
    name = "AnimateDiffPipeline"
    pipe, case = pipeline(name), CASES[name]
    data = statistics(torch.full(case.latents, 2.0), 0.5)
    with unstill.apply(pipe, method := AnalyticInit(start=0.7, statistics=data, data_scale=0.3, extra_variance=1.0)):
        sample(case, pipe)
    noise = torch.randn(1, *case.latents, generator=torch.Generator().manual_seed(4))
    process = ForwardProcess.of(pipe.scheduler)
    run = SimpleNamespace(
        process=process,
        grid=SimpleNamespace(timesteps=torch.tensor([699])),
        noise=noise,
        conditioning_frames=0,
        frames=case.latents[1],
    )
    pipe.scheduler.timesteps = torch.tensor([699])
    abar = pipe.scheduler.alphas_cumprod[699]
    expected = 0.6 * abar.sqrt() + (1 - abar + abar * (0.09 * 0.5 + 1)).sqrt() * noise
    torch.testing.assert_close(method.on_start(run, noise), expected)


def test_statistics_of_another_size() -> None:
    name = "AnimateDiffPipeline"
    pipe, case = pipeline(name), CASES[name]
    channels, frames, height, width = case.latents
    larger = statistics(torch.ones(channels, frames + 2, 2 * height, width), 1.0)
    with unstill.apply(pipe, AnalyticInit(start=0.9, statistics=larger)):
        with pytest.raises(
            UnstillError, match=f"{frames + 2}x{2 * height}x{width}.*{frames}x{height}x{width}.*resize"
        ):
            sample(case, pipe)
    same = statistics(torch.ones(case.latents), 1.0)
    results = []
    for data in (larger, same):
        with unstill.apply(pipe, AnalyticInit(start=0.9, statistics=data, resize=True)):
            results.append(sample(case, pipe))
    torch.testing.assert_close(*results)
    other = statistics(torch.ones(channels + 1, frames, height, width), 1.0)
    with unstill.apply(pipe, AnalyticInit(start=0.9, statistics=other, resize=True)):
        with pytest.raises(UnstillError, match="VAE"):
            sample(case, pipe)


def test_statistics_from_a_file(tmp_path: Path) -> None:
    case = CASES["AnimateDiffPipeline"]
    data = statistics(torch.ones(case.latents), 0.3)
    data.save(tmp_path / "videos.safetensors")
    method = AnalyticInit(start=0.9, statistics=tmp_path / "videos.safetensors")
    assert torch.equal(method.statistics.mean, data.mean) and method.statistics.variance == data.variance
    with pytest.raises(UnstillError):
        AnalyticInit(start=0.9, statistics=tmp_path / "none.safetensors")


@pytest.mark.parametrize("levels", [{}, {"start": 0.9, "sigma": 1.0}, {"start": 0.0}, {"start": 1.5}, {"sigma": -1.0}])
def test_a_level_is_given_once_and_in_range(levels: dict[str, float]) -> None:
    with pytest.raises(UnstillError):
        EarlyStart(**levels)


@pytest.mark.parametrize(("name", "level"), [("AnimateDiffPipeline", {"sigma": 1.0}), (SVD, {"start": 0.9})])
def test_a_level_in_the_wrong_unit_is_refused_at_apply(name: str, level: dict[str, float]) -> None:
    with pytest.raises(UnstillError, match="instead of"):
        unstill.apply(pipeline(name), EarlyStart(**level))


def test_two_methods_cannot_both_set_the_level() -> None:
    data = statistics(torch.zeros(4, 3, 8, 8), 1.0)
    with pytest.raises(UnstillError, match="both decide the noise level"):
        unstill.apply(pipeline("AnimateDiffPipeline"), EarlyStart(start=0.9), AnalyticInit(start=0.9, statistics=data))
