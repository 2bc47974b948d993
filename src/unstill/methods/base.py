"""The base class of methods, with the hooks it may override, and the state of one pipeline call."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, cast

import torch
from PIL import Image

from unstill.errors import UnstillError
from unstill.methods.hook_types import NextSample, Passes, SolverSchedule, Target


if TYPE_CHECKING:
    from unstill.forward_process import ForwardProcess
    from unstill.noise_schedule import Grid


__all__ = ["Method", "NextSample", "Passes", "Run", "SolverSchedule", "Target"]


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


class Method:
    """
    A published method with its parameters. A subclass is a `@dataclass(frozen=True, kw_only=True, slots=True)` whose
    defaults are the paper's, and overrides only the hooks it needs; all tensors are `(B, C, F, H, W)`.

    Hooks are called in the order in which the methods were given to `unstill.apply`, each with the result of the
    previous one; hooks that are not overridden are never called. Their names begin with `on_`, because fields have the
    bare names (`start=0.96`).

    Tensors passed to a hook may share memory with the pipeline's own latents: a hook never writes into them, and keeps
    only its own results, or a `clone()`, for later steps, because a pipeline may overwrite its latents in the next
    step. Adapters of pipelines that do so while a hook runs (Kandinsky 5) pass clones.

    Class attributes, from which lists, forms, tables and the docs are made:
        summary: what the method does, in one line.
        use_when: the problem it solves, as the end of "your video ...".
        cost: its cost, in a few words.
        place: the parts of sampling that it changes, a subset of `"start"` (the first level and the first latents),
            `"step"` (predictions), `"condition"` (the image in the denoiser's input). Empty: derived from the
            overridden hooks.
        stage: `"sampling"` for methods that `apply` takes; `"loop"` for a loop around the pipeline; `"training"`.
        rank: position in lists; lower ranks come first, equal ones by name.
        owns: what the method alone decides: `"levels"` (where the schedule begins), `"latents"` (how the first latents
            are made). Two methods that own the same exclude each other.
        needs: what it requires of the pipeline: `"image"` (image latents), `"condition"` (image latents in the
            denoiser's input that can be changed; implied by `on_condition`).
        presets: named sets of parameters.
        not_in_forms: parameters that the app's form does not show.
    """

    __slots__ = ()
    summary: ClassVar[str] = ""
    use_when: ClassVar[str] = ""
    cost: ClassVar[str] = ""
    place: ClassVar[frozenset[str]] = frozenset()
    stage: ClassVar[Literal["sampling", "loop", "training"]] = "sampling"
    rank: ClassVar[int] = 100
    owns: ClassVar[frozenset[str]] = frozenset()
    needs: ClassVar[frozenset[str]] = frozenset()
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"paper": {}}
    not_in_forms: ClassVar[frozenset[str]] = frozenset()

    @property
    def name(self) -> str:
        """Name in messages."""
        return type(self).__name__

    @classmethod
    def preset(cls, name: str, **changes: Any) -> Self:
        """
        The method with a named set of parameters, e.g. `"paper"` or `"released"`; `changes` override single ones.
        """
        if name not in cls.presets:
            raise UnstillError(f"{cls.__name__} has no preset {name!r}; it has {', '.join(map(repr, cls.presets))}.")
        return cls(**{**cls.presets[name], **changes})

    @classmethod
    def example(cls, **level: float) -> Self:
        """
        An instance for the compatibility table: the default parameters, and a noise level if the method has one.

        Args:
            **level: `start` or `sigma`, depending on the scheduler of the pipeline.
        """
        fields = {field.name for field in dataclasses.fields(cast(Any, cls))}
        return cls(**{name: value for name, value in level.items() if name in fields})

    def check(self, others: Sequence[Method], target: Target) -> None:
        """
        Raises `UnstillError` if this method cannot work on `target` or together with the `others`, for reasons beyond
        `owns` and `needs`, which `check_method` has checked before.
        """

    def on_schedule(self, run: Run, grid: Grid) -> Grid:
        """Returns the noise levels to visit, in place of `grid`, those of the scheduler or of earlier methods."""
        return grid

    def on_noise(self, run: Run, noise: torch.Tensor) -> torch.Tensor:
        """
        Returns the unit noise, float32, to use in place of the pipeline's. All `on_noise` hooks are called before all
        `on_start` hooks, and the pipeline's own scale (`init_noise_sigma`) is applied to the new noise.
        """
        return noise

    def on_start(self, run: Run, latents: torch.Tensor) -> torch.Tensor:
        """
        Returns the first latents, in the coordinates of the sample that `scheduler.step` receives (initial scaling
        included).
        """
        return latents

    def on_step(
        self, run: Run, output: torch.Tensor, sample: torch.Tensor, t: torch.Tensor | float
    ) -> torch.Tensor | NextSample:
        """
        Returns the model output to use (after guidance, in the scheduler's prediction type), or the next sample.
        """
        return output

    def on_condition(self, run: Run, image_latents: torch.Tensor) -> torch.Tensor:
        """
        Returns the image latents for the denoiser's input at `run.step`. Called before every model call with the clean
        ones: noise must be drawn once and kept with `run.set_state`. Returning the argument itself skips the write. A
        hook that adds noise sets `run.image_noise`.
        """
        return image_latents

    @property
    def conditional_only(self) -> bool:
        """Whether `on_condition` changes the conditional pass only, not the unconditional one."""
        return False

    def on_condition_clip(self, run: Run, clip: torch.Tensor) -> torch.Tensor:
        """
        Returns the clip of image latents for the denoiser's input at `run.step`, `(B, C, F, H, W)` in the units of the
        VAE: the image, and the filler frames after it. Called before `on_condition`; otherwise like it.
        """
        return clip

    def on_guidance(self, run: Run, passes: Passes) -> torch.Tensor:
        """
        Returns the conditional prediction to use in the pipeline's guidance. Called once per step, after both passes.
        """
        return passes.conditional

    def on_attention(self, run: Run) -> float:
        """
        Returns a number to add, in the conditional pass at `run.step`, to the attention logits of all video tokens of
        the first latent frame as keys, in every self-attention; 0 adds nothing and costs nothing.
        """
        return 0.0

    def on_attention_mass(self, run: Run, mass: torch.Tensor) -> None:
        """
        Receives the share of attention that the later frames give to the first latent frame in one self-attention of
        the pass with the prompt, `(B,)`, before the bias of `on_attention`. Called for each self-attention in order,
        in every step; it changes nothing.
        """

    def on_image(self, picture: Image.Image) -> Image.Image:
        """Returns the picture to use in place of that of the pipeline's call, or of `apply`."""
        return picture

    def implements(self, hook: str) -> bool:
        """Whether the hook of this name is overridden."""
        return getattr(type(self), hook) is not getattr(Method, hook)
