"""What every method is made of: the state of one pipeline call, and the hooks a method may implement."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

import torch

from unstill.errors import UnstillError


if TYPE_CHECKING:
    from unstill.forward_process import ForwardProcess
    from unstill.noise_schedule import Grid


@dataclass(slots=True)
class Run:
    """
    The state of one pipeline call, made anew for every call and handed to every hook.

    Attributes:
        process (`ForwardProcess`): alpha, sigma and conversions, in the coordinates of the sample that
            `scheduler.step` receives; `process.scheduler` is the scheduler that samples.
        grid (`Grid`): the noise levels of this call, as the `on_schedule` hooks have left them so far.
        step (`int`): how many calls of `scheduler.step` came before this one.
        noise (`torch.Tensor` of shape `(B, C, F, H, W)`): unit noise of the first latents, float32, as the `on_noise`
            hooks have left it so far; unset (`None`) while the schedule is made. `NoiseRectification` replaces it at
            the first step.
        image_latents (`torch.Tensor` of shape `(B, C, F or 1, H, W)`, *optional*): the clean latents of the
            conditional image, normalised as the video latents are; `None` where the pipeline has none.
        encode_image: encodes the image that was given to `apply` anew, to a sample of the VAE's posterior drawn with
            the generator it is called with; `None` where the pipeline encodes the image.
        generator: the generator (or list of them) the caller gave to the pipeline.
        image_noise (`torch.Tensor` of shape `(B,)`, *optional*): standard deviation of the noise that an
            `on_condition` hook has added to the image latents, in their units. A network that was trained to be told
            of such noise is told.
        frames (`int`): latent frames F that hooks see.
        held (`int`): leading latent frames that the pipeline fills with the image instead of denoising them. They are
            not among the F frames that hooks see; `image_latents` holds them.
        solver (`tuple` of `Grid` and `int`, *optional*): what the solver is to see in place of `grid` from now on, and
            how much further it stands there than `step`: for levels that are visited without it.
        methods (`tuple` of `Method`): all methods of this call, in the order given to `apply`.
        memory (`dict`): what a method keeps from one hook to the next within this call: `run.memory[self] = ...`. A
            method with fields that cannot be hashed (tensors) is declared with `eq=False`.
    """

    process: ForwardProcess
    grid: Grid = cast("Grid", None)
    step: int = 0
    noise: torch.Tensor = cast(torch.Tensor, None)
    image_latents: torch.Tensor | None = None
    encode_image: Callable[[torch.Generator | None], torch.Tensor] | None = None
    generator: torch.Generator | list[torch.Generator] | None = None
    image_noise: torch.Tensor | None = None
    frames: int = 0
    held: int = 0
    solver: tuple[Grid, int] | None = None
    methods: tuple[Method, ...] = ()
    memory: dict[Method, Any] = field(default_factory=dict)

    def draw(self, shape: Sequence[int]) -> torch.Tensor:
        """Fresh unit noise, float32, from this call's generator, on the device of the latents."""
        from diffusers.utils.torch_utils import randn_tensor

        device = torch.device("cpu") if self.noise is None else self.noise.device
        return randn_tensor(tuple(shape), generator=self.generator, device=device, dtype=torch.float32)


@dataclass(frozen=True, slots=True)
class NextSample:
    """
    Returned by an `on_step` hook: "the next sample is this": the solver, and the methods after this one, are skipped.
    """

    sample: torch.Tensor


@dataclass(frozen=True, slots=True)
class Target:
    """
    What is known of a pipeline before it is called, for `Method.check`.

    Attributes:
        pipeline (`str`): name of the pipeline class.
        process (`ForwardProcess`): of the pipeline's scheduler.
        order (`int`): model calls per noise level (2 for Heun and KDPM2).
        image_latents (`bool`): whether `run.image_latents` will be there.
        condition (`bool`): whether the denoiser sees image latents that an `on_condition` hook can change.
        held_frames (`int`): leading latent frames that the pipeline replaces by the image and does not denoise.
        copies (`bool`): whether copies of the scheduler sample something else beside the video, such as sound.
        modular (`bool`): whether the pipeline is made of blocks, which decide what its call takes and returns.
    """

    pipeline: str
    process: ForwardProcess
    order: int
    image_latents: bool
    condition: bool
    held_frames: int
    copies: bool = False
    modular: bool = False


