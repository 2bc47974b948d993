"""How the embedded model is made: `unstill train pico`, or `accelerate launch -m unstill train pico`.

Four stages, each resumable from its own file in the output folder: the autoencoder, the latents of the synthetic
world, the denoiser, the finished pipeline with its statistics. Nothing depends on when a run was interrupted: whatever
is random at a step is drawn from a generator seeded by (seed, stage, step, process).
"""

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import affine_grid, grid_sample

from unstill.data import world
from unstill.data.atomic import replacing
from unstill.errors import UnstillError
from unstill.models.pico import PicoAutoencoder, PicoPipeline, PicoUNet, edm_scheduler, motion_bucket
from unstill.models.pico.pipeline import FPS
from unstill.statistics import LatentStatistics


SIGMA_BINS = (0.5, 2.0, 8.0, 32.0)  # where the printed losses are split
Report = Callable[[str, int, int, str], None]  # stage, steps done, steps in all, a line of figures


@dataclass(frozen=True, kw_only=True, slots=True)
class PicoRecipe:
    """Everything that decides the weights. docs/pico.md tells how the weights in this package came about."""

    seed: int = 0
    autoencoder_steps: int = 2600
    clips: int = 16384
    steps: int = 4400
    batch: int = 16  # clips per step, over all processes
    learning_rate: float = 1.5e-3
    decay: float = 0.3  # the share of the steps, at the end, over which the learning rate falls to 2 %
    ema: float = 0.999
    log_sigma_mean: float = 0.9
    log_sigma_std: float = 1.6
    displacement_weight: float = 20.0  # the world's exact motion, as an extra target
    drop: float = 0.1  # how often the image, and independently the motion level, is withheld
    frames: int = 8
    size: int = 64


def train(
    out: Path, recipe: PicoRecipe, report: Report, compile: bool = False, checkpoint_every: int = 200
) -> PicoPipeline | None:
    """Trains, or resumes, in the folder `out`. The main process writes `out/pipeline` and returns it."""
    accelerator = Accelerator(mixed_precision="bf16")
    if recipe.batch % accelerator.num_processes:
        raise UnstillError(
            f"batch {recipe.batch} cannot be shared by {accelerator.num_processes} processes; choose a multiple of it."
        )
    out.mkdir(parents=True, exist_ok=True)
    _same_recipe(out / "recipe.json", recipe)
    if accelerator.is_main_process and not (out / "autoencoder.safetensors").exists():
        _train_autoencoder(out, recipe, accelerator.device, report, checkpoint_every)
    accelerator.wait_for_everyone()
    vae = PicoAutoencoder()
    vae.load_state_dict(load_file(out / "autoencoder.safetensors"))
    vae.requires_grad_(False).eval().to(accelerator.device)
    _make_latents(out, recipe, vae, report, accelerator.process_index, accelerator.num_processes)
    accelerator.wait_for_everyone()
    data = _load_latents(out)
    unet = _train_denoiser(out, recipe, accelerator, data, report, compile, checkpoint_every)
    if not accelerator.is_main_process:
        return None
    pipe = PicoPipeline(vae=vae.cpu(), unet=unet, scheduler=edm_scheduler())
    pipe.save_pretrained(out / "pipeline")
    statistics = LatentStatistics()
    for part in data["latents"].split(256):
        statistics.update(part.float().transpose(1, 2))
    statistics.save(out / "pipeline" / "statistics.safetensors")
    return pipe


def _same_recipe(path: Path, recipe: PicoRecipe) -> None:
    """A folder holds one run. Only `steps` may differ: the stretch of constant rate does not depend on it."""
    new = asdict(recipe)
    if path.exists():
        old = json.loads(path.read_text())
        changed = [k for k, v in new.items() if k != "steps" and old.get(k) != v]
        if changed:
            raise UnstillError(
                f"{path.parent} holds a run with another {' and '.join(changed)}; choose another folder or the same."
            )
    with replacing(path) as part:
        part.write_text(json.dumps(new, indent=2) + "\n")


