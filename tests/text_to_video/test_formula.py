"""
`unstill.i4vgen` against all of I4VGen written out in float64: settings that the golden data does not have (other
schedules, numbers of steps and candidates, no guidance, LaVie as the paper has it).
"""

from dataclasses import dataclass

import diffusers
import numpy as np
import pytest
import torch

from tests.text_to_video.stubs import CALL, animatediff, lavie, reward
from unstill.methods.ni_vsds import NIVSDS
from unstill.text_to_video.pipeline import i4vgen


WORDS = torch.tensor([0.3, -0.2, 0.1, 0.4], dtype=torch.float64)[:, None, None, None]


@dataclass(frozen=True)
class Setting:
    """Betas, sampler and what the two stages do; `loop` is the number of levels of NI-VSDS, which visits the first."""

    steps: int
    guidance: float
    loop: int
    sizes: tuple[float, ...] = (1.0,)  # of the steps of NI-VSDS; the last goes on
    again: float = 1.0  # p_re
    candidates: int = 8
    betas: tuple[float, float] = (0.00085, 0.012)
    scaled: bool = False
    ancestral: bool = False  # DDPM from level 0 on, in place of DDIM from level 1 on

    def abar(self) -> np.ndarray:
        power = 2 if self.scaled else 1
        return np.cumprod(1 - np.linspace(*(beta ** (1 / power) for beta in self.betas), 1000) ** power)

    def levels(self) -> list[int]:
        ratio = 1000 // self.steps
        return [i * ratio + (not self.ancestral) for i in reversed(range(self.steps))]


def guided(z: torch.Tensor, t: int, scale: float) -> torch.Tensor:
    """Network C of the golden data."""
    m = 0.6 * z + 0.2 * z.mean(2, keepdim=True) + 0.1 * z.roll(1, 2) + 0.06 * z.roll(1, 4) + 0.04 * z.roll(1, 1)
    return 0.9 * m + 0.1 * torch.tanh(2 * m) + 0.02 * np.sin(t / 50) + scale * 0.05 * WORDS


def sampled(z: torch.Tensor, levels: list[int], s: Setting, g: torch.Generator) -> torch.Tensor:
    abar, ratio = s.abar(), 1000 // s.steps
    for t in levels:
        a, before = abar[t], abar[t - ratio] if t >= ratio else 1.0
        eps = guided(z, t, s.guidance)
        x0 = (z - (1 - a) ** 0.5 * eps) / a**0.5
        if s.ancestral:
            kept = a / before
            z = (before**0.5 * (1 - kept) * x0 + kept**0.5 * (1 - before) * z) / (1 - a)
            if t > 0:
                z = z + ((1 - before) / (1 - a) * (1 - kept)) ** 0.5 * draw(z.shape, g)
        else:
            z = before**0.5 * x0 + (1 - before) ** 0.5 * eps
    return z


def draw(shape: torch.Size, g: torch.Generator) -> torch.Tensor:
    return torch.randn(shape, generator=g).double()


def written_out(s: Setting, seed: int) -> tuple[torch.Tensor, int, torch.Tensor, torch.Tensor]:
    """Candidates, the choice, the distilled video, and the last latents."""
    g, abar, levels = torch.Generator().manual_seed(seed), s.abar(), s.levels()
    noise = draw(torch.Size((1, 4, s.candidates, 8, 8)), g)[0].transpose(0, 1)[:, :, None]
    pictures = sampled(noise, levels, s, g)
    pixels = (255 * (torch.tanh(pictures[:, :3, 0]) / 2 + 0.5)).round().mean((2, 3))
    choice = int((pixels[:, 0] - 0.5 * pixels[:, 1]).argmax())
    video = pictures[[choice]].repeat(1, 1, 8, 1, 1)
    noise = draw(video.shape, g)
    for i, t in enumerate(levels[: s.loop]):
        a, size = abar[t], s.sizes[min(i, len(s.sizes) - 1)]
        eps = guided(a**0.5 * video + (1 - a) ** 0.5 * noise, t, s.guidance)
        video = video - size * (1 - a) * (eps - noise)
    left = levels[s.steps - int(s.steps * s.again) :]
    a = abar[left[0]]
    start = a**0.5 * video + (1 - a) ** 0.5 * draw(video.shape, g)
    return pictures, choice, video, sampled(start, left, s, g)


TENS = (10.0, 10.0, 10.0, 1.0)
SETTINGS = {
    "released, 50 steps": (Setting(50, 7.5, 31, TENS), "released"),
    "paper, 20 steps": (Setting(20, 7.5, 12), "paper"),  # 951, ..., 401
    "released, Stable Diffusion's betas": (Setting(25, 7.5, 16, TENS, scaled=True), "released"),
    "four candidates, without guidance": (Setting(10, 1.0, 6, candidates=4), "paper"),
    "regenerated from lower down": (Setting(25, 5.0, 15, again=0.8), NIVSDS(regenerate=0.8)),
    "without NI-VSDS": (Setting(10, 7.5, 6, (0.0,)), NIVSDS(step_size=0.0)),
    "LaVie, paper": (Setting(50, 7.0, 30, again=0.8, betas=(0.0001, 0.02), ancestral=True), "paper"),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_it_is_its_formula(name: str) -> None:
    s, preset = SETTINGS[name]
    pipe = lavie() if s.ancestral else animatediff()
    if s.scaled:
        pipe.scheduler = diffusers.DDIMScheduler.from_config(pipe.scheduler.config, beta_schedule="scaled_linear")
    made = i4vgen(
        pipe,
        "a prompt",
        candidates=s.candidates,
        reward=reward,
        preset=preset,
        generator=torch.Generator().manual_seed(105),
        num_inference_steps=s.steps,
        guidance_scale=s.guidance,
        **CALL,
    )
    pictures, choice, video, last = written_out(s, 105)
    close = {"rtol": 1e-5, "atol": 1e-4, "check_dtype": False}
    torch.testing.assert_close(torch.cat([one.sample for one in made.candidates]), pictures, **close)
    assert made.choice == choice
    torch.testing.assert_close(made.records[1].tensors["video"], video, **close)
    frames = 255 * (torch.tanh(last[0, :3]).transpose(0, 1) / 2 + 0.5)
    assert (made.frames - frames).abs().max() < 0.51
