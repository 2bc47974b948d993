"""Training of the embedded model's denoiser: batches of latents, which stay on the device, and the loss."""

from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from unstill.data import synthetic_world
from unstill.errors import UnstillError
from unstill.families.pico import image_noise_id
from unstill.models.pico import PicoTransformer, motion_bucket
from unstill.models.pico.pipeline import MAX_IMAGE_NOISE
from unstill.models.pico.text import one_hot
from unstill.progress import FigureProgress
from unstill.training.learning_rate import warmup_and_decay
from unstill.training.muon import StackedMuon
from unstill.training.parameters import Average, put
from unstill.training.pico_fit import Phase, train_network
from unstill.training.pico_recipe import PicoRecipe


SIGMA_BINS = (0.5, 2.0, 8.0, 32.0, 128.0)  # where the reported losses are split
Latents = dict[str, Tensor]
"""latents (N, F, C, h, w) float16, motion (N,), captions of both directions (N, 2, L) uint8, plain (N,) no collage."""


@dataclass(frozen=True, slots=True)
class Batch:
    """The inputs of one training step."""

    clean: Tensor  # (B, F, C, h, w)
    image: Tensor  # (B, C, h, w), zeros where it is dropped
    caption: Tensor  # (B, L, D), one-hot words, zeros where it is dropped
    sigma: Tensor  # (B,)
    noise: Tensor  # (B, F, C, h, w)
    ids: Tensor  # (B, 3)


def denoising_loss(network: nn.Module, batch: Batch) -> Tensor:
    """Errors (B,) of the v-prediction.

    They are Stable Video Diffusion's (sigma_data = 1): the EDM loss of the denoised clip with weight
    (1 + sigma^2) / sigma^2.
    """
    clean, s = batch.clean, batch.sigma[:, None, None, None, None]
    norm = (1 + s * s).sqrt()
    noisy = clean + s * batch.noise
    model_input = torch.cat([noisy / norm, batch.image[:, None].expand(-1, clean.shape[1], -1, -1, -1)], 2)
    v = network(model_input, 0.25 * batch.sigma.log(), batch.caption, batch.ids, return_dict=False)[0]
    target = (batch.noise - s * clean) / norm  # v = alpha eps - sigma x0 in variance-preserving coordinates
    return (v.float() - target).square().mean((1, 2, 3, 4))


def draw_clips(recipe: PicoRecipe, data: Latents, n: int, g: torch.Generator) -> Batch:
    """Half of the clips run backwards; image, caption and motion level are dropped from some."""

    def chance(p: float | Tensor) -> Tensor:
        return torch.rand(n, generator=g, device=g.device) < p

    chosen = torch.randint(len(data["motion"]), (n,), generator=g, device=g.device)
    latents = data["latents"][chosen].float()
    backwards = chance(0.5)
    clean = torch.where(backwards[:, None, None, None, None], latents.flip(1), latents)
    shown = ~chance(recipe.drop)
    # A caption is dropped less often where the image is dropped.
    captioned = ~chance(torch.where(shown, recipe.drop_caption, recipe.drop))
    level = torch.where(chance(recipe.drop), PicoTransformer.unspecified_motion, motion_bucket(data["motion"][chosen]))
    strength = (torch.randn(n, generator=g, device=g.device) - 2.5).exp().clamp(max=MAX_IMAGE_NOISE)
    strength = strength * chance(recipe.noisy_image) * shown
    noise = torch.randn(clean[:, 0].shape, generator=g, device=g.device)
    image = clean[:, 0] * shown[:, None, None, None] + strength[:, None, None, None] * noise
    caption = one_hot(data["captions"][chosen, backwards.long()]) * captioned[:, None, None]
    return _batch(recipe, g, clean, image, caption, level, strength)


def draw_pictures(recipe: PicoRecipe, data: Latents, n: int, g: torch.Generator) -> Batch:
    """Single frames without an image, most with the caption of their clip; no collages, which no caption describes."""
    plain = data["plain"].nonzero()[:, 0]
    chosen = plain[torch.randint(len(plain), (n,), generator=g, device=g.device)]
    moment = torch.randint(recipe.frames, (n,), generator=g, device=g.device)
    clean = data["latents"][chosen, moment].float()[:, None]
    captioned = torch.rand(n, generator=g, device=g.device) >= recipe.drop
    direction = torch.randint(2, (n,), generator=g, device=g.device)
    caption = one_hot(data["captions"][chosen, direction]) * captioned[:, None, None]
    level = torch.full((n,), PicoTransformer.unspecified_motion, device=g.device)
    return _batch(recipe, g, clean, torch.zeros_like(clean[:, 0]), caption, level, torch.zeros_like(level))


