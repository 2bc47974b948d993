"""NI-VSDS and its regeneration against the released I4VGen pipelines, and against its other form."""

from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from safetensors.torch import load_file

from unstill.methods.ni_vsds import share, update, weight
from unstill.process import ForwardProcess


GOLDEN = Path(__file__).parents[1] / "golden" / "methods" / "ni_vsds.safetensors"
PROMPT = torch.tensor([0.3, -0.2, 0.1, 0.4]).view(1, 4, 1, 1, 1)


@pytest.fixture(scope="module")
def golden():
    return load_file(GOLDEN)


def network(z, t, guidance):
    """Network C of the golden data, guided."""
    m = 0.6 * z + 0.2 * z.mean(2, keepdim=True) + 0.1 * z.roll(1, 2) + 0.06 * z.roll(1, 4) + 0.04 * z.roll(1, 1)
    eps = 0.9 * m + 0.1 * torch.tanh(2 * m) + 0.02 * torch.sin(torch.tensor(t / 50))
    return eps + guidance * 0.05 * PROMPT


def animatediff():
    return DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="linear", steps_offset=1, clip_sample=False
    )


def lavie():
    return DDPMScheduler(beta_start=0.0001, beta_end=0.02, clip_sample=False, timestep_spacing="leading")


@pytest.mark.parametrize(
    ("case", "scheduler", "guidance"),
    [("released", animatediff(), 7.5), ("paper", animatediff(), 7.5), ("lavie", lavie(), 7.0)],
)
def test_golden_distillation(golden, case, scheduler, guidance):
    process = ForwardProcess.of(scheduler)
    noise = golden[f"{case}.noise"]
    video = golden[f"{case}.static"].expand_as(noise)
    for i, t in enumerate(golden[f"{case}.timesteps"].tolist()):
        alpha, sigma = process.alpha_sigma(t)
        assert weight(alpha, sigma) == pytest.approx(golden[f"{case}.w"][i].item(), rel=1e-5)
        eps = network(process.add_noise(video, noise, t), t, guidance)
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
