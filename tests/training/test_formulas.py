"""Every formula of training in float64 numpy, written down from the papers and the released code, against the code."""

import math
from statistics import NormalDist
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from torch import Tensor

from unstill.forward_process import ForwardProcess
from unstill.methods.conditioning_augmentation import ConditioningAugmentation
from unstill.methods.time_noise import TimeNoise
from unstill.models.dynamicrafter import DynamiCrafterScheduler
from unstill.training.condition_noise import ConstantNoise, MixedNoise, OwnSchedule, Replaced, plan_of
from unstill.training.loss import ConditionDropout, Objective
from unstill.training.loss_weights import denoising
from unstill.training.noise_sampling import EDM, Flow, Levels, schedule_of


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def tensor(values: np.ndarray) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)


def wide(values: np.ndarray) -> np.ndarray:
    """(B,) to (B, 1, 1, 1, 1)."""
    return values[:, None, None, None, None]


def stable_diffusion_abar(zero_snr: bool = False) -> np.ndarray:
    """betas = linspace(sqrt .00085, sqrt .012, 1000)^2; zero SNR: sqrt(abar) shifted to end at 0, stretched back."""
    abar = np.cumprod(1 - np.linspace(math.sqrt(0.00085), math.sqrt(0.012), 1000) ** 2)
    if zero_snr:
        root = np.sqrt(abar)
        abar = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
    return abar


def check_losses(levels: Levels, noisy: np.ndarray, error: Any, x0: np.ndarray, eps: np.ndarray) -> None:
    """`noisy`: what x_t should be; `error(output)`: the loss of each clip."""
    output = numbers(*x0.shape, seed=3)
    np.testing.assert_allclose(levels.noised(tensor(x0), tensor(eps)), noisy, rtol=1e-5, atol=1e-5)
    found = denoising(tensor(output), tensor(x0), tensor(eps), levels)
    np.testing.assert_allclose(found, error(output), rtol=2e-6)


@pytest.mark.parametrize(
    ("prediction", "zero_snr", "base"),
    [
        ("v_prediction", True, 0.7),  # DynamiCrafter 512
        ("v_prediction", True, 0.3),  # DynamiCrafter 1024
        ("epsilon", False, 1.0),  # DynamiCrafter 256
        ("epsilon", False, 0.7),  # VideoCrafter
    ],
)
def test_variance_preserving_with_dynamic_rescale(prediction: Any, zero_snr: bool, base: float) -> None:
    scheduler = DynamiCrafterScheduler(prediction_type=prediction, rescale_betas_zero_snr=zero_snr, rescale=base)
    t = np.array([0, 1, 200, 398, 399, 400, 700, 998, 999])
    abar = wide(stable_diffusion_abar(zero_snr)[t])
    scale = wide(np.concatenate([np.linspace(1, base, 400), np.full(600, base)])[t])
    x0, eps = numbers(2, len(t), 4, 2, 3, 3)
    target = eps if prediction == "epsilon" else np.sqrt(abar) * eps - np.sqrt(1 - abar) * scale * x0
    levels = schedule_of(ForwardProcess.of(scheduler)).of_steps(torch.tensor(t))
    np.testing.assert_allclose(levels.time, t / 1000, rtol=1e-6)
    check_losses(
        levels,
        np.sqrt(abar) * scale * x0 + np.sqrt(1 - abar) * eps,
        lambda output: ((output - target) ** 2).mean((1, 2, 3, 4)),
        x0,
        eps,
    )


