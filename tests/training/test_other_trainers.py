"""The lines of docs/other_trainers.md, on tensors as each trainer has them, and what they rely on in TimeNoise."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import unstill
from unstill.errors import UnstillError
from unstill.methods.time_noise import sample_level


PAGE = (Path(__file__).parents[2] / "docs" / "other_trainers.md").read_text("utf-8")
SNIPPETS = dict(
    re.findall(r"<!-- tests/training/test_other_trainers.py: (\S+) -->\n```py\n(.*?)```", PAGE, flags=re.DOTALL)
)
B, F, H, W = 3, 5, 4, 6
T = torch.tensor([0.05, 0.5, 0.95])


def run(name: str, **names: Any) -> dict[str, Any]:
    """The names of a trainer after the lines of the page, from a fixed state of torch's generator."""
    time_noise = unstill.TimeNoise(maximum=2.0, noise_shape="element")
    space = {"torch": torch, "unstill": unstill, "time_noise": time_noise, **names}
    torch.manual_seed(7)
    exec(SNIPPETS[name], space)
    return space


def expected(image: Tensor, t: Tensor) -> Tensor:
    """y + beta eps by hand, with the draws of `run`: the levels first, then the noise."""
    torch.manual_seed(7)
    level = sample_level(t.float(), 2.0, 5.0, torch.randn(len(image)))
    return (image + level.view(-1, 1, 1, 1, 1) * torch.randn(image.shape)).to(image.dtype)


def latents(channels: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    return torch.randn(B, channels, F, H, W, generator=torch.Generator().manual_seed(0)).to(dtype)


def test_every_trainer_of_the_page_is_tested() -> None:
    assert set(SNIPPETS) == {"cogvideox", "wan", "musubi-tuner", "diffusion-pipe", "SimpleTuner"}


def test_cogvideox() -> None:
    """Frames before channels, integer timesteps; the empty frames stay empty."""
    image = latents(16)[:, :, :1]
    given = torch.cat([image, torch.zeros_like(image).expand(-1, -1, F - 1, -1, -1)], 2).transpose(1, 2)
    timesteps = (T * 1000).long()
    scheduler = SimpleNamespace(config=SimpleNamespace(num_train_timesteps=1000))
    found = run("cogvideox", image_latents=given, timesteps=timesteps, scheduler=scheduler)["image_latents"]
    assert found.dtype == given.dtype and found.shape == given.shape and not found[:, 1:].any()
    assert torch.equal(found[:, :1].transpose(1, 2), expected(image, timesteps / 1000))


def test_wan() -> None:
    """The mask is kept, sigmas come as (B, 1, 1, 1, 1)."""
    given = latents(20, torch.float32)
    found = run("wan", condition=given, sigmas=T.view(-1, 1, 1, 1, 1))["condition"]
    assert torch.equal(found[:, :4], given[:, :4]) and torch.equal(found[:, 4:], expected(given[:, 4:], T))


def test_musubi_tuner() -> None:
    given = latents(20)
    found = run("musubi-tuner", image_latents=given, timesteps=T * 1000 + 1)["image_latents"]
    assert found.dtype == given.dtype and torch.equal(found[:, :4], given[:, :4])
    assert torch.equal(found[:, 4:], expected(given[:, 4:], (T * 1000 + 1 - 1) / 1000))


def test_diffusion_pipe() -> None:
    given = latents(16, torch.float32)
    assert torch.equal(run("diffusion-pipe", y=given, t=T)["y"], expected(given, T))
    assert run("diffusion-pipe", y=None, t=T)["y"] is None


def test_simpletuner() -> None:
    given = latents(36)
    batch = {"timesteps": (T * 1000).long()}
    found = run("SimpleTuner", conditioned_latent=given, prepared_batch=batch)["conditioned_latent"]
    assert torch.equal(found[:, :-16], given[:, :-16])
    assert torch.equal(found[:, -16:], expected(given[:, -16:], batch["timesteps"] / 1000))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("time", [torch.float64, torch.bfloat16], ids=["double", "half"])
def test_types_are_kept(dtype: torch.dtype, time: torch.dtype) -> None:
    image = latents(4, dtype)
    noised, level = unstill.TimeNoise(maximum=1.0).corrupt(image, T.to(time))
    assert noised.dtype == dtype and level.dtype == torch.float32 and level.shape == (B,)


def test_processes_draw_their_own_noise_and_repeat_it() -> None:
    """seed + rank: other noise in every process, the same in a process that is started again."""
    image, noise = latents(4, torch.float32), unstill.TimeNoise(maximum=1.0)
    ranks = [noise.corrupt(image, T, torch.Generator().manual_seed(11 + rank))[0] for rank in (0, 1, 0)]
    assert torch.equal(ranks[0], ranks[2]) and not torch.equal(ranks[0], ranks[1])


def test_a_time_in_the_wrong_unit_is_refused() -> None:
    noise = unstill.TimeNoise(maximum=1.0)
    for t in (T * 1000, (T * 1000).long(), 500.0, torch.tensor([0.5, 0.5, -0.1])):
        with pytest.raises(UnstillError, match=r"t of TimeNoise is in \[0, 1\].* divide a timestep by 1000"):
            noise.corrupt(latents(4), t)
    for t in (T.view(-1, 1, 1, 1, 1), T[:2]):
        with pytest.raises(UnstillError, match=r"one number per clip, \(3,\), or a single one"):
            noise.corrupt(latents(4), t)
    noise.corrupt(latents(4), (T * 1000 + 6) / 1000)  # some trainers count from 1
