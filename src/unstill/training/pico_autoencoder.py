"""Training of the embedded model's autoencoder: reconstruction, and latents that transform like the picture."""

import math
from pathlib import Path

import torch
from accelerate import Accelerator
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import affine_grid, grid_sample

from unstill.data import synthetic_world
from unstill.data.files import replacing
from unstill.models.pico import PicoAutoencoder
from unstill.progress import FigureProgress
from unstill.training.learning_rate import warmup_and_decay
from unstill.training.pico_fit import Phase, train_network
from unstill.training.pico_recipe import PicoRecipe, generator


RATE = 2e-3  # learning rate
CHUNK = 64  # clips that are rendered at once, for two frames each


class Reconstruction(nn.Module):
    """Encodes and decodes a batch; the latents of its second half are transformed in between."""

    def __init__(self, vae: PicoAutoencoder) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, x: Tensor, theta: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Pictures (B, 3, H, W), affine maps (B/2, 2, 3) and unit noise to latents and pictures."""
        half = len(x) // 2
        z = self.vae.encoder(x.contiguous(memory_format=torch.channels_last)).float()
        z = torch.cat([z[:half], transformed(z[half:], theta)])
        # Noise of 5 %, so that the decoder tolerates errors of the denoiser.
        return z, self.vae.decoder(z + 0.05 * z.detach().std() * noise).float()


class _Loss:
    """Draws batches from the pool of frames and keeps the squared error of the last one for the log."""

    def __init__(self, pool: Tensor, batch: int) -> None:
        self.pool, self.batch, self.error = pool, batch, torch.ones(())

    def __call__(self, model: nn.Module, step: int, g: torch.Generator) -> Tensor:
        device, half = self.pool.device, self.batch // 2
        x = self.pool[torch.randint(len(self.pool), (self.batch,), generator=g, device=device)].float() / 127.5 - 1
        if step % 2:
            x = x[:, torch.randperm(3, generator=g, device=device)]
        if step % 3 == 0:
            x = x.flip(-1)
        theta = affine_maps(half, g)
        side = x.shape[-1] // 8
        noise = torch.randn(self.batch, 12, side, side, generator=g, device=device)
        z, output = model(x, theta, noise)
        target = torch.cat([x[:half], transformed(x[half:], theta)])
        self.error = (output[:half] - target[:half]).detach().square().mean()
        plain = reconstruction_error(output[:half], target[:half])
        equivariant = reconstruction_error(output[half:], target[half:])
        return plain + 0.6 * equivariant + 1e-3 * z.square().mean()

    def figures(self) -> str:
        return f"{10 * math.log10(4 / self.error.item()):.1f} dB"


def train_autoencoder(
    out: Path, recipe: PicoRecipe, accelerator: Accelerator, report: FigureProgress, checkpoint_every: int
) -> None:
    """Trains, or resumes; the main process writes `out/autoencoder.safetensors` at the end."""
    torch.manual_seed(recipe.seed)
    vae = PicoAutoencoder()
    vae.to(accelerator.device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(vae.parameters(), RATE, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    pool = frame_pool(recipe, accelerator.device, report)
    loss = _Loss(pool, recipe.autoencoder_batch // accelerator.num_processes)

    def rate(step: int) -> float:
        return warmup_and_decay(step, recipe.autoencoder_steps, warmup=200, decay=0.4, floor=0.005)

    phase = Phase(
        name="autoencoder",
        key=(recipe.seed, 2),
        steps=recipe.autoencoder_steps,
        batch=recipe.autoencoder_batch,
        unit="frames",
        rate=rate,
        loss=loss,
        figures=loss.figures,
    )
    train_network(phase, Reconstruction(vae), [optimizer], out / "autoencoder", accelerator, report, checkpoint_every)
    if accelerator.is_main_process:
        with torch.no_grad():
            codes = torch.cat([vae.encoder(part.float() / 127.5 - 1) for part in pool[:4096].split(128)]).float()
        vae.standardise(codes.mean((0, 2, 3)), codes.std((0, 2, 3)))
        with replacing(out / "autoencoder.safetensors") as part:
            save_file({k: v.detach().cpu().contiguous() for k, v in vae.state_dict().items()}, part)


def frame_pool(recipe: PicoRecipe, device: torch.device, report: FigureProgress) -> Tensor:
    """(N, 3, H, W) uint8 frames on the device, half of them with collages as background, in place of photographs."""
    pool: list[Tensor] = []
    for start in range(0, recipe.autoencoder_frames, 2 * CHUNK):
        g = generator(recipe.seed, 1, start, device=device)
        scene = synthetic_world.sample_scene(CHUNK, g, collage=0.5, size=recipe.size)
        clips = synthetic_world.render(scene, synthetic_world.sample_motion(scene, g), 3, recipe.size)
        pool.append((clips.video[:, ::2].flatten(0, 1) * 255).round().to(torch.uint8))
        report("frames", start + 2 * CHUNK, recipe.autoencoder_frames, "")
    return torch.cat(pool)[: recipe.autoencoder_frames]


def reconstruction_error(output: Tensor, target: Tensor) -> Tensor:
    """L1 + 0.5 L2 + 0.5 L1 of the differences between neighbouring pixels, which preserves sharp edges."""
    across = (output[..., 1:] - output[..., :-1]) - (target[..., 1:] - target[..., :-1])
    down = (output[..., 1:, :] - output[..., :-1, :]) - (target[..., 1:, :] - target[..., :-1, :])
    error = output - target
    return error.abs().mean() + 0.5 * error.square().mean() + 0.5 * (across.abs().mean() + down.abs().mean())


def affine_maps(n: int, g: torch.Generator) -> Tensor:
    """(n, 2, 3) random shifts, some with a rotation and a change of scale, on the generator's device."""
    angle = torch.randn(n, generator=g, device=g.device) * 0.35
    angle = angle * (torch.rand(n, generator=g, device=g.device) < 0.5)
    scale = torch.exp(torch.randn(n, generator=g, device=g.device) * 0.12)
    shift = (torch.rand(n, 2, generator=g, device=g.device) - 0.5) * 0.3
    cos, sin = angle.cos() * scale, angle.sin() * scale
    return torch.stack([torch.stack([cos, -sin, shift[:, 0]], -1), torch.stack([sin, cos, shift[:, 1]], -1)], 1)


def transformed(x: Tensor, theta: Tensor) -> Tensor:
    """Pictures or latents under affine maps (B, 2, 3), float32."""
    grid = affine_grid(theta, list(x.shape), align_corners=False)
    return grid_sample(x.float(), grid, padding_mode="reflection", align_corners=False)
