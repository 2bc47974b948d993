"""
The forward process behind a diffusers scheduler.

Every scheduler adds noise as x_t = alpha(t) x0 + sigma(t) eps, but in different coordinates, and networks predict
different combinations of (x0, eps) (see `unstill.predictions`). Only these two modules depend on that. All quantities
are in the coordinates of the `sample` that `scheduler.step` receives.

| kind | alpha, sigma | schedulers |
|---|---|---|
| `vp` | sqrt(abar[t]), sqrt(1 - abar[t]) | DDIM, DDPM, PNDM, LCM, TCD, CogVideoX |
| `vp_sigma` | 1 / sqrt(s^2 + 1), s / sqrt(s^2 + 1) | DPM-Solver++, UniPC, DEIS, SA-Solver |
| `ve` | 1, s | Euler, Heun, KDPM2, LMS; Stable Video Diffusion |
| `edm` | 1, s | EDM-Euler, EDM-DPM-Solver++ (Karras et al. 2022, preconditioned network) |
| `flow` | 1 - s, s | FlowMatch*, and the multistep solvers with `use_flow_sigmas` |

s is the scheduler's own `sigmas[step]`, which already includes any shift, Karras ramp or dynamic `mu`; with
`invert_sigmas=True` (Mochi), where time runs from noise (0) to data (1), it is 1 - `sigmas[step]`, and the network
predicts x0 - eps.
"""

import inspect
import math
from dataclasses import dataclass, field
from typing import Any, Literal, Self, get_args

import torch

from unstill.errors import UnstillError
from unstill.predictions import Affine, Prediction, affine, ratio


ProcessKind = Literal["vp", "vp_sigma", "ve", "edm", "flow"]
Timestep = float | torch.Tensor


