"""
The distribution of noise levels in training, and the training time t in [0, 1] of each level, which TimeNoise uses.

Every kind of model computes its level from one uniform number u per clip, and u is the training time: the share of
clips that are trained at a lower level. For variance-preserving models this is t / T, for flow matching without shift
the flow's own time. For EDM, whose sigmas are unbounded, it is the quantile of sigma: the monotone map that makes the
training distribution uniform, as the paper's time is. The released SVD code uses sigma / 700 instead, which is close
to 0 for nearly every training clip.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from unstill.errors import UnstillError
from unstill.forward_process import ForwardProcess
from unstill.methods.time_noise import per_clip
from unstill.predictions import Prediction, training_target


Time = Literal["quantile", "released"]
SMALLEST = 1e-7  # minimal distance of u from 0 and 1, where the normal quantile is infinite


@dataclass(frozen=True, slots=True)
class Levels:
    """
    The noise levels of a batch, each field `(B,)` float32.

    Attributes:
        prediction: what the network predicts.
        alpha: of x_t = alpha rescale x0 + sigma eps.
        sigma: of the same.
        time: the training time in [0, 1].
        timestep: the network's timestep input.
        input_scale: factor of x_t in the network's input.
        rescale: the dynamic rescale of x0 (DynamiCrafter, VideoCrafter), else 1.
    """

    prediction: Prediction
    alpha: Tensor
    sigma: Tensor
    time: Tensor
    timestep: Tensor
    input_scale: Tensor
    rescale: Tensor

    def noised(self, x0: Tensor, eps: Tensor) -> Tensor:
        """alpha rescale x0 + sigma eps, `(B, C, F, h, w)` float32."""
        return per_clip(self.alpha * self.rescale, x0) * x0 + per_clip(self.sigma, eps) * eps

    def model_input(self, noisy: Tensor) -> Tensor:
        """x_t scaled to the network's input."""
        return per_clip(self.input_scale, noisy) * noisy

    def target(self, x0: Tensor, eps: Tensor) -> Tensor:
        """The training target."""
        alpha, sigma, scale = (per_clip(level, x0) for level in (self.alpha, self.sigma, self.rescale))
        return training_target(self.prediction, alpha, sigma, scale * x0, eps)

    def to(self, device: torch.device) -> "Levels":
        """The levels on another device."""
        tensors = (self.alpha, self.sigma, self.time, self.timestep, self.input_scale, self.rescale)
        return Levels(self.prediction, *(t.to(device) for t in tensors))


@dataclass(frozen=True, slots=True, eq=False)
class VariancePreserving:
    """x_t = sqrt(abar[t]) s(t) x0 + sqrt(1 - abar[t]) eps with t uniform over the T training steps.

    Attributes:
        prediction: what the network predicts.
        abar: (T,) the model's own table, rescaled to zero terminal signal-to-noise where it was trained so.
        rescale: (T,) s(t) of the dynamic rescale.
    """

    prediction: Prediction
    abar: Tensor
    rescale: Tensor

    def at(self, u: Tensor) -> Levels:
        """Levels for uniform u `(B,)` in [0, 1): step floor(u T), with time floor(u T) / T as in the released code."""
        return self.of_steps((u.double() * len(self.abar)).long().clamp(max=len(self.abar) - 1))

    def of_steps(self, t: Tensor) -> Levels:
        """Levels of training steps t `(B,)`, integers."""
        abar = self.abar[t]
        one = torch.ones(len(t))
        time = (t.double() / len(self.abar)).float()
        return Levels(
            self.prediction,
            abar.sqrt().float(),
            (1 - abar).sqrt().float(),
            time,
            t.float(),
            one,
            self.rescale[t].float(),
        )


@dataclass(frozen=True, slots=True)
class EDM:
    """
    x_t = x0 + sigma eps, ln sigma ~ N(mean, std^2); v-prediction from x_t / sqrt(1 + sigma^2), conditioned on
    ln(sigma) / 4.

    The squared error of v is the EDM loss with weight (sigma^2 + 1) / sigma^2 (sigma_data = 1), see
    `loss_weights.denoising`. (mean, std) are (0.7, 1.6) in Stable Video Diffusion's own training and (-1.2, 1.2) in
    the released TimeNoise code.
    """

    mean: float = 0.7
    std: float = 1.6
    time: Time = "quantile"

    def at(self, u: Tensor) -> Levels:
        """Levels of uniform numbers u `(B,)`: u is the quantile of sigma."""
        normal = torch.special.ndtri(u.double().clamp(SMALLEST, 1 - SMALLEST))
        return self.of_sigmas((self.mean + self.std * normal).exp())

    def of_sigmas(self, sigma: Tensor) -> Levels:
        """Levels of sigmas `(B,)`."""
        sigma = sigma.double()
        log, one = sigma.log(), torch.ones_like(sigma)
        quantile = torch.special.ndtr((log - self.mean) / self.std)
        time = quantile if self.time == "quantile" else sigma / 700
        levels = one, sigma, time, log / 4, (1 + sigma**2).rsqrt(), one
        return Levels("v_prediction", *(x.float() for x in levels))


