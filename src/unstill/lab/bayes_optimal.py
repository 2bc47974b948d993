"""
The Bayes-optimal prediction for clips of the synthetic world.

At high noise even the optimal prediction E[X0 | Xt, image, motion score] moves less than the truth, because it
averages over all motions that the image allows. Only the motion that a model loses beyond that is conditional image
leakage. The posterior is computed over a finite set of candidate motions of the same scene, one of which is the truth.
The reference is therefore optimistic where candidates are sparse: where the posterior probability of the truth, which
is reported with it, is large.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from unstill.data import synthetic_world


@dataclass(frozen=True)
class Candidates:
    """Candidate continuations of one first frame; index 0 is the true one."""

    video: Tensor  # (N, F, 3, H, W) in [0, 1]
    score: Tensor  # (N,) motion scores, close to that of the truth


def candidates(
    scene: synthetic_world.Scene,
    motion: synthetic_world.Motion,
    generator: torch.Generator,
    n: int = 256,
    frames: int = synthetic_world.FRAMES,
    size: int = synthetic_world.SIZE,
) -> Candidates:
    """
    Continuations of a scene whose motion score is within 10 % of that of the true motion.

    Motions are drawn from the world's prior and scaled to the score of the truth, which approximates conditioning on
    the score.

    Args:
        scene: of one clip.
        motion: the true motion.
        generator: draws the motions.
        n: number of draws; those that fit the score are kept.
        frames: of each clip.
        size: side of the frames in pixels.
    """
    truth = synthetic_world.render(scene, motion, frames, size)
    scenes = scene[torch.zeros(n, dtype=torch.long)]
    motions = synthetic_world.sample_motion(scenes, generator)
    for _ in range(3):  # toys bounce off the walls, so the score is not exactly proportional to speed
        score = synthetic_world.render(scenes, motions, frames, 24).score
        motions = motions.scaled((truth.score / score.clamp(min=1e-6)).clamp(0.05, 8.0))
    score = synthetic_world.render(scenes, motions, frames, 24).score
    speed = motions.velocity.norm(dim=-1).amax(-1)
    fits = ((score / truth.score - 1).abs() < 0.1) & (speed < 0.07) & (motions.pan.norm(dim=-1) < 0.03)
    alternatives = synthetic_world.render(scenes[fits], motions[fits], frames, size)
    return Candidates(torch.cat([truth.video, alternatives.video]), torch.cat([truth.score, alternatives.score]))


def posterior_mean(noisy: Tensor, latents: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
    """
    E[X0 | Xt] under a uniform prior over candidates.

    Args:
        noisy: (F, C, h, w), one candidate plus noise.
        latents: (N, F, C, h, w), the candidates.
        sigma: standard deviation of the noise.

    Returns:
        The mean (F, C, h, w) and the posterior probabilities (N,).
    """
    # |x - z|^2 = |x|^2 - 2 x.z + |z|^2, where |x|^2 is the same for all candidates.
    x, z = noisy.flatten().double(), latents.flatten(1).double()
    log_weight = (z @ x - 0.5 * z.square().sum(1)) / sigma**2
    weight = log_weight.softmax(0)
    return (weight @ z).view_as(noisy).to(noisy.dtype), weight.float()


def explained_motion(predicted: Tensor, clean: Tensor) -> Tensor:
    """
    R2 against a static copy of the first frame: 1 for the truth, 0 for the static copy, negative if worse than that.

    Args:
        predicted: (B, F, C, h, w).
        clean: the true clips, same shape.

    Returns:
        (B,), one value per clip.
    """
    error = (predicted - clean).square().mean((1, 2, 3, 4))
    still = (clean[:, :1] - clean).square().mean((1, 2, 3, 4))
    return 1 - error / still
