"""How the embedded model is made: `unstill train pico`, or `accelerate launch -m unstill train pico`.

Four stages, each resumable from its own file in the output folder: the autoencoder, the latents of the synthetic
world, the denoiser, the finished pipeline with its statistics. Nothing depends on when a run was interrupted: whatever
is random at a step is drawn from a generator seeded by (seed, stage, step, process).
"""

import json
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from unstill.data import world
from unstill.data.files import replacing
from unstill.data.ownership import check_folder, write_record
from unstill.errors import UnstillError
from unstill.models.pico import PicoAutoencoder, PicoPipeline, PicoUNet, edm_scheduler, motion_bucket
from unstill.models.pico.pipeline import FPS
from unstill.models.pico.text import embed
from unstill.models.saving import save
from unstill.statistics import LatentStatistics
from unstill.training.pico_autoencoder import train_autoencoder
from unstill.training.pico_recipe import PicoRecipe, Report, generator, resume, save_checkpoint, update


SIGMA_BINS = (0.5, 2.0, 8.0, 32.0)  # where the printed losses are split


RUN_FILES = (
    *("recipe.json", "autoencoder.pt", "autoencoder.safetensors", "latents", "denoiser.pt"),
    *("pipeline", "made.json"),
)
"""What a run writes into its folder."""


def train(
    out: Path, recipe: PicoRecipe, report: Report, compile: bool = False, checkpoint_every: int = 200
) -> PicoPipeline | None:
    """Trains, or resumes, in the folder `out`. The main process writes `out/pipeline` and returns it."""
    accelerator = Accelerator(mixed_precision="bf16")
    for name, size in (("batch", recipe.batch), ("pictures", recipe.pictures)):
        if size % accelerator.num_processes:
            raise UnstillError(
                f"{name} {size} cannot be shared by {accelerator.num_processes} processes; choose a multiple of it."
            )
    out.mkdir(parents=True, exist_ok=True)
    _same_recipe(out / "recipe.json", recipe)
    if accelerator.is_main_process and not (out / "autoencoder.safetensors").exists():
        train_autoencoder(out, recipe, accelerator.device, report, checkpoint_every)
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
    statistics = LatentStatistics()
    for part in data["latents"].split(256):
        statistics.update(part.float().transpose(1, 2))
    save(pipe, out / "pipeline", lambda folder: _save_statistics(statistics, folder))
    return pipe


def _save_statistics(statistics: LatentStatistics, folder: Path) -> None:
    statistics.save(folder / "statistics.safetensors")


def _same_recipe(path: Path, recipe: PicoRecipe) -> None:
    """A folder holds one run. Only `steps` may differ: the stretch of constant rate does not depend on it."""
    new = asdict(recipe)
    check_folder(path.parent, path.name, RUN_FILES)
    if path.exists():
        old = json.loads(path.read_text())
        changed = [k for k, v in new.items() if k != "steps" and old.get(k) != v]
        if changed:
            raise UnstillError(
                f"{path.parent} holds a run with another {' and '.join(changed)}; choose another folder or the same."
            )
    with replacing(path) as part:
        write_record(part, new)


def _rate(recipe: PicoRecipe, step: int) -> float:
    """Warm-up, constant, then linear to 2 %."""
    left = (recipe.steps - step) / max(1.0, recipe.decay * recipe.steps)
    return recipe.learning_rate * min(1.0, (step + 1) / 200) * min(1.0, max(0.02, left))


# ---- the latents ----------------------------------------------------------------------------------------------------


