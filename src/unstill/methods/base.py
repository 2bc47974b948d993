"""The base class of methods: what a method declares, the hooks it may override, and the checks of all methods."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, cast

import torch
from PIL import Image

from unstill.errors import UnstillError
from unstill.methods.run import NextSample, Passes, Run, SolverSchedule


if TYPE_CHECKING:
    from unstill.forward_process import ForwardProcess
    from unstill.noise_schedule import Grid


__all__ = [
    "LEVEL_PARAMETERS",
    "Method",
    "NextSample",
    "Passes",
    "Run",
    "SolverSchedule",
    "Target",
    "check_level",
    "check_method",
]

LEVEL_PARAMETERS = frozenset({"start", "sigma"})
"""Two parameters for the same noise level, of which exactly one is given: see `check_level`."""


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
        conditioning_frames (`int`): leading latent frames that the pipeline fills with the image and does not denoise.
        has_audio_scheduler (`bool`): whether the pipeline samples audio, too, with a copy of the scheduler.
        modular (`bool`): whether the pipeline is made of blocks, which decide what its call takes and returns.
        in_sections (`bool`): whether the pipeline samples a video in several sections, to methods a video each.
        encodes_image (`bool`): whether the pipeline's call encodes the image, so that `apply` takes none.
        vae (`dict | None`): what tells the VAE from others, see `unstill.statistics_hub.describe_vae`.
        guidance (`bool`): whether `on_guidance` hooks work: guidance acts on what the denoiser has put out.
        drops_image (`bool`): whether the model was trained without the image, too: `Passes.without_image` is there.
        attention (`bool`): whether the attention to the first latent frame can be changed.
        condition_clip (`bool`): whether the denoiser sees a whole clip of image latents (`on_condition_clip`).
    """

    pipeline: str
    process: ForwardProcess
    order: int
    image_latents: bool
    condition: bool
    conditioning_frames: int
    has_audio_scheduler: bool = False
    modular: bool = False
    in_sections: bool = False
    encodes_image: bool = False
    vae: dict[str, Any] | None = None
    guidance: bool = False
    drops_image: bool = False
    attention: bool = False
    condition_clip: bool = False


class Method:
    """
    One published idea with its parameters. A subclass is a `@dataclass(frozen=True, kw_only=True, slots=True)` whose
    defaults are the paper's, and overrides only the hooks it needs; all tensors are `(B, C, F, H, W)`.

    Hooks are called in the order in which the methods were given to `unstill.apply`, each with the result of the one
    before. What is not overridden is never called. They are named `on_...` because fields have the bare names
    (`start=0.96`).

    Tensors passed to a hook may share memory with the pipeline's own latents: a hook never writes into them. What a
    hook keeps for later steps is a result of its own computation, or a `clone()`: a pipeline may overwrite its latents
    in the next step. Adapters of pipelines that do so while a hook runs (Kandinsky 5) pass clones.

    Class attributes, from which lists, forms, tables and the docs are made:
        summary: what the method does for a user, in one line.
        use_when: the complaint it answers, as the end of "your video ...".
        cost: what it costs, in a few words.
        place: what it changes: a subset of `"start"` (where sampling begins, and from what), `"step"` (predictions),
            `"condition"` (what the denoiser sees of the image). Empty: read off the hooks that are overridden.
        stage: `"sampling"` for methods that `apply` takes; `"loop"` for a loop around the pipeline; `"training"`.
        rank: position in lists; lower ranks come first, equal ones by name.
        owns: what the method decides alone: `"levels"` (where the schedule begins), `"latents"` (what makes the first
            latents). Two methods that own the same thing exclude each other.
        needs: what it needs of the pipeline: `"image"` (image latents), `"condition"` (image latents in the denoiser's
            input that can be changed; implied by `on_condition`).
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

    @classmethod
    def example(cls, **level: float) -> Self:
        """
        An instance for the table of what works where: the default parameters, and a noise level if the method has one.

        Args:
            **level: `start` or `sigma`, whichever the scheduler of the pipeline has.
        """
        known = {field.name for field in dataclasses.fields(cast(Any, cls))}
        return cls(**{name: value for name, value in level.items() if name in known})

    def check(self, others: Sequence[Method], target: Target) -> None:
        """
        Raises `UnstillError` if this method cannot work on `target` or together with the `others`, for reasons beyond
        `owns` and `needs`, which `check_method` has checked before.
        """

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
        what is random must be drawn once and kept with `run.set_state`. Returning the argument itself skips the write.
        A hook that adds noise sets `run.image_noise`.
        """
        return image_latents

    @property
    def conditional_only(self) -> bool:
        """Whether `on_condition` is for the conditional pass alone; the unconditional one sees the image as is."""
        return False

    def on_condition_clip(self, run: Run, clip: torch.Tensor) -> torch.Tensor:
        """
        The clip of image latents as the denoiser sees it at `run.step`, `(B, C, F, H, W)` in the units of the VAE: the
        image, and the frames that are filled up after it. Comes before `on_condition`; otherwise like it.
        """
        return clip

    def on_guidance(self, run: Run, passes: Passes) -> torch.Tensor:
        """
        What takes the place of the conditional prediction in the pipeline's guidance. Called once in every step, after
        both passes.
        """
        return passes.conditional

    def on_attention(self, run: Run) -> float:
        """
        What is added, in the conditional pass at `run.step`, to the attention logits of all tokens of the first latent
        frame (of its video tokens) as keys, in every self-attention; 0 adds nothing, and is free.
        """
        return 0.0

    def on_attention_mass(self, run: Run, mass: torch.Tensor) -> None:
        """
        The share of attention that the later frames give to the first latent frame in one self-attention of the pass
        with the prompt, `(B,)`, before what `on_attention` adds. Called for one attention after the other, in every
        step; to measure, not to change anything.
        """

    def on_image(self, picture: Image.Image) -> Image.Image:
        """The picture that the pipeline is called with, or that was given to `apply`."""
        return picture

    def implements(self, hook: str) -> bool:
        """Whether the hook of this name is overridden."""
        return getattr(type(self), hook) is not getattr(Method, hook)