class Method:
    """
    One published idea with its parameters. A subclass is a `@dataclass(frozen=True, kw_only=True, slots=True)` whose
    defaults are the paper's, and overrides only the hooks it needs; all tensors are `(B, C, F, H, W)`.

    Hooks are called in the order in which the methods were given to `unstill.apply`, each with the result of the one
    before. What is not overridden is never called. They are named `on_...` because fields have the bare names
    (`start=0.96`).

    `owns` names what a method decides alone: `"levels"` (where the schedule begins) or `"latents"` (what the first
    latents are made of). Two methods that own the same thing exclude each other. `presets` are named sets of
    parameters.

    A tensor that a hook is given may be the pipeline's own: a hook never writes into it, and the adapter of a pipeline
    that writes into its latents (Kandinsky 5) hands out clones.
    """

    __slots__ = ()
    owns: ClassVar[frozenset[str]] = frozenset()
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"paper": {}}

    @property
    def name(self) -> str:
        """What messages call it."""
        return type(self).__name__

    @classmethod
    def preset(cls, name: str, **changes: Any) -> Self:
        """
        The method with a named set of parameters, e.g. `"paper"` or `"released"`; `changes` override single ones.
        """
        if name not in cls.presets:
            raise UnstillError(f"{cls.__name__} has no preset {name!r}; it has {', '.join(map(repr, cls.presets))}.")
        return cls(**{**cls.presets[name], **changes})

    def check(self, others: Sequence[Method], target: Target) -> None:
        """
        Raises `UnstillError` if this method cannot work on `target` or together with the `others`. Called by `apply`.
        An override calls `Method.check(self, others, target)` (`super()` does not work in dataclasses with slots).
        """
        for other in others:
            if type(other) is type(self):
                raise UnstillError(f"{self.name} was given twice; give it once.")
            if shared := self.owns & other.owns:
                what = "the noise level at which sampling starts" if "levels" in shared else "the first latents"
                raise UnstillError(f"{self.name} and {other.name} both decide {what}; use one of them.")

    def on_schedule(self, run: Run, grid: Grid) -> Grid:
        """Which noise levels are visited."""
        return grid

    def on_noise(self, run: Run, noise: torch.Tensor) -> torch.Tensor:
        """
        What takes the place of the pipeline's unit noise, float32. All `on_noise` hooks come before all `on_start`
        hooks, and the first latents follow: the pipeline's own scale (`init_noise_sigma`) is applied to the new noise.
        """
        return noise

    def on_start(self, run: Run, latents: torch.Tensor) -> torch.Tensor:
        """
        The first latents, in the coordinates of the sample that `scheduler.step` receives (initial scaling included).
        """
        return latents

    def on_step(
        self, run: Run, output: torch.Tensor, sample: torch.Tensor, t: torch.Tensor | float
    ) -> torch.Tensor | NextSample:
        """A corrected model output (after guidance, in the scheduler's prediction type), or the next sample itself."""
        return output

    def on_condition(self, run: Run, image_latents: torch.Tensor) -> torch.Tensor:
        """
        The image latents as the denoiser sees them at `run.step`. Called before every model call with the clean ones:
        what is random must be drawn once and kept in `run.memory`. Returning the argument itself leaves the input as
        it is. A hook that adds noise sets `run.image_noise`.
        """
        return image_latents

    def implements(self, hook: str) -> bool:
        """Whether the hook of this name is overridden."""
        return getattr(type(self), hook) is not getattr(Method, hook)


def check_level(start: float | None, sigma: float | None) -> None:
    """Raises `UnstillError` unless exactly one of `start` (a fraction of the training time) and `sigma` is given."""
    if (start is None) == (sigma is None):
        raise UnstillError("Give exactly one noise level: start=0.96 (fraction of the training time) or sigma=100.0.")
    if start is not None and not 0.0 < start <= 1.0:
        raise UnstillError(f"start is a fraction of the training time in (0, 1], but is {start}.")
    if sigma is not None and not 0.0 < sigma < math.inf:
        raise UnstillError(f"sigma is a finite noise level above 0, but is {sigma}.")
