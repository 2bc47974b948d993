"""How the embedded model's autoencoder is made: reconstruction, and latents that move as the picture moves."""

import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from unstill.data import synthetic_world
from unstill.data.files import replacing
from unstill.models.pico import PicoAutoencoder
from unstill.training.pico_recipe import PicoRecipe, Report, generator, resume, save_checkpoint, update


def _frame_pool(recipe: PicoRecipe, count: int, report: Report) -> Tensor:
    """(count, 3, H, W) uint8 frames, half of them over collages, so that photographs can be coded too."""
    pool: list[Tensor] = []
    for start in range(0, count, 128):
        g = generator(recipe.seed, 1, start)
        scene = synthetic_world.sample_scene(64, g, collage=0.5, size=recipe.size)
        clips = synthetic_world.render(scene, synthetic_world.sample_motion(scene, g), 3, recipe.size)
        pool.append((clips.video[:, ::2].flatten(0, 1) * 255).round().to(torch.uint8))
        report("frames", start + 128, count, "")
    return torch.cat(pool)[:count]


def _closeness(made: Tensor, true: Tensor) -> Tensor:
    """L1, some L2, and L1 of the differences between neighbours, which keeps edges crisp."""
    across = (made[..., 1:] - made[..., :-1]) - (true[..., 1:] - true[..., :-1])
    down = (made[..., 1:, :] - made[..., :-1, :]) - (true[..., 1:, :] - true[..., :-1, :])
    error = made - true
    return error.abs().mean() + 0.5 * error.square().mean() + 0.5 * (across.abs().mean() + down.abs().mean())


def train_autoencoder(
    out: Path, recipe: PicoRecipe, device: torch.device, report: Report, checkpoint_every: int, batch: int = 32
) -> None:
    torch.manual_seed(recipe.seed)
    vae: Any = PicoAutoencoder().to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(vae.parameters(), 2e-3, betas=(0.9, 0.99), fused=True)
    first = resume(out / "autoencoder.pt", vae, optimizer)
    steps = recipe.autoencoder_steps
    pool = _frame_pool(recipe, min(16384, max(256, 8 * steps)), report)
    for step in range(first, steps):
        g = generator(recipe.seed, 2, step)
        x = pool[torch.randint(len(pool), (batch,), generator=g)].float() / 127.5 - 1
        x = x[:, torch.randperm(3, generator=g)] if torch.rand((), generator=g) < 0.5 else x
        x = (x.flip(-1) if torch.rand((), generator=g) < 0.5 else x).to(device)
        theta = _turns(batch // 2, g).to(device)
        noise = torch.randn(batch, 12, recipe.size // 8, recipe.size // 8, generator=g).to(device)
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1.0, (step + 1) / 100) * min(1.0, max(0.01, (steps - step) / (0.35 * steps)))
        with torch.autocast(device.type, torch.bfloat16):
            z = vae.encoder(x.contiguous(memory_format=torch.channels_last)).float()
            z = torch.cat([z[: batch // 2], _moved(z[batch // 2 :], theta)])
            # Noise of 5 % teaches the decoder to forgive a denoiser that is not perfect.
            made = vae.decoder(z + 0.05 * z.detach().std() * noise).float()
        true = torch.cat([x[: batch // 2], _moved(x[batch // 2 :], theta)])
        still, moved = (
            _closeness(made[: batch // 2], true[: batch // 2]),
            _closeness(made[batch // 2 :], true[batch // 2 :]),
        )
        loss = still + 0.6 * moved + 1e-3 * z.square().mean()
        update(vae, optimizer, loss)
        if step % 50 == 49 or step == steps - 1:
            psnr = 10 * math.log10(4 / (made - true)[: batch // 2].square().mean().item())
            report("autoencoder", step + 1, steps, f"loss {loss.item():.4f}, {psnr:.1f} dB")
        if step % checkpoint_every == checkpoint_every - 1:
            save_checkpoint(out / "autoencoder.pt", step + 1, vae, optimizer)
    _finish_autoencoder(out, vae, pool[:2048], device)


@torch.no_grad()
def _finish_autoencoder(out: Path, vae: Any, frames: Tensor, device: torch.device) -> None:
    codes = torch.cat([vae.encoder((part.float() / 127.5 - 1).to(device)) for part in frames.split(128)]).float()
    vae.standardise(codes.mean((0, 2, 3)), codes.std((0, 2, 3)))
    weights = {k: v.detach().cpu().contiguous() for k, v in vae.state_dict().items()}
    with replacing(out / "autoencoder.safetensors") as part:
        save_file(weights, part)
    (out / "autoencoder.pt").unlink(missing_ok=True)


def _turns(n: int, g: torch.Generator) -> Tensor:
    """(n, 2, 3) random shifts, some with a turn and a change of scale."""
    angle = torch.randn(n, generator=g) * 0.35 * (torch.rand(n, generator=g) < 0.5)
    scale = torch.exp(torch.randn(n, generator=g) * 0.12)
    shift = (torch.rand(n, 2, generator=g) - 0.5) * 0.3
    cos, sin = angle.cos() * scale, angle.sin() * scale
    return torch.stack([torch.stack([cos, -sin, shift[:, 0]], -1), torch.stack([sin, cos, shift[:, 1]], -1)], 1)


def _moved(x: Tensor, theta: Tensor) -> Tensor:
    grid = affine_grid(theta, list(x.shape), align_corners=False)
    return grid_sample(x, grid, padding_mode="reflection", align_corners=False)