@pytest.mark.parametrize("mean, std", [(0.7, 1.6), (-1.2, 1.2)])
def test_edm_with_its_weight(mean: float, std: float) -> None:
    sigma = np.array([0.002, 0.05, 0.3, 1.0, 7.0, 80.0, 700.0])
    s, x0, eps = wide(sigma), *numbers(2, len(sigma), 4, 2, 3, 3)
    noisy = x0 + s * eps

    def error(output: np.ndarray) -> np.ndarray:
        denoised = noisy / (s**2 + 1) - s / np.sqrt(s**2 + 1) * output
        return ((s**2 + 1) / s**2 * (denoised - x0) ** 2).mean((1, 2, 3, 4))

    levels = EDM(mean, std).of_sigmas(torch.tensor(sigma))
    check_losses(levels, noisy, error, x0, eps)
    np.testing.assert_allclose(levels.model_input(tensor(noisy)), noisy / np.sqrt(s**2 + 1), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(levels.timestep, np.log(sigma) / 4, rtol=1e-6)
    quantile = [NormalDist(mean, std).cdf(math.log(x)) for x in sigma]
    np.testing.assert_allclose(levels.time, quantile, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(EDM(mean, std, "released").of_sigmas(torch.tensor(sigma)).time, sigma / 700, rtol=1e-6)
    drawn = EDM(mean, std).at(torch.tensor([0.1, 0.5, 0.99]))
    expected = [math.exp(NormalDist(mean, std).inv_cdf(u)) for u in (0.1, 0.5, 0.99)]
    np.testing.assert_allclose(drawn.sigma, expected, rtol=1e-5)


@pytest.mark.parametrize("shift, std", [(1.0, 0.0), (3.0, 0.0), (5.0, 1.0)])
def test_flow_matching(shift: float, std: float) -> None:
    u = np.array([0.01, 0.3, 0.5, 0.9, 0.999])
    drawn = np.array([1 / (1 + math.exp(-std * NormalDist().inv_cdf(x))) for x in u]) if std else u
    sigma = shift * drawn / (1 + (shift - 1) * drawn)
    s, x0, eps = wide(sigma), *numbers(2, len(u), 4, 2, 3, 3)
    levels = Flow(shift, std).at(torch.tensor(u))
    np.testing.assert_allclose(levels.timestep, 1000 * sigma, rtol=1e-5)
    noisy = (1 - s) * x0 + s * eps
    check_losses(levels, noisy, lambda output: ((output - (eps - x0)) ** 2).mean((1, 2, 3, 4)), x0, eps)


# --- what is done to the image ---------------------------------------------------------------------------------------

TIME = np.array([0.0, 0.25, 0.8, 1.0])


def drawn_as(*shapes: tuple[int, ...]) -> list[np.ndarray]:
    """The normal numbers that a condition draws, in its order."""
    g = torch.Generator().manual_seed(5)
    return [torch.randn(shape, generator=g).double().numpy() for shape in shapes]


def check_condition(condition: Any, image: np.ndarray, expected: np.ndarray, level: np.ndarray) -> None:
    noised, told = condition.corrupt(tensor(image), tensor(TIME), torch.Generator().manual_seed(5))
    np.testing.assert_allclose(told, level, rtol=1e-5)
    np.testing.assert_allclose(noised, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("family", "preset", "what", "maximum", "scale", "shape"),
    [
        ("svd", "paper", "latents", 100, 1, (4, 3, 1, 5, 5)),
        ("svd", "released", "latents", 15, 1, (4, 1, 1, 1, 1)),  # one number per clip
        ("dynamicrafter", "paper", "latents", 100, 1, (4, 3, 1, 5, 5)),
        ("dynamicrafter", "paper", "tokens", 100, 1, (4, 6, 8)),
        ("dynamicrafter", "released", "latents", 100, 1, (4, 3, 2, 5, 5)),  # independent in every frame
        ("videocrafter", "paper", "tokens", 25, 1, (4, 6, 8)),
        ("videocrafter", "released", "tokens", 100, 4, (4, 6, 8)),
    ],
)
def test_time_noise_of_every_preset(
    family: str, preset: str, what: str, maximum: float, scale: float, shape: tuple[int, ...]
) -> None:
    image = numbers(4, 3, 2, 5, 5) if what == "latents" else numbers(4, 6, 8)
    normal, noise = drawn_as((4,), shape)
    level = maximum / (1 + np.exp(-(scale * (2 * TIME**5 - 1) + normal)))
    expected = image + level.reshape(4, *[1] * (image.ndim - 1)) * noise
    check_condition(getattr(plan_of(family, preset=preset), what), image, expected, level)


def test_the_baselines() -> None:
    image = numbers(4, 3, 2, 5, 5)
    (noise,) = drawn_as((4, 3, 1, 5, 5))
    mu = 2 * TIME**5 - 1
    check_condition(ConstantNoise(), image, image + wide(100 * (mu + 1) / 2) * noise, 100 * (mu + 1) / 2)
    normal, noise = drawn_as((4,), (4, 3, 1, 5, 5))
    level = 1 / (1 + np.exp(-(mu + normal)))
    check_condition(MixedNoise(), image, (1 - wide(level)) * image + wide(level) * noise, level)
    assert plan_of("dynamicrafter", preset="released").tokens == Replaced(probability=0.95)
    assert TimeNoise(scale=4.0).scale == 4  # of DynamiCrafter's code in July 2024


@pytest.mark.parametrize("kind", ["stable diffusion", "zero SNR", "flow", "svd"])
def test_conditioning_augmentation_on_the_models_own_schedule(kind: str) -> None:
    scheduler = {
        "stable diffusion": DynamiCrafterScheduler(rescale_betas_zero_snr=False, prediction_type="epsilon"),
        "zero SNR": DynamiCrafterScheduler(),
        "flow": diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        "svd": diffusers.EulerDiscreteScheduler(timestep_type="continuous", prediction_type="v_prediction"),
    }[kind]
    image, g = numbers(4, 3, 2, 5, 5), torch.Generator().manual_seed(5)
    s = 0.8 * torch.rand(4, generator=g).double().numpy()
    noise = torch.randn(4, 3, 1, 5, 5, generator=g).double().numpy()
    if kind == "flow":
        alpha, sigma = 1 - s, s
    else:
        abar = np.concatenate([[1.0], stable_diffusion_abar(kind == "zero SNR")])[np.round(s * 1000).astype(int)]
        alpha, sigma = np.sqrt(abar), np.sqrt(1 - abar)
    plan = plan_of(
        "svd", "conditioning-augmentation", parameters={"maximum": 0.8}, process=ForwardProcess.of(scheduler)
    )
    assert isinstance(plan.latents, OwnSchedule) and plan.condition_on_level
    check_condition(plan.latents, image, wide(alpha) * image + wide(sigma) * noise, sigma)
    plain = plan_of("svd", "conditioning-augmentation", condition_on_level=False)
    assert plain.latents == ConditioningAugmentation() and not plain.condition_on_level


def test_what_is_dropped_and_how_often() -> None:
    """DynamiCrafter as released: text below .10, image from .05 to .15; VideoCrafter below .4, and from .2 to .6."""
    r = np.random.default_rng(0).random(20000)
    chances = tensor(np.stack([r, r], 1))
    family: Any = type("Family", (), {"blank_latents": True})
    for (text, image, both), first, second, last in (
        ((0.05, 0.05, 0.05), 0.05, 0.10, 0.15),
        ((0.2, 0.2, 0.2), 0.2, 0.4, 0.6),
        ((0.0, 0.1, 0.0), 0.0, 0.0, 0.1),
    ):
        ones = {
            "text": torch.ones(20000, 1, 1),
            "tokens": torch.ones(20000, 1, 1),
            "image": torch.ones(20000, 1, 1, 1, 1),
        }
        nothing = {"text": torch.zeros(1, 1), "tokens": torch.zeros(1, 1)}
        objective = Objective(family, Flow(), plan_of("svd", "none"), ConditionDropout(text, image, both), nothing)
        given = objective._drop(ones, chances)
        np.testing.assert_array_equal(given["text"].flatten() == 0, r < second)
        for name in ("tokens", "image"):
            np.testing.assert_array_equal(given[name].flatten() == 0, (r >= first) & (r < last))