@dataclass(eq=False, slots=True)
class ForwardProcess:
    """
    alpha, sigma and every conversion between eps, x0 and the network output of one scheduler.

    Build it with `ForwardProcess.of`. A timestep `t` is whatever the scheduler passes to the network, scalar or 0-d
    tensor. A loop that knows its step index passes it as `step`, so that no timestep has to be read back from the
    device; the schedule itself is read back once, when it changes. Tensors of any shape; the maths runs in float32 (or
    the wider input type). `to_x0` and `to_eps` return the type of `sample`, the others that of their first argument.
    """

    scheduler: Any
    kind: ProcessKind
    prediction: Prediction
    abar: torch.Tensor | None = field(repr=False)  # (T,) training table, float64 on the CPU; None without one
    _last_schedule: "_Schedule | None" = field(default=None, init=False, repr=False)

    @classmethod
    def of(cls, scheduler: Any, kind: ProcessKind | None = None) -> Self:
        """
        The forward process of `scheduler`, recognised by its attributes rather than by its class name.

        Args:
            scheduler: a diffusers scheduler.
            kind: overrides the recognised kind where a pipeline uses a scheduler in other coordinates: Cosmos 2 runs
                `FlowMatchEulerDiscreteScheduler` in those of `ve`.

        Raises:
            UnstillError: a scheduler without a known Gaussian forward process, or an impossible kind.
        """
        if kind is None:
            kind = _kind_of(scheduler)
        elif kind not in get_args(ProcessKind):
            kinds = ", ".join(get_args(ProcessKind))
            raise UnstillError(f"{kind!r} is not a kind of forward process; use one of {kinds}.")
        abar = getattr(scheduler, "alphas_cumprod", None)
        if abar is not None:
            abar = abar.cpu().double()
        elif kind in ("vp", "vp_sigma"):
            raise UnstillError(f"{type(scheduler).__name__} has no alphas_cumprod, so it cannot be of kind {kind!r}.")
        return cls(scheduler, kind, _prediction_of(scheduler, kind), abar)

    @property
    def inverted(self) -> bool:
        """Whether the scheduler's `sigmas` and `timesteps` go up, from noise (0) to data (1)."""
        return bool(getattr(self.scheduler, "config", {}).get("invert_sigmas"))

    def alpha_sigma(self, t: Timestep, step: int | None = None) -> tuple[float, float]:
        """(alpha, sigma) at timestep `t`, or at index `step` of the current schedule, in which case `t` is ignored."""
        if self.kind == "vp":
            assert self.abar is not None
            abar = self.abar[int(t if step is None else self._schedule().timesteps[step])].item()
            return math.sqrt(abar), math.sqrt(1 - abar)
        sigma = self._sigma(t, step)
        if self.kind == "vp_sigma":
            norm = math.hypot(1, sigma)
            return 1 / norm, sigma / norm
        return (1 - sigma if self.kind == "flow" else 1.0), sigma

    def add_noise(self, x0: torch.Tensor, eps: torch.Tensor, t: Timestep, step: int | None = None) -> torch.Tensor:
        """alpha x0 + sigma eps."""
        alpha, sigma = self.alpha_sigma(t, step)
        return _combine(x0, alpha, x0, sigma, eps)

    def to_x0(self, output: torch.Tensor, sample: torch.Tensor, t: Timestep, step: int | None = None) -> torch.Tensor:
        """
        The x0 that the network's `output` at `sample` corresponds to.

        Raises:
            UnstillError: an eps prediction at alpha = 0.
        """
        c = self._affine(t, step)
        self._require(c.x0_output, "x0", "alpha = 0")
        return _combine(sample, c.x0_sample, sample, c.x0_output, output)

    def to_eps(self, output: torch.Tensor, sample: torch.Tensor, t: Timestep, step: int | None = None) -> torch.Tensor:
        """
        The eps that the network's `output` at `sample` corresponds to.

        Raises:
            UnstillError: an x0 prediction at sigma = 0.
        """
        c = self._affine(t, step)
        self._require(c.eps_output, "eps", "sigma = 0")
        return _combine(sample, c.eps_sample, sample, c.eps_output, output)

    def from_x0(self, x0: torch.Tensor, sample: torch.Tensor, t: Timestep, step: int | None = None) -> torch.Tensor:
        """
        The network output at `sample` that corresponds to `x0`; the inverse of `to_x0`.

        Raises:
            UnstillError: x0 does not determine the output (sigma = 0).
        """
        c = self._affine(t, step)
        scale = ratio(1, c.x0_output)
        self._require(scale, "the output", "sigma = 0")
        return _combine(x0, scale, x0, -scale * c.x0_sample, sample)

    def gain(self, t: Timestep, step: int | None = None) -> float:
        """
        d output / d eps at a fixed sample: 1 for eps, 1/alpha for flow and VP v, -sigma/alpha for x0 outputs.

        It is unbounded as alpha goes to 0 and infinite at alpha = 0 (the first step of flow and zero-SNR schedules),
        where no finite change of an output other than eps corrects eps. The caller decides from `alpha_sigma` at which
        levels it corrects.
        """
        return ratio(1, self._affine(t, step).eps_output)

    def correct(
        self,
        output: torch.Tensor,
        delta_eps: torch.Tensor,
        sample: torch.Tensor,
        t: Timestep,
        step: int | None = None,
    ) -> torch.Tensor:
        """
        output + gain(t) * delta_eps: the network output whose eps is larger by `delta_eps` at the same sample.

        To change a prediction use this rather than rebuilding the output from eps, which is ill-conditioned near
        alpha = 0.

        Args:
            output: of the network.
            delta_eps: what to add to its eps.
            sample: unused, since every prediction is affine; kept for the same signature as `to_x0` and `to_eps`.
            t: timestep.
            step: index in the current schedule, instead of `t`.

        Raises:
            UnstillError: `gain` is infinite; skip that step.
        """
        gain = self.gain(t, step)
        self._require(gain, "a correction of eps", "alpha = 0; skip this step")
        return _combine(output, 1.0, output, gain, delta_eps)

    def _affine(self, t: Timestep, step: int | None) -> Affine:
        return affine(self.prediction, *self.alpha_sigma(t, step), getattr(self.scheduler.config, "sigma_data", 1.0))

    def _require(self, coefficient: float, quantity: str, where: str) -> None:
        if not math.isfinite(coefficient):
            raise UnstillError(f"A {self.prediction} network does not determine {quantity} at {where}.")

    def _sigma(self, t: Timestep, step: int | None) -> float:
        schedule = self._schedule()
        if step is None:
            step = schedule.index(float(t), getattr(self.scheduler, "step_index", None))
        return self._sigma_off_schedule(float(t)) if step is None else schedule.sigmas[step]

    def _sigma_off_schedule(self, t: float) -> float:
        """sigma of a timestep that the current schedule does not visit."""
        config = self.scheduler.config
        if _log_sigma_timesteps(config) or hasattr(self.scheduler, "precondition_noise"):
            return math.exp(4 * t)
        if self.abar is None or self.kind == "flow":
            fraction = float(t / config.num_train_timesteps)
            return 1 - fraction if self.inverted else fraction
        log_sigmas = ((1 - self.abar) / self.abar).log() / 2
        low = min(int(t), len(log_sigmas) - 2)
        return math.exp(torch.lerp(log_sigmas[low], log_sigmas[low + 1], t - low).item())

    def _schedule(self) -> "_Schedule":
        if self._last_schedule is None or not self._last_schedule.is_of(self.scheduler):
            self._last_schedule = _Schedule(self.scheduler)
        return self._last_schedule


