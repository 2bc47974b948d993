"""The facts about a named model."""

from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """
    A named model.

    Attributes:
        name: the argument of `load` and `--model`.
        pipeline: the class of its pipeline.
        weights: a hub id, or `None` for weights in the package.
        licence: of the weights, in their owner's words.
        parameters: of the denoiser.
        needs: hardware to run it in `dtype`, from its authors or diffusers' documentation, else estimated.
        dtype: what the weights were made for.
        size: (height, width) it was trained for.
        frames, fps, steps: its usual clip and number of sampling steps.
        input: what a call needs.
        parts: components in other repositories: (name, class, hub id).
        start: the default noise level at which methods start sampling: ("start" or "sigma", value).
        scheduler: settings that replace those of the loaded scheduler: (class, changed values).
        variant: of the files in `weights`, such as fp16.
        tiled: whether to tile its VAE, without which a clip of that size takes far more memory.
        lora: the file name of a LoRA in the package that is merged into the embedded weights.
        max_frames: the longest clip that the network can generate; `None` if its weights do not limit it.
        file: the one file in `weights` that holds the released checkpoint; `None` for a diffusers repository.
    """

    name: str
    pipeline: str
    weights: str | None
    licence: str
    parameters: str
    needs: str
    dtype: Literal["float32", "float16", "bfloat16"]
    size: tuple[int, int]
    frames: int
    fps: int
    steps: int
    input: Literal["image", "image and prompt", "prompt"]
    start: tuple[Literal["start", "sigma"], float]
    parts: tuple[tuple[str, str, str], ...] = ()
    scheduler: tuple[str, tuple[tuple[str, Any], ...]] | None = None
    variant: str | None = None
    lora: str | None = None
    file: str | None = None
    tiled: bool = False
    max_frames: int | None = None
