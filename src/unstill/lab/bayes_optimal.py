"""What the best possible model would predict in the synthetic world.

At high noise even the optimal prediction E[X0 | Xt, image, motion score] moves less than the truth, because it
averages over all motions that the image allows. Only what a model loses beyond that is conditional image leakage. Here
the posterior is computed over a finite set of candidate motions of the same scene; the truth is one of them, so the
reference is optimistic where candidates are sparse (the posterior share of the truth, reported beside it, tells
where).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from unstill.data import synthetic_world


@dataclass(frozen=True)
class Candidates:
    """All considered continuations of one first frame; index 0 is the one that happened."""

    video: Tensor  # (N, F, 3, H, W) in [0, 1]
    score: Tensor  # (N,) motion scores, all near the truth's


def candidates(
    scene: synthetic_world.Scene,
    motion: synthetic_world.Motion,
    generator: torch.Generator,
    n: int = 256,
    frames: int = synthetic_world.FRAMES,
    size: int = synthetic_world.SIZE,
) -> Candidates:
    """Continuations of `scene` (one clip) whose motion score is within 10 % of that of `motion`.

    Motions are drawn from the world's prior and sped up or slowed down to the asked score, which stands for
    conditioning on it.
    """
    truth = synthetic_world.render(scene, motion, frames, size)
    many = scene[torch.zeros(n, dtype=torch.long)]
    drawn = synthetic_world.sample_motion(many, generator)
    for _ in range(3):  # walls make the score not quite proportional to speed
        score = synthetic_world.render(many, drawn, frames, 24).score
        drawn = drawn.scaled((truth.score / score.clamp(min=1e-6)).clamp(0.05, 8.0))
    score = synthetic_world.render(many, drawn, frames, 24).score
    speed = drawn.velocity.norm(dim=-1).amax(-1)
    fits = ((score / truth.score - 1).abs() < 0.1) & (speed < 0.07) & (drawn.pan.norm(dim=-1) < 0.03)
    made = synthetic_world.render(many[fits], drawn[fits], frames, size)
    return Candidates(torch.cat([truth.video, made.video]), torch.cat([truth.score, made.score]))


def posterior_mean(noisy: Tensor, latents: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
    """E[X0 | Xt] under a uniform prior over candidates.

    Args:
        noisy: (F, C, h, w), one candidate plus noise of deviation `sigma`.
        latents: (N, F, C, h, w), the candidates.

    Returns:
        The mean (F, C, h, w) and the posterior probabilities (N,). Since |x - z|^2 = |x|^2 - 2 x.z + |z|^2, one matrix
        product serves.
    """
    x, z = noisy.flatten().double(), latents.flatten(1).double()
    log_weight = (z @ x - 0.5 * z.square().sum(1)) / sigma**2
    weight = log_weight.softmax(0)
    return (weight @ z).view_as(noisy).to(noisy.dtype), weight.float()


def explained_motion(predicted: Tensor, clean: Tensor) -> Tensor:
    """R2 against a static copy of the first frame: 1 is the truth, 0 no better than the still image, negative worse.

    (B, F, C, h, w) each; the result is one number per clip (B,).
    """
    error = (predicted - clean).square().mean((1, 2, 3, 4))
    still = (clean[:, :1] - clean).square().mean((1, 2, 3, 4))
    return 1 - error / still