def _make_latents(
    out: Path, recipe: PicoRecipe, vae: PicoAutoencoder, report: Report, rank: int, processes: int, part: int = 512
) -> None:
    """Renders and encodes the clips, in parts kept on disk.

    latents (N, F, C, h, w) float16, motion (N,), displacements since the first and since the last frame, for playing
    a clip backwards, (N, F, 2, h, w) float16, captions of both ways (N, 2, L, D) uint8, plain (N,): no collage.
    """
    folder = out / "latents"
    folder.mkdir(exist_ok=True)
    device = next(vae.parameters()).device
    for index, start in enumerate(range(0, recipe.clips, part)):
        path = folder / f"{index:04d}.safetensors"
        if index % processes != rank or path.exists():
            continue
        g = generator(recipe.seed, 3, index)
        names = ("latents", "motion", "since_first", "since_last", "captions", "plain")
        made: dict[str, list[Tensor]] = {name: [] for name in names}
        for left in range(min(part, recipe.clips - start), 0, -64):
            scene = world.sample_scene(min(64, left), g, size=recipe.size)
            motion = world.sample_motion(scene, g)
            clips = world.render(scene, motion, recipe.frames, recipe.size)
            pixels = (clips.video.flatten(0, 1) * 2 - 1).to(device)
            with torch.no_grad():
                coded = torch.cat([vae.encoder(p) for p in pixels.split(128)])
            made["latents"].append(coded.unflatten(0, clips.video.shape[:2]).half().cpu())
            made["motion"].append(clips.motion)
            told = [embed(world.captions(scene, motion, recipe.frames, backwards)) for backwards in (False, True)]
            made["captions"].append(torch.stack(told, 1).to(torch.uint8))
            made["plain"].append(scene.background == world.BACKGROUNDS.index("waves"))
            for name, since in (("since_first", 0), ("since_last", -1)):
                made[name].append(world.displacement(scene, motion, recipe.frames, recipe.size // 4, since).half())
        with replacing(path) as temporary:
            save_file({name: torch.cat(parts) for name, parts in made.items()}, temporary)
        report("latents", min(start + part, recipe.clips), recipe.clips, "")


def _load_latents(out: Path) -> dict[str, Tensor]:
    parts = [load_file(path) for path in sorted((out / "latents").glob("*.safetensors"))]
    return {name: torch.cat([p[name] for p in parts]) for name in parts[0]}


# ---- the denoiser ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Batch:
    """What the denoiser is trained on at one step."""

    clean: Tensor  # (B, F, C, h, w)
    image: Tensor  # (B, C, h, w), zeros where it is withheld
    words: Tensor  # (B, L, D), likewise
    sigma: Tensor  # (B,)
    noise: Tensor  # (B, F, C, h, w)
    ids: Tensor  # (B, 3)
    displacement: Tensor  # (B, F, 2, h, w), in picture sides

    def to(self, device: torch.device) -> "Batch":
        return Batch(*(getattr(self, one.name).to(device) for one in fields(self)))


def denoising_loss(unet: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """Per-clip errors (B,) of the v-prediction and of the displacement of the image's first layer.

    The first is Stable Video Diffusion's (sigma_data = 1): the EDM loss of the denoised clip with weight
    (1 + sigma^2) / sigma^2.
    """
    clean, s = batch.clean, batch.sigma[:, None, None, None, None]
    norm = (1 + s * s).sqrt()
    noisy = clean + s * batch.noise
    model_input = torch.cat([noisy / norm, batch.image[:, None].expand(-1, clean.shape[1], -1, -1, -1)], 2)
    v, moved = unet(model_input, 0.25 * batch.sigma.log(), batch.words, batch.ids, return_dict=False)
    target = (batch.noise - s * clean) / norm  # v = alpha eps - sigma x0 in variance-preserving coordinates
    lost = (moved.float() - batch.displacement).abs().mean((1, 2, 3, 4))
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
    first = resume(out / "denoiser.pt", unet, optimizer, average)
    if compile:
        unet.compile(dynamic=False)  # clips and pictures: two shapes, two graphs
    model, optimizer = accelerator.prepare(unet, optimizer)
    clips, pictures = (n // accelerator.num_processes for n in (recipe.batch, recipe.pictures))
    losses: list[list[float]] = [[] for _ in range(len(SIGMA_BINS) + 1)]
    still: list[float] = []
    began = time.monotonic()
    for step in range(first, recipe.steps):
        g = generator(recipe.seed, 4, step, rank)
        batch = _draw_clips(recipe, data, clips, g).to(device)
        for group in optimizer.param_groups:
            group["lr"] = _rate(recipe, step)
        errors, lost = denoising_loss(model, batch)
        loss = errors.mean() + recipe.displacement_weight * lost.mean()
        if pictures:
            drawn = denoising_loss(model, _draw_pictures(recipe, data, pictures, g).to(device))[0].mean()
            still.append(drawn.item())
            loss = loss + drawn
        update(model, optimizer, loss, accelerator)
        decay = min(recipe.ema, (step + 1) / (step + 10))
        torch._foreach_lerp_(list(average.values()), [p.detach() for p in unet.parameters()], 1 - decay)
        for level, error in zip(batch.sigma.tolist(), errors.tolist(), strict=True):
            losses[sum(level > b for b in SIGMA_BINS)].append(error)
        if step % 50 == 49 or step == recipe.steps - 1:
            means = " ".join(f"{sum(part) / len(part):.3f}" if part else "-" for part in losses)
            speed = (step + 1 - first) * recipe.batch / (time.monotonic() - began)
            picture = f"pictures {sum(still) / len(still):.3f}, " if still else ""
            line = f"loss by noise level {means}, {picture}displacement {lost.mean().item():.4f}, {speed:.1f} clips/s"
            report("denoiser", step + 1, recipe.steps, line)
            losses, still = [[] for _ in losses], []
        if accelerator.is_main_process and step % checkpoint_every == checkpoint_every - 1:
            save_checkpoint(out / "denoiser.pt", step + 1, unet, optimizer, average)
    if accelerator.is_main_process:
        save_checkpoint(out / "denoiser.pt", max(first, recipe.steps), unet, optimizer, average)
    finished = PicoUNet(num_frames=recipe.frames, sample_size=recipe.size // 4)
    finished.load_state_dict({k: v.cpu() for k, v in average.items()})
    return finished


def _draw_clips(recipe: PicoRecipe, data: dict[str, Tensor], n: int, g: torch.Generator) -> Batch:
    """Some clips run backwards; some lack their image, their caption or their motion level."""

    def chance(p: float | Tensor) -> Tensor:
        return torch.rand(n, generator=g) < p

    chosen = torch.randint(len(data["motion"]), (n,), generator=g)
    some = {name: tensor[chosen].float() for name, tensor in data.items()}
    turned = chance(0.5)
    backwards = turned[:, None, None, None, None]
    clean = torch.where(backwards, some["latents"].flip(1), some["latents"])
    shown = ~chance(recipe.drop)
    # What has no image needs its caption more.
    told = ~chance(torch.where(shown, recipe.silence, recipe.drop))
    return _batch(
        recipe,
        g,
        clean=clean,
        image=clean[:, 0] * shown[:, None, None, None],
        words=some["captions"][range(n), turned.long()] * told[:, None, None],
        bucket=torch.where(chance(recipe.drop), PicoUNet.unspecified_motion, motion_bucket(some["motion"])),
        displacement=torch.where(backwards, some["since_last"].flip(1), some["since_first"]),
    )


def _draw_pictures(recipe: PicoRecipe, data: dict[str, Tensor], n: int, g: torch.Generator) -> Batch:
    """Single frames without an image, most with the caption of their clip; no collages, which no caption describes."""
    plain = data["plain"].nonzero()[:, 0]
    chosen = plain[torch.randint(len(plain), (n,), generator=g)]
    moment = torch.randint(recipe.frames, (n,), generator=g)
    clean = data["latents"][chosen, moment].float()[:, None]
    told = torch.rand(n, generator=g) >= recipe.drop
    way = torch.randint(2, (n,), generator=g)
    return _batch(
        recipe,
        g,
        clean=clean,
        image=torch.zeros_like(clean[:, 0]),
        words=data["captions"][chosen, way].float() * told[:, None, None],
        bucket=torch.full((n,), PicoUNet.unspecified_motion),
        displacement=clean.new_zeros(n, 1, 2, *clean.shape[-2:]),
    )


def _batch(
    recipe: PicoRecipe,
    g: torch.Generator,
    clean: Tensor,
    image: Tensor,
    words: Tensor,
    bucket: Tensor,
    displacement: Tensor,
) -> Batch:
    """Adds noise and what the network is told beside words."""
    n = len(clean)
    ids = torch.stack([torch.full((n,), FPS - 1.0), bucket, torch.zeros(n)], 1)
    sigma = (torch.randn(n, generator=g) * recipe.log_sigma_std + recipe.log_sigma_mean).exp().clamp(0.01, 700)
    return Batch(clean, image, words, sigma, torch.randn(clean.shape, generator=g), ids, displacement)