def _generator(*key: int) -> torch.Generator:
    """A generator of its own for every (seed, stage, step, process)."""
    mixed = 0x9E3779B97F4A7C15
    for k in key:
        mixed = ((mixed ^ k) * 0xBF58476D1CE4E5B9) & 0x7FFFFFFFFFFFFFFF
        mixed ^= mixed >> 31
    return torch.Generator().manual_seed(mixed)


def _rate(recipe: PicoRecipe, step: int) -> float:
    """Warm-up, constant, then linear to 2 %."""
    left = (recipe.steps - step) / max(1.0, recipe.decay * recipe.steps)
    return recipe.learning_rate * min(1.0, (step + 1) / 200) * min(1.0, max(0.02, left))


# ---- the autoencoder ------------------------------------------------------------------------------------------------


def _frame_pool(recipe: PicoRecipe, count: int, report: Report) -> Tensor:
    """(count, 3, H, W) uint8 frames, half of them over collages, so that photographs can be coded too."""
    pool: list[Tensor] = []
    for start in range(0, count, 128):
        g = _generator(recipe.seed, 1, start)
        scene = world.sample_scene(64, g, collage=0.5, size=recipe.size)
        clips = world.render(scene, world.sample_motion(scene, g), 3, recipe.size)
        pool.append((clips.video[:, ::2].flatten(0, 1) * 255).round().to(torch.uint8))
        report("frames", start + 128, count, "")
    return torch.cat(pool)[:count]


def _closeness(made: Tensor, true: Tensor) -> Tensor:
    """L1, some L2, and L1 of the differences between neighbours, which keeps edges crisp."""
    across = (made[..., 1:] - made[..., :-1]) - (true[..., 1:] - true[..., :-1])
    down = (made[..., 1:, :] - made[..., :-1, :]) - (true[..., 1:, :] - true[..., :-1, :])
    error = made - true
    return error.abs().mean() + 0.5 * error.square().mean() + 0.5 * (across.abs().mean() + down.abs().mean())