class _Schedule:
    """The timesteps and sigmas that a scheduler currently has, copied from the device once."""

    __slots__ = ("_key", "_tensors", "sigmas", "timesteps")

    def __init__(self, scheduler: Any) -> None:
        self._tensors = self._current(scheduler)  # referenced here so that the ids in the key are not reused
        self._key = self._key_of(self._tensors)
        timesteps, sigmas, midpoints = self._tensors
        self.timesteps: list[float] = timesteps.tolist()
        self.sigmas: list[float] = []
        # Before set_timesteps some schedulers hold a training table here, in the opposite order of their timesteps.
        if sigmas is not None and getattr(scheduler, "num_inference_steps", None) is not None:
            self.sigmas = sigmas.tolist()
            if scheduler.config.get("invert_sigmas"):
                self.sigmas = [1 - s for s in self.sigmas]
        if self.sigmas and midpoints is not None:
            # KDPM2 evaluates every odd step at a midpoint; its ancestral variant stores it one index earlier.
            offset = int(hasattr(scheduler, "sigmas_up"))
            self.sigmas[1::2] = midpoints[1 - offset : len(self.sigmas) - offset : 2].tolist()

    def is_of(self, scheduler: Any) -> bool:
        return self._key == self._key_of(self._current(scheduler))

    def index(self, t: float, running: int | None) -> int | None:
        """The index of timestep `t`; of several equal (rounded) ones the scheduler's current one, else the first."""
        if not self.sigmas or t not in self.timesteps:
            return None
        if running is not None and running < len(self.timesteps) and self.timesteps[running] == t:
            return running
        return self.timesteps.index(t)

    @staticmethod
    def _current(scheduler: Any) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        return (
            scheduler.timesteps,
            getattr(scheduler, "sigmas", None),
            getattr(scheduler, "sigmas_interpol", None),
        )

    @staticmethod
    def _key_of(tensors: tuple[torch.Tensor | None, ...]) -> tuple[tuple[int, int], ...]:
        # _version counts changes in place (Cosmos 2 makes one); tensors of inference_mode have none.
        return tuple((id(x), 0 if x.is_inference() else x._version) for x in tensors if x is not None)


def is_flow(scheduler: Any) -> bool:
    """
    Whether a scheduler's noise levels are those of flow matching: by its configuration, by its attributes, or because
    it accepts the configuration of FlowMatchEulerDiscreteScheduler (LTXEulerAncestralRFScheduler).
    """
    if getattr(scheduler, "config", {}).get("use_flow_sigmas"):
        return True
    flow_match = "FlowMatchEulerDiscreteScheduler" in getattr(scheduler, "_compatibles", ())
    return (hasattr(scheduler, "scale_noise") or flow_match) and not hasattr(scheduler, "alphas_cumprod")


