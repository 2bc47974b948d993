"""
Noise rectification: the predicted noise is pulled towards the noise that the video was in fact made from.

Li et al., "Tuning-Free Noise Rectification for High Fidelity Image-to-Video Generation",
https://huggingface.co/papers/2403.02827.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from unstill.errors import UnstillError
from unstill.methods.base import Method, Run
from unstill.methods.noise_levels import SMALLEST_SIGNAL
from unstill.noise_schedule import Grid


@dataclass(frozen=True, kw_only=True, slots=True)
class NoiseRectification(Method):
    """
    Starts from the noised image on every frame and corrects the model towards the noise that was added to it. The
    video stays close to its image; also a text-to-video model animates an image this way.

    Predictions of every type are corrected, after guidance, by `output + gain * (eps' - eps)`. Where the sample holds
    no signal (the first step of flow-matching and zero-terminal-SNR schedules) the gain is infinite and eps' = eps;
    the limit for a vanishing signal is taken there, in terms of x0.

    When another method makes the first latents (`AnalyticInit`, `FrameInit`), only the correction remains, towards the
    noise that would have made these latents from the image.

    Args:
        period: in which part of the steps the model is corrected; the longer, the more faithful. First and last share,
            step `i` of `N` where `N * period[0] <= i < N * period[1]`.
        weights: how free each latent frame is, one number for each: the larger, the freer; that of frame 0 has no
            effect. Without them `frame_weights(F, *curve)`.
        curve: how free the first and the last frame are where there are no `weights`: `start` and `end` of
            `frame_weights`.
        posterior: whether the image given to `apply` is encoded as a random `"sample"` of the VAE's posterior (drawn
            from the call's generator after the noise) or as its `"mode"`. A pipeline that encodes its image decides
            that itself.
    """

    period: tuple[float, float] = (0.0, 0.6)
    weights: Sequence[float] | None = None
    curve: tuple[float, float] = (1.0, 0.5)
    posterior: Literal["sample", "mode"] = "sample"

    summary = "Corrects each prediction towards the image: closer, with less motion."
    use_when = "no longer looks like the image"
    cost = "one tensor; some motion"
    rank = 30
    needs = frozenset({"image"})
    # The released code differs in its default only, which is not to rectify at all; the paper's period is used here.
    presets = {"paper": {}, "released": {}}

    def __post_init__(self) -> None:
        first, last = self.period
        if not 0 <= first < last <= 1:
            raise UnstillError(f"period is a non-empty range of shares of the steps, as (0, 0.6), not {self.period}.")
        if self.posterior not in ("sample", "mode"):
            raise UnstillError(f"posterior is 'sample' or 'mode', not {self.posterior!r}.")
        if self.weights is not None:
            object.__setattr__(self, "weights", tuple(map(float, self.weights)))
        if not all(abs(weight) <= 1e6 for weight in (*self.curve, *(self.weights or ()))):
            raise UnstillError("NoiseRectification takes weights of at most a million, written as numbers.")

    def on_start(self, run: Run, latents: torch.Tensor) -> torch.Tensor:
        if self.weights is not None and len(self.weights) != run.frames:
            raise UnstillError(
                f"NoiseRectification was given {len(self.weights)} weights for a video of {run.frames} latent frames; "
                "give one per frame."
            )
        if self.posterior == "sample" and run.encode_image is not None:
            if isinstance(run.generator, list):
                encoded = [run.encode_image(generator)[i : i + 1] for i, generator in enumerate(run.generator)]
                run.image_latents = torch.cat(encoded)
            else:
                run.image_latents = run.encode_image(run.generator or torch.default_generator)
        if any("latents" in method.owns for method in run.methods):
            return latents
        return run.process.add_noise(_image(run), run.noise, run.grid.timesteps[0], 0)  # Algorithm 1

    def on_step(self, run: Run, output: torch.Tensor, sample: torch.Tensor, t: torch.Tensor | float) -> torch.Tensor:
        alpha, sigma = run.process.alpha_sigma(t, run.step)
        weights = run.state_of(self)
        if weights is None:
            # The noise that makes these latents from the image takes the place of the one that they were made from.
            run.noise = (sample - alpha * _image(run)) / sigma
            weights = self._weights(run.frames).to(sample)
            run.set_state(self, weights)
        if not self._due(run.step, run.grid):
            return output
        noise = run.noise
        if alpha > SMALLEST_SIGNAL * math.hypot(alpha, sigma):
            eps = run.process.to_eps(output, sample, t, run.step)
            return run.process.correct(output, rectify(eps, noise, weights).sub_(eps), sample, t, run.step)
        if run.process.prediction == "epsilon":  # which says nothing about x0 here
            return output
        x0 = run.process.to_x0(output, sample, t, run.step)
        return run.process.from_x0(rectify_video(x0, _image(run), weights), sample, t, run.step)

    def _due(self, call: int, grid: Grid) -> bool:
        # In steps, not model calls: a second-order solver calls the model twice per step.
        steps = math.ceil(len(grid.timesteps) / grid.order)
        first, last = self.period
        return steps * first <= call // grid.order < steps * last

    def _weights(self, frames: int) -> torch.Tensor:
        return frame_weights(frames, *self.curve) if self.weights is None else torch.tensor(self.weights)


def frame_weights(frames: int, start: float = 1.0, end: float = 0.5) -> torch.Tensor:
    """
    The default weights `(F,)`: from `start` to `end` over the first half of the frames, then flat. With an odd number
    of frames the flat part is the longer one.
    """
    half = frames // 2
    return torch.cat([torch.linspace(start, end, half), torch.full((frames - half,), float(end))])


def rectify(eps: torch.Tensor, noise: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """
    Eq. 8: `eps + w * gap[frame 0] + (1 - w) * gap` with `gap = noise - eps`. Frame 0 becomes the noise itself.

    Args:
        eps: predicted noise `(B, C, F, H, W)`, after guidance.
        noise: the noise the video was made from, same shape.
        weights: `(F,)`. 0 gives the noise itself (a still video), 1 moves every frame by the gap of frame 0.
    """
    # eps + gap = noise, so that Eq. 8 is noise + w * (gap[frame 0] - gap): one new tensor, and frame 0 is exact.
    result = eps - noise
    result += noise[:, :, :1] - eps[:, :, :1]
    result *= weights.to(eps).view(-1, 1, 1)
    result += noise
    return result


def rectify_video(x0: torch.Tensor, image: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """
    Eq. 8 in terms of x0, for a sample that is exactly alpha * image + sigma * noise: `image + w * (x0 - x0[frame 0])`.
    In this form it holds for alpha = 0 as well.

    Args:
        x0: predicted video `(B, C, F, H, W)`.
        image: `(B, C, 1, H, W)`.
        weights: `(F,)`.
    """
    return image + weights.to(x0).view(-1, 1, 1) * (x0 - x0[:, :, :1])


def rectify_x0(
    x0: torch.Tensor,
    sample: torch.Tensor,
    noise: torch.Tensor,
    image: torch.Tensor,
    weights: torch.Tensor,
    alpha: float,
    sigma: float,
) -> torch.Tensor:
    """
    Eq. 8 of a prediction that is given as x0: `rectify` of its noise, and `rectify_video` where the sample holds no
    signal.

    Args:
        x0: predicted video `(B, C, F, H, W)`, after guidance.
        sample: alpha * video + sigma * noise, same shape.
        noise: the noise the video was made from, same shape.
        image: `(B, C, 1, H, W)`.
        weights: `(F,)`.
        alpha, sigma: of the sample.

    Returns:
        The rectified x0, of the shape of `x0`.
    """
    if alpha <= SMALLEST_SIGNAL * math.hypot(alpha, sigma):
        return rectify_video(x0, image, weights)
    eps = (sample - alpha * x0) / sigma
    return x0 - sigma / alpha * (rectify(eps, noise, weights) - eps)


def _image(run: Run) -> torch.Tensor:
    assert run.image_latents is not None  # guaranteed by `needs`
    return run.image_latents[:, :, :1]