def _batch(
    recipe: PicoRecipe,
    g: torch.Generator,
    clean: Tensor,
    image: Tensor,
    caption: Tensor,
    level: Tensor,
    strength: Tensor,
) -> Batch:
    """Adds noise and the network's conditioning on frame rate, motion level and noise of the image."""
    ids = torch.stack([torch.full_like(level, synthetic_world.FPS - 1.0), level, image_noise_id(strength)], 1)
    sigma = torch.randn(len(clean), generator=g, device=g.device) * recipe.log_sigma_std + recipe.log_sigma_mean
    noise = torch.randn(clean.shape, generator=g, device=g.device)
    return Batch(clean, image, caption, sigma.exp().clamp(0.01, 700), noise, ids)


class _Loss:
    """The loss of a step; keeps sums of the errors by noise level, on the device."""

    def __init__(self, recipe: PicoRecipe, data: Latents, processes: int) -> None:
        self.recipe, self.data, self.processes = recipe, data, processes
        device = data["motion"].device
        self.bins = torch.tensor(SIGMA_BINS, device=device)
        self.sums, self.counts = (torch.zeros(len(SIGMA_BINS) + 1, device=device) for _ in range(2))

    def __call__(self, model: nn.Module, step: int, g: torch.Generator) -> Tensor:
        recipe = self.recipe
        batch = draw_clips(recipe, self.data, recipe.batch // self.processes, g)
        errors = denoising_loss(model, batch)
        where = torch.bucketize(batch.sigma, self.bins)
        self.sums.index_add_(0, where, errors.detach())
        self.counts.index_add_(0, where, torch.ones_like(errors))
        loss = errors.mean()
        if recipe.pictures:
            pictures = draw_pictures(recipe, self.data, recipe.pictures // self.processes, g)
            loss = loss + recipe.picture_weight * denoising_loss(model, pictures).mean()
        return loss

    def figures(self) -> str:
        pairs = zip(self.sums.tolist(), self.counts.tolist(), strict=True)
        means = " ".join(f"{total / count:.3f}" if count else "-" for total, count in pairs)
        self.sums.zero_(), self.counts.zero_()
        return f"by noise level {means}"


def optimizers(network: PicoTransformer, recipe: PicoRecipe) -> tuple[StackedMuon, torch.optim.AdamW]:
    """Muon for the matrices of the blocks, AdamW for everything else."""
    matrices = [part.weight for block in network.blocks for part in block.children() if isinstance(part, nn.Linear)]
    ids = {id(p) for p in matrices}
    others = [p for p in network.parameters() if id(p) not in ids]
    adam = torch.optim.AdamW(others, recipe.adam_rate, betas=(0.9, 0.99), weight_decay=0.0, fused=True)
    return StackedMuon(matrices, recipe.muon_rate, weight_decay=0.01, momentum=0.95), adam


def train_denoiser(
    out: Path,
    recipe: PicoRecipe,
    network: PicoTransformer,
    data: Latents,
    accelerator: Accelerator,
    report: FigureProgress,
    compile: bool,
    checkpoint_every: int,
) -> None:
    """Trains `network`, or resumes; at the end it holds the average of its weights."""
    if recipe.pictures and not bool(data["plain"].any()):
        raise UnstillError(f"None of the {recipe.clips} clips has a caption that describes it; raise clips.")
    network.to(accelerator.device)
    if compile:
        network.compile_repeated_blocks(dynamic=False)  # two shapes of input: clips and single frames
    named = dict(network.named_parameters())
    average = Average(named, recipe.ema)
    loss = _Loss(recipe, data, accelerator.num_processes)

    def rate(step: int) -> float:
        return warmup_and_decay(step, recipe.steps, recipe.warmup, recipe.decay, floor=0.01)

    phase = Phase(
        name="denoiser",
        key=(recipe.seed, 4),
        steps=recipe.steps,
        batch=recipe.batch,
        unit="clips",
        rate=rate,
        loss=loss,
        figures=loss.figures,
    )
    train_network(
        phase, network, optimizers(network, recipe), out / "denoiser", accelerator, report, checkpoint_every, average
    )
    put(named, average.values)