def _kind_of(scheduler: Any) -> ProcessKind:
    config = getattr(scheduler, "config", {})
    table = hasattr(scheduler, "alphas_cumprod")
    name = type(scheduler).__name__
    adds_noise = config.get("stochastic_sampling") or not name.endswith("EulerDiscreteScheduler")
    if config.get("invert_sigmas") and adds_noise:
        raise UnstillError(
            f"{name} takes an inverted sigma (invert_sigmas=True) for a noise level when it adds noise in its steps; "
            "use FlowMatchEulerDiscreteScheduler with invert_sigmas=True and stochastic_sampling=False."
        )
    if "stages" in config:  # HeliosScheduler
        raise UnstillError(
            f"{name} has the noise levels of several resolutions, one after the other, and methods act on one; use "
            "UniPCMultistepScheduler with use_flow_sigmas=True."
        )
    if "original_image" in inspect.signature(getattr(scheduler, "step", _kind_of)).parameters:  # RePaintScheduler
        raise UnstillError(f"{name} paints inside of a mask, which no video pipeline gives it; use DDIMScheduler.")
    if table and not hasattr(scheduler, "order"):  # UnCLIPScheduler
        raise UnstillError(
            f"{name} has a table of noise levels of its own for the pipelines of unCLIP, and no order; use "
            "DDPMScheduler."
        )
    if is_flow(scheduler):
        if "num_train_timesteps" not in config:  # MiniMaxH3Scheduler
            raise UnstillError(
                f"{type(scheduler).__name__} counts time from noise (0) to data (1) and takes a velocity towards the "
                "data, the opposite of what the networks of the supported pipelines are trained on; use "
                "FlowMatchEulerDiscreteScheduler."
            )
        return "flow"
    if hasattr(scheduler, "precondition_outputs"):  # before vp_sigma: EDM-DPM-Solver++ has both
        return "edm"
    if table and hasattr(scheduler, "_sigma_to_alpha_sigma_t"):
        return "vp_sigma"
    if table:
        return "ve" if hasattr(scheduler, "sigmas") else "vp"
    raise UnstillError(
        f"{type(scheduler).__name__} has no forward process known to unstill; "
        "use a DDIM, DPM-Solver, UniPC, Euler, EDM or flow-matching scheduler, or name its kind "
        f"({', '.join(get_args(ProcessKind))}) with kind=."
    )


def _prediction_of(scheduler: Any, kind: ProcessKind) -> Prediction:
    default = "flow_prediction" if kind == "flow" else "epsilon"
    if scheduler.config.get("invert_sigmas"):
        return "reversed_flow"
    name = scheduler.config.get("prediction_type") or default
    name = {"original_sample": "sample"}.get(name, name)
    if kind == "edm":
        name = {"epsilon": "edm", "v_prediction": "edm_v"}.get(name, name)
    # diffusers' v formula assumes alpha^2 + sigma^2 = 1, its flow formula alpha + sigma = 1.
    clash = {"flow": "v_prediction", "vp": "flow_prediction", "vp_sigma": "flow_prediction"}.get(kind)
    if name not in get_args(Prediction) or name == clash or (kind == "edm" and not name.startswith("edm")):
        raise UnstillError(
            f"prediction_type={name!r} of {type(scheduler).__name__} does not go with a {kind!r} forward process; "
            "check the scheduler's configuration."
        )
    return name  # type: ignore[return-value]


def _log_sigma_timesteps(config: Any) -> bool:
    """Whether timesteps are ln(sigma) / 4 rather than training steps (Stable Video Diffusion)."""
    return bool(config.get("timestep_type") == "continuous" and config.get("prediction_type") == "v_prediction")


def _combine(like: torch.Tensor, a: float, x: torch.Tensor, b: float, y: torch.Tensor) -> torch.Tensor:
    """a x + b y, computed in at least float32, in the dtype of `like`."""
    wide = torch.promote_types(torch.promote_types(x.dtype, y.dtype), torch.float32)
    return (a * x.to(wide) + b * y.to(wide)).to(like.dtype)
