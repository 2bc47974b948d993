"""
What hooks of methods receive and return: the state of one pipeline call, the passes of guidance, the next sample.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import torch


if TYPE_CHECKING:
    from unstill.forward_process import ForwardProcess
    from unstill.methods.base import Method
    from unstill.noise_schedule import Grid


@dataclass(frozen=True, slots=True)
class SolverSchedule:
    """
    Noise levels for the scheduler's solver in place of `run.grid`, when some levels of `run.grid` are visited without
    the solver (NI-VSDS) or belong to another part of a run.

    Attributes:
        grid: the levels that the solver is installed with.
        offset: the solver's step is `run.step + offset`.
    """

    grid: Grid
    offset: int


@dataclass(slots=True)
class Run:
    """
    The state of one pipeline call, created for every call and passed to every hook.

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
            `on_condition` hook has added to the image latents, in their units. It is passed to networks
            that are conditioned on it.
        second_network (`bool`): whether the second of two networks is being called (Wan 2.2 A14B, at low noise).
        frames (`int`): latent frames F that hooks see.
        conditioning_frames (`int`): leading latent frames that the pipeline fills with the image instead of denoising
            them. They are not among the F frames that hooks see; `image_latents` holds them.
        solver (`SolverSchedule`, *optional*): the levels that the solver uses in place of `grid` from now on.
        methods (`tuple` of `Method`): all methods of this call, in the order given to `apply`.
        states (`dict`): what methods keep within this call, by their index in `methods`; see `state_of`.
    """

    process: ForwardProcess
    grid: Grid = cast("Grid", None)
    step: int = 0
    noise: torch.Tensor = cast(torch.Tensor, None)
    image_latents: torch.Tensor | None = None
    encode_image: Callable[[torch.Generator | None], torch.Tensor] | None = None
    generator: torch.Generator | list[torch.Generator] | None = None
    image_noise: torch.Tensor | None = None
    second_network: bool = False
    frames: int = 0
    conditioning_frames: int = 0
    solver: SolverSchedule | None = None
    methods: tuple[Method, ...] = ()
    states: dict[int, Any] = field(default_factory=dict)

    def state_of(self, method: Method) -> Any:
        """What `method` has kept with `set_state` in this call; `None` before that."""
        return self.states.get(self._index(method))

    def set_state(self, method: Method, state: Any) -> None:
        """
        Keeps `state` for later hooks of `method` in this call. A method itself is immutable and holds parameters only.
        """
        self.states[self._index(method)] = state

    def _index(self, method: Method) -> int:
        return next(index for index, other in enumerate(self.methods) if other is method)

    def draw(self, shape: Sequence[int]) -> torch.Tensor:
        """Fresh unit noise, float32, from this call's generator, on the device of the latents."""
        from diffusers.utils.torch_utils import randn_tensor

        device = torch.device("cpu") if self.noise is None else self.noise.device
        noise: torch.Tensor = randn_tensor(tuple(shape), generator=self.generator, device=device, dtype=torch.float32)
        return noise


@dataclass(frozen=True, slots=True)
class NextSample:
    """
    Returned by an `on_step` hook in place of a model output: the solver's step, and the methods after this one, are
    skipped.

    Attributes:
        sample: the next sample, `(B, C, F, H, W)`.
    """

    sample: torch.Tensor


@dataclass(frozen=True, slots=True)
class Passes:
    """
    What the denoiser has predicted in one step, for `Method.on_guidance`: before guidance, in its own prediction type,
    `(B, C, F, H, W)`, read only.

    Attributes:
        conditional (`torch.Tensor`): with the image and the prompt.
        unconditional (`torch.Tensor`, *optional*): without the prompt; `None` where the call has no guidance.
        scale: the weight w of the pipeline's guidance, `unconditional + w (conditional - unconditional)`: a number or
            a tensor that broadcasts; `None` where it is not known.
        unconditional_again: runs the unconditional pass once more, with the image that the conditional pass has seen.
        without_image: runs the conditional pass once more with neither image nor prompt, as the model was trained to
            do without; `None` where no model of this pipeline was.
    """

    conditional: torch.Tensor
    unconditional: torch.Tensor | None
    scale: float | torch.Tensor | None
    unconditional_again: Callable[[], torch.Tensor]
    without_image: Callable[[], torch.Tensor] | None = None
