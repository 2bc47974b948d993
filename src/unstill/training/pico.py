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

from unstill.data import synthetic_world
from unstill.data.captions import codes
from unstill.data.files import replacing
from unstill.data.ownership import check_folder, write_record
from unstill.errors import UnstillError
from unstill.families.pico import image_noise_id
from unstill.latent_statistics import LatentStatistics
from unstill.models.pico import PicoAutoencoder, PicoPipeline, PicoTransformer, edm_scheduler, motion_bucket
from unstill.models.pico.pipeline import MAX_IMAGE_NOISE
from unstill.models.pico.text import one_hot
from unstill.models.saving import save
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
    pipe = PicoPipeline(vae=vae.cpu(), transformer=unet, scheduler=edm_scheduler())
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

    latents (N, F, C, h, w) float16, motion (N,), captions of both directions (N, 2, L) uint8, plain (N,): no collage.
    """
    folder = out / "latents"
    folder.mkdir(exist_ok=True)
    device = next(vae.parameters()).device
    for index, start in enumerate(range(0, recipe.clips, part)):
        path = folder / f"{index:04d}.safetensors"
        if index % processes != rank or path.exists():
            continue
        g = generator(recipe.seed, 3, index)
        names = ("latents", "motion", "captions", "plain")
        made: dict[str, list[Tensor]] = {name: [] for name in names}
        for left in range(min(part, recipe.clips - start), 0, -64):
            scene = synthetic_world.sample_scene(min(64, left), g, size=recipe.size)
            motion = synthetic_world.sample_motion(scene, g)
            clips = synthetic_world.render(scene, motion, recipe.frames, recipe.size)
            pixels = (clips.video.flatten(0, 1) * 2 - 1).to(device)
            with torch.no_grad():
                coded = torch.cat([vae.encoder(p) for p in pixels.split(128)])
            made["latents"].append(coded.unflatten(0, clips.video.shape[:2]).half().cpu())
            made["motion"].append(clips.motion)
            told = [codes(scene, motion, recipe.frames, backwards) for backwards in (False, True)]
            made["captions"].append(torch.stack(told, 1))
            made["plain"].append(scene.background == synthetic_world.BACKGROUNDS.index("waves"))
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

    def to(self, device: torch.device) -> "Batch":
        return Batch(*(getattr(self, one.name).to(device) for one in fields(self)))


def denoising_loss(network: nn.Module, batch: Batch) -> Tensor:
    """Errors (B,) of the v-prediction.

    They are Stable Video Diffusion's (sigma_data = 1): the EDM loss of the denoised clip with weight
    (1 + sigma^2) / sigma^2.
    """
    clean, s = batch.clean, batch.sigma[:, None, None, None, None]
    norm = (1 + s * s).sqrt()
    noisy = clean + s * batch.noise
    model_input = torch.cat([noisy / norm, batch.image[:, None].expand(-1, clean.shape[1], -1, -1, -1)], 2)
    v = network(model_input, 0.25 * batch.sigma.log(), batch.words, batch.ids, return_dict=False)[0]
    target = (batch.noise - s * clean) / norm  # v = alpha eps - sigma x0 in variance-preserving coordinates
    return (v.float() - target).square().mean((1, 2, 3, 4))


def _train_denoiser(
    out: Path,
    recipe: PicoRecipe,
    accelerator: Accelerator,
    data: dict[str, Tensor],
    report: Report,
    compile: bool,
    checkpoint_every: int,
) -> PicoTransformer:
    torch.manual_seed(recipe.seed)
    device, rank = accelerator.device, accelerator.process_index
    unet = PicoTransformer(num_frames=recipe.frames, sample_size=recipe.size // 8).to(device)
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
        errors = denoising_loss(model, batch)
        loss = errors.mean()
        if pictures:
            drawn = denoising_loss(model, _draw_pictures(recipe, data, pictures, g).to(device)).mean()
            still.append(drawn.item())
            loss = loss + recipe.picture_weight * drawn
        update(model, optimizer, loss, accelerator)
        decay = min(recipe.ema, (step + 1) / (step + 10))
        torch._foreach_lerp_(list(average.values()), [p.detach() for p in unet.parameters()], 1 - decay)
        for level, error in zip(batch.sigma.tolist(), errors.tolist(), strict=True):
            losses[sum(level > b for b in SIGMA_BINS)].append(error)
        if step % 50 == 49 or step == recipe.steps - 1:
            means = " ".join(f"{sum(part) / len(part):.3f}" if part else "-" for part in losses)
            speed = (step + 1 - first) * recipe.batch / (time.monotonic() - began)
            picture = f"pictures {sum(still) / len(still):.3f}, " if still else ""
            line = f"loss by noise level {means}, {picture}{speed:.1f} clips/s"
            report("denoiser", step + 1, recipe.steps, line)
            losses, still = [[] for _ in losses], []
        if accelerator.is_main_process and step % checkpoint_every == checkpoint_every - 1:
            save_checkpoint(out / "denoiser.pt", step + 1, unet, optimizer, average)
    if accelerator.is_main_process:
        save_checkpoint(out / "denoiser.pt", max(first, recipe.steps), unet, optimizer, average)
    finished = PicoTransformer(num_frames=recipe.frames, sample_size=recipe.size // 8)
    finished.load_state_dict({k: v.cpu() for k, v in average.items()})
    return finished


def _draw_clips(recipe: PicoRecipe, data: dict[str, Tensor], n: int, g: torch.Generator) -> Batch:
    """Some clips run backwards; some lack their image, their caption or their motion level."""

    def chance(p: float | Tensor) -> Tensor:
        return torch.rand(n, generator=g) < p

    chosen = torch.randint(len(data["motion"]), (n,), generator=g)
    latents = data["latents"][chosen].float()
    turned = chance(0.5)
    backwards = turned[:, None, None, None, None]
    clean = torch.where(backwards, latents.flip(1), latents)
    shown = ~chance(recipe.drop)
    # What has no image needs its caption more.
    told = ~chance(torch.where(shown, recipe.silence, recipe.drop))
    strength = chance(recipe.noisy_image) * (torch.randn(n, generator=g) - 2.5).exp().clamp(max=MAX_IMAGE_NOISE)
    strength = strength * shown
    noise = torch.randn(clean[:, 0].shape, generator=g)
    return _batch(
        recipe,
        g,
        clean=clean,
        image=clean[:, 0] * shown[:, None, None, None] + strength[:, None, None, None] * noise,
        words=one_hot(data["captions"][chosen, turned.long()]) * told[:, None, None],
        bucket=torch.where(
            chance(recipe.drop), PicoTransformer.unspecified_motion, motion_bucket(data["motion"][chosen])
        ),
        image_noise=strength,
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
        words=one_hot(data["captions"][chosen, way]) * told[:, None, None],
        bucket=torch.full((n,), PicoTransformer.unspecified_motion),
        image_noise=torch.zeros(n),
    )


def _batch(
    recipe: PicoRecipe,
    g: torch.Generator,
    clean: Tensor,
    image: Tensor,
    words: Tensor,
    bucket: Tensor,
    image_noise: Tensor,
) -> Batch:
    """Adds noise and what the network is told beside words."""
    n = len(clean)
    ids = torch.stack([torch.full((n,), synthetic_world.FPS - 1.0), bucket, image_noise_id(image_noise)], 1)
    sigma = (torch.randn(n, generator=g) * recipe.log_sigma_std + recipe.log_sigma_mean).exp().clamp(0.01, 700)
    return Batch(clean, image, words, sigma, torch.randn(clean.shape, generator=g), ids)