@dataclass(frozen=True, slots=True)
class Flow:
    """
    x_t = (1 - sigma) x0 + sigma eps, conditioned on `steps` sigma, predicting eps - x0.

    sigma is uniform, or logit-normal (`std` > 0), then shifted: shift s / (1 + (shift - 1) s). The training time is
    sigma's quantile in this distribution, which for uniform sigma without shift is sigma itself. A network that
    denoises only the levels from `lowest` on is trained on that part of the distribution.
    """

    shift: float = 1.0
    std: float = 0.0
    steps: int = 1000
    lowest: float = 0.0

    def at(self, u: Tensor) -> Levels:
        """Levels of uniform numbers u `(B,)`: the quantile of sigma among the levels of the network."""
        first = self._quantile(self.lowest)
        u = first + (1 - first) * u
        even = u.double().clamp(SMALLEST, 1 - SMALLEST)
        drawn = torch.sigmoid(self.std * torch.special.ndtri(even)) if self.std else even
        sigma = self.shift * drawn / (1 + (self.shift - 1) * drawn)
        one = torch.ones_like(sigma)
        levels = 1 - sigma, sigma, u, self.steps * sigma, one, one
        return Levels("flow_prediction", *(x.float() for x in levels))

    def _quantile(self, sigma: float) -> float:
        """The share of levels below sigma in the whole distribution."""
        drawn = torch.tensor(sigma / (self.shift - (self.shift - 1) * sigma), dtype=torch.float64)
        return float(torch.special.ndtr(torch.logit(drawn) / self.std) if self.std else drawn)


Schedule = VariancePreserving | EDM | Flow


def schedule_of(
    process: ForwardProcess,
    *,
    log_sigma_mean: float = 0.7,
    log_sigma_std: float = 1.6,
    time: Time = "quantile",
    logit_std: float = 0.0,
    shift: float | None = None,
    lowest: float = 0.0,
) -> Schedule:
    """
    The distribution of training noise levels for a forward process.

    A model with a training table is trained on that table, whatever solver the pipeline samples with.

    Args:
        process: of the pipeline.
        log_sigma_mean: EDM: mean of ln sigma.
        log_sigma_std: EDM: standard deviation of ln sigma.
        time: EDM: definition of the training time.
        logit_std: flow matching: standard deviation of the logit; 0 is uniform.
        shift: flow matching: of the levels; `None`: the scheduler's own.
        lowest: flow matching: the lowest sigma that the network is used for.

    Raises:
        UnstillError: no shift for a scheduler that shifts by the size of the video; or the preconditioned networks of
            Karras et al. (kind `edm`), for which there is no tested loss, except with v-prediction and `sigma_data` 1,
            where they are those of Stable Video Diffusion.
    """
    scheduler = process.scheduler
    if process.kind == "flow":
        config = scheduler.config
        if shift is None and config.get("use_dynamic_shifting"):
            raise UnstillError(
                f"This {type(scheduler).__name__} shifts its levels by the size of the video (use_dynamic_shifting), "
                "and the pipeline's rule for it is not known here; load the scheduler with a fixed shift."
            )
        shift = shift or config.get("shift") or config.get("flow_shift") or 1.0
        return Flow(shift, logit_std, config.num_train_timesteps, lowest)
    continuous = process.kind == "ve" and scheduler.config.get("timestep_type") == "continuous"
    if continuous or (process.prediction == "edm_v" and scheduler.config.sigma_data == 1):
        return EDM(log_sigma_mean, log_sigma_std, time)
    if process.abar is None or process.kind == "edm":
        raise UnstillError(
            f"{type(scheduler).__name__} trains a network of kind {process.kind!r}, for which there is no loss here; "
            "there are losses for variance-preserving models, Stable Video Diffusion and flow matching."
        )
    steps = len(process.abar)
    rescale = [scheduler.scale(t) for t in range(steps)] if hasattr(scheduler, "scale") else [1.0] * steps
    return VariancePreserving(process.prediction, process.abar, torch.tensor(rescale, dtype=torch.float64))