def check_method(method: Method, others: Sequence[Method], target: Target) -> None:
    """
    Raises `UnstillError` if `method` cannot work on `target` or together with the `others`: given twice, owning the
    same as another, needing what the pipeline does not have, or what its own `check` refuses.
    """
    for other in others:
        if type(other) is type(method):
            raise UnstillError(f"{method.name} was given twice; give it once.")
        if shared := method.owns & other.owns:
            what = "the noise level at which sampling starts" if "levels" in shared else "the first latents"
            raise UnstillError(f"{method.name} and {other.name} both decide {what}; use one of them.")
    if "image" in method.needs and not target.image_latents:
        where = "to the pipeline's call" if target.encodes_image else "with apply(pipe, ..., image=image)"
        raise UnstillError(f"{method.name} works from an image, and {target.pipeline} has none; give it {where}.")
    if ("condition" in method.needs or method.implements("on_condition")) and not target.condition:
        raise UnstillError(
            f"{method.name} changes the image latents that the denoiser sees, and {target.pipeline} shows it none "
            "that can be changed; use a method that changes the start or the steps."
        )
    if method.implements("on_condition_clip") and not target.condition_clip:
        raise UnstillError(
            f"{method.name} changes the clip of image latents that models such as Wan's see, and {target.pipeline} "
            "shows none; use LowPassGuidance or EarlyStart."
        )
    if (method.implements("on_attention") or method.implements("on_attention_mass")) and not target.attention:
        raise UnstillError(
            f"{method.name} is about the attention to the first frame, and where that is in {target.pipeline} is not "
            "known; use EarlyStart or LowPassGuidance."
        )
    method.check(others, target)


def check_level(start: float | None, sigma: float | None) -> None:
    """Raises `UnstillError` unless exactly one of `start` (a fraction of the training time) and `sigma` is given."""
    if (start is None) == (sigma is None):
        raise UnstillError("Give exactly one noise level: start=0.96 (fraction of the training time) or sigma=100.0.")
    if start is not None and not 0.0 < start <= 1.0:
        raise UnstillError(f"start is a fraction of the training time in (0, 1], but is {start}.")
    if sigma is not None and not 0.0 < sigma < math.inf:
        raise UnstillError(f"sigma is a finite noise level above 0, but is {sigma}.")
