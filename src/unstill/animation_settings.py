"""
The parameters of `unstill.animate` and `unstill.animate_all`, declared once: the functions have them as keywords, the
command line as options (`unstill.cli.animate`), and the app fills them from its page.

The annotations of what the command line offers are objects, not strings, and this module imports nothing that takes
time, so that `--help` is printed at once.
"""

import dataclasses
import functools
import inspect
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar

from unstill.errors import UnstillError
from unstill.progress import StageProgress


if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline
    from PIL import Image

    from unstill.methods.base import Method
    from unstill.models.loading_options import LoraFile
    from unstill.models.memory import Offload
    from unstill.text_to_video.prompt_video import CandidateOptions


NAME = "{name}"
"""In `out`, stands for the name of the image without its suffix."""
DEFAULT_MODEL = "pico"

P = ParamSpec("P")
S = TypeVar("S")
R = TypeVar("R")


@dataclass(frozen=True, kw_only=True, slots=True)
class AnimationSettings:
    """
    How an image is animated, and where the videos are written.

    Args:
        prompt: what happens, for models that read text.
        crop: what the model sees of a picture of another shape: centre, fit (all of it, on a blurred ground), X,Y (the
            middle of the part, in percent from the left and the top), or auto (the centre; fit where that cuts off
            more than 35 %).
        methods: objects or text (`"early-start:sigma=20"`); by default Analytic-Init where the model's statistics are
            known, otherwise an early start. An empty sequence: none.
        motion: how much should move: 0 (still) to 1 (lively), for models that have such a level.
        guidance: weight of prompt and picture, the pipeline's guidance_scale. Default: the model's.
        steps: sampling steps: more is slower and cleaner. Default: the model's.
        seed: the same seed makes the same video.
        plain: also make the plain video to compare with; takes as long again.
        model: a name from 'unstill models', a diffusers folder, or a hub id. Default: pico.
        dtype: numbers in the weights: float32, float16 or bfloat16. Default: the model's; on the CPU float32.
        quantise: weights in 8 bits: fp8, or int8 (needs torchao). Half the memory of 16 bits.
        loras: low-rank weights, see `unstill.load`.
        device: where to compute: cpu, cuda, cuda:1, mps ... Default: the best there is.
        offload: what is on the accelerator at a time, see `unstill.load`.
        pipe: a loaded pipeline, in place of loading `model`. What is left out is then decided by `model`, if it is
            given, and otherwise by the pipeline.
        out: the video to write: .mp4, .gif, .webp, or a folder for PNG pictures. The plain video is OUT_plain, the
            settings are OUT.json; candidates are kept in the folder OUT_candidates.
        frames: length of the video. Default: the model's.
        size: (height, width) in pixels, for models that make more than one size.
        fps: frames per second of the written video. Default: the model's.
        upscale: enlarge the written videos by a whole factor. Default: 4 up to 128 pixels, otherwise 1.
        compare: also write plain and improved side by side, as OUT_compare.
        candidates: how pictures are made of a prompt and chosen.
        command: what the settings name as their origin.
        progress: called with a stage (`"plain"`, `"improved"`; with candidates `"candidates"` and `"motion"`), the
            steps done and all steps. An exception that it raises ends the run.
    """

    prompt: str | None = None
    crop: str | tuple[float, float] = "auto"
    methods: "str | Method | Sequence[str | Method] | None" = None
    motion: float | None = None
    guidance: float | None = field(default=None, metadata={"least": 0})
    steps: int | None = field(default=None, metadata={"least": 1})
    seed: int = field(default=0, metadata={"least": 0})
    plain: bool = True
    model: str | None = None
    dtype: "torch.dtype | str | None" = None
    quantise: Literal["fp8", "int8"] | None = None
    loras: "Sequence[str | LoraFile]" = ()
    device: str | None = None
    offload: "bool | Offload" = False
    pipe: "DiffusionPipeline | None" = None
    out: str | os.PathLike[str] | None = None
    frames: int | None = field(default=None, metadata={"least": 2})
    size: tuple[int, int] | None = None
    fps: int | None = field(default=None, metadata={"least": 1, "most": 120})
    upscale: int | None = field(default=None, metadata={"least": 1, "most": 16})
    compare: bool = False
    candidates: "CandidateOptions | None" = None
    command: str = ""
    progress: StageProgress | None = None

    @property
    def model_name(self) -> str | None:
        """The model by name; `None` for a pipeline of which only itself is known."""
        return DEFAULT_MODEL if self.model is None and self.pipe is None else self.model

    def check(self) -> None:
        """
        Raises:
            UnstillError: a value out of its range, or settings that exclude each other.
        """
        if self.prompt is not None and not self.prompt.strip():
            raise UnstillError("--prompt is empty: say what happens, for example 'a boat sails to the left'.")
        for setting in dataclasses.fields(self):
            value, least, most = (getattr(self, setting.name), *(setting.metadata.get(k) for k in ("least", "most")))
            if value is None or least is None:
                continue
            if most is not None and not least <= value <= most:
                raise UnstillError(f"--{setting.name} goes from {least} to {most}, but is {value}.")
            if not value >= least:
                raise UnstillError(f"--{setting.name} is at least {least}, but is {value}.")
        if self.compare and not self.plain:
            raise UnstillError("--compare needs the plain video: leave out --no-plain.")


@dataclass(frozen=True, slots=True)
class OneImage(AnimationSettings):
    """
    The parameters of `unstill.animate`.

    Args:
        image: a picture, or its file. Without picture and prompt, the embedded model takes the one of this package.
    """

    image: "Image.Image | str | os.PathLike[str] | None" = None


@dataclass(frozen=True, slots=True)
class SeveralImages(AnimationSettings):
    """
    The parameters of `unstill.animate_all`.

    Args:
        images: the files of the pictures.
    """

    images: Sequence[str | os.PathLike[str]]


def takes(settings: Callable[P, S]) -> Callable[[Callable[[S], R]], Callable[P, R]]:
    """
    A decorator that gives a function of one settings object the parameters of the settings' class in its place.

    Type checkers, `help` and editors see every parameter with its type and default; the docstring gets `Args` from
    those of the class and of its bases.

    Example:
        ```py
        @takes(OneImage)
        def animate(settings: OneImage) -> Animation: ...


        animate("photo.jpg", motion=0.8)
        ```
    """

    def decorate(function: Callable[[S], R]) -> Callable[P, R]:
        @functools.wraps(function)
        def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
            return function(settings(*args, **kwargs))

        signature = inspect.signature(settings)
        result = inspect.signature(function).return_annotation
        cast: Any = wrapped
        cast.__signature__ = signature.replace(return_annotation=result)
        kinds = [kind for kind in getattr(settings, "__mro__", ()) if kind is not object]
        listed = "\n".join(inspect.cleandoc(kind.__doc__).partition("Args:\n")[2] for kind in kinds)
        before, _, after = inspect.cleandoc(function.__doc__ or "").partition("Returns:\n")
        cast.__doc__ = f"{before}Args:\n{listed}\n\nReturns:\n{after}"
        return wrapped

    return decorate