def _train_autoencoder(
    out: Path, recipe: PicoRecipe, device: torch.device, report: Report, checkpoint_every: int, batch: int = 32
) -> None:
    torch.manual_seed(recipe.seed)
    vae: Any = PicoAutoencoder().to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(vae.parameters(), 2e-3, betas=(0.9, 0.99), fused=True)
    first = _resume(out / "autoencoder.pt", vae, optimizer)
    steps = recipe.autoencoder_steps
    pool = _frame_pool(recipe, min(16384, max(256, 8 * steps)), report)
    for step in range(first, steps):
        g = _generator(recipe.seed, 2, step)
        x = pool[torch.randint(len(pool), (batch,), generator=g)].float() / 127.5 - 1
        x = x[:, torch.randperm(3, generator=g)] if torch.rand((), generator=g) < 0.5 else x
        x = (x.flip(-1) if torch.rand((), generator=g) < 0.5 else x).to(device)
        theta = _turns(batch // 2, g).to(device)
        noise = torch.randn(batch, 6, recipe.size // 4, recipe.size // 4, generator=g).to(device)
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
        _update(vae, optimizer, loss)
        if step % 50 == 49 or step == steps - 1:
            psnr = 10 * math.log10(4 / (made - true)[: batch // 2].square().mean().item())
            report("autoencoder", step + 1, steps, f"loss {loss.item():.4f}, {psnr:.1f} dB")
        if step % checkpoint_every == checkpoint_every - 1:
            _checkpoint(out / "autoencoder.pt", step + 1, vae, optimizer)
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


# ---- the latents ----------------------------------------------------------------------------------------------------


def _make_latents(
    out: Path, recipe: PicoRecipe, vae: PicoAutoencoder, report: Report, rank: int, processes: int, part: int = 512
) -> None:
    """Renders and encodes the clips, in parts kept on disk.

    latents (N, F, C, h, w) float16, motion (N,), displacements since the first and since the last frame, for playing
    a clip backwards, (N, F, 2, h, w) float16.
    """
    folder = out / "latents"
    folder.mkdir(exist_ok=True)
    device = next(vae.parameters()).device
    for index, start in enumerate(range(0, recipe.clips, part)):
        path = folder / f"{index:04d}.safetensors"
        if index % processes != rank or path.exists():
            continue
        g = _generator(recipe.seed, 3, index)
        made: dict[str, list[Tensor]] = {"latents": [], "motion": [], "since_first": [], "since_last": []}
        for left in range(min(part, recipe.clips - start), 0, -64):
            scene = world.sample_scene(min(64, left), g, size=recipe.size)
            motion = world.sample_motion(scene, g)
            clips = world.render(scene, motion, recipe.frames, recipe.size)
            pixels = (clips.video.flatten(0, 1) * 2 - 1).to(device)
            with torch.no_grad():
                coded = torch.cat([vae.encoder(p) for p in pixels.split(128)])
            made["latents"].append(coded.unflatten(0, clips.video.shape[:2]).half().cpu())
            made["motion"].append(clips.motion)
            for name, since in (("since_first", 0), ("since_last", -1)):
                made[name].append(world.displacement(scene, motion, recipe.frames, recipe.size // 4, since).half())
        with replacing(path) as temporary:
            save_file({name: torch.cat(parts) for name, parts in made.items()}, temporary)
        report("latents", min(start + part, recipe.clips), recipe.clips, "")


def _load_latents(out: Path) -> dict[str, Tensor]:
    parts = [load_file(path) for path in sorted((out / "latents").glob("*.safetensors"))]
    return {name: torch.cat([p[name] for p in parts]) for name in parts[0]}


# ---- the denoiser ---------------------------------------------------------------------------------------------------


def denoising_loss(
    unet: nn.Module, clean: Tensor, image: Tensor, sigma: Tensor, noise: Tensor, ids: Tensor, displacement: Tensor
) -> tuple[Tensor, Tensor]:
    """Per-clip errors (B,) of the v-prediction and of the displacement of the image's first layer.

    clean, noise (B, F, C, h, w); image (B, C, h, w); sigma (B,); displacement (B, F, 2, h, w) in picture sides. The
    first is Stable Video Diffusion's (sigma_data = 1): the EDM loss of the denoised clip with weight
    (1 + sigma^2) / sigma^2.
    """
    s = sigma[:, None, None, None, None]
    norm = (1 + s * s).sqrt()
    noisy = clean + s * noise
    model_input = torch.cat([noisy / norm, image[:, None].expand(-1, clean.shape[1], -1, -1, -1)], 2)
    v, moved = unet(model_input, 0.25 * sigma.log(), None, ids, return_dict=False)
    target = (noise - s * clean) / norm  # v = alpha eps - sigma x0 in variance-preserving coordinates
    lost = (moved.float() - displacement).abs().mean((1, 2, 3, 4))
    return (v.float() - target).square().mean((1, 2, 3, 4)), lost


def _train_denoiser(
    out: Path,
    recipe: PicoRecipe,
    accelerator: Accelerator,
    data: dict[str, Tensor],
    report: Report,
    compile: bool,
    checkpoint_every: int,
) -> PicoUNet:
    torch.manual_seed(recipe.seed)
    device, rank = accelerator.device, accelerator.process_index
    unet = PicoUNet(num_frames=recipe.frames, sample_size=recipe.size // 4)
    unet = unet.to(device, memory_format=torch.channels_last)
    average = {k: v.detach().clone() for k, v in unet.named_parameters()}
    optimizer = torch.optim.AdamW(
        unet.parameters(), recipe.learning_rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True
    )
    first = _resume(out / "denoiser.pt", unet, optimizer, average)
    if compile:
        unet.compile()
    model, optimizer = accelerator.prepare(unet, optimizer)
    share = recipe.batch // accelerator.num_processes
    losses: list[list[float]] = [[] for _ in range(len(SIGMA_BINS) + 1)]
    began = time.monotonic()
    for step in range(first, recipe.steps):
        g = _generator(recipe.seed, 4, step, rank)
        batch = [t.to(device) for t in _draw(recipe, data, share, g)]
        for group in optimizer.param_groups:
            group["lr"] = _rate(recipe, step)
        errors, lost = denoising_loss(model, *batch)
        _update(model, optimizer, errors.mean() + recipe.displacement_weight * lost.mean(), accelerator)
        decay = min(recipe.ema, (step + 1) / (step + 10))
        torch._foreach_lerp_(list(average.values()), [p.detach() for p in unet.parameters()], 1 - decay)
        for level, error in zip(batch[2].tolist(), errors.tolist(), strict=True):
            losses[sum(level > b for b in SIGMA_BINS)].append(error)
        if step % 50 == 49 or step == recipe.steps - 1:
            means = " ".join(f"{sum(part) / len(part):.3f}" if part else "-" for part in losses)
            speed = (step + 1 - first) * recipe.batch / (time.monotonic() - began)
            line = f"loss by noise level {means}, displacement {lost.mean().item():.4f}, {speed:.1f} clips/s"
            report("denoiser", step + 1, recipe.steps, line)
            losses = [[] for _ in losses]
        if accelerator.is_main_process and step % checkpoint_every == checkpoint_every - 1:
            _checkpoint(out / "denoiser.pt", step + 1, unet, optimizer, average)
    if accelerator.is_main_process:
        _checkpoint(out / "denoiser.pt", max(first, recipe.steps), unet, optimizer, average)
    finished = PicoUNet(num_frames=recipe.frames, sample_size=recipe.size // 4)
    finished.load_state_dict({k: v.cpu() for k, v in average.items()})
    return finished


def _draw(recipe: PicoRecipe, data: dict[str, Tensor], n: int, g: torch.Generator) -> list[Tensor]:
    """One batch, as `denoising_loss` takes it: some clips backwards, some images and motion levels withheld."""

    def chance(p: float) -> Tensor:
        return torch.rand(n, generator=g) < p

    chosen = torch.randint(len(data["motion"]), (n,), generator=g)
    some = {name: tensor[chosen].float() for name, tensor in data.items()}
    backwards = chance(0.5)[:, None, None, None, None]
    clean = torch.where(backwards, some["latents"].flip(1), some["latents"])
    displacement = torch.where(backwards, some["since_last"].flip(1), some["since_first"])
    image = clean[:, 0] * ~chance(recipe.drop)[:, None, None, None]
    bucket = torch.where(chance(recipe.drop), PicoUNet.unspecified_motion, motion_bucket(some["motion"]))
    ids = torch.stack([torch.full((n,), FPS - 1.0), bucket, torch.zeros(n)], 1)
    sigma = (torch.randn(n, generator=g) * recipe.log_sigma_std + recipe.log_sigma_mean).exp().clamp(0.01, 700)
    return [clean, image, sigma, torch.randn(clean.shape, generator=g), ids, displacement]


def _update(model: nn.Module, optimizer: Any, loss: Tensor, accelerator: Accelerator | None = None) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward() if accelerator is None else accelerator.backward(loss)
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()


def _checkpoint(
    path: Path, step: int, model: nn.Module, optimizer: Any, average: dict[str, Tensor] | None = None
) -> None:
    state = {"step": step, "model": model.state_dict(), "optimizer": optimizer.state_dict(), "average": average}
    with replacing(path) as part:
        torch.save(state, part)


def _resume(path: Path, model: nn.Module, optimizer: Any, average: dict[str, Tensor] | None = None) -> int:
    if not path.exists():
        return 0
    state = torch.load(path, map_location="cpu", weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    for name, value in (average or {}).items():
        value.copy_(state["average"][name])
    return int(state["step"])
