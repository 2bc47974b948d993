"""What is known of a model that can be named."""

from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """
    One model by name.

    Attributes:
        name: what `load` and `--model` take.
        pipeline: the class of its pipeline.
        weights: a hub id, or `None` for weights that come with the package.
        licence: of the weights, in their owner's words.
        parameters: of the denoiser.
        needs: memory to run it in `dtype`, from figures of its authors or diffusers' documentation, else estimated.
        dtype: what the weights were made for.
        size: (height, width) it was trained for.
        frames, fps, steps: its usual clip and number of sampling steps.
        input: what a call needs.
        parts: pipeline components that live in their own repository: name -> (class, hub id).
        start: the noise level at which improved sampling begins unless asked otherwise: ("start" or "sigma", value).
        scheduler: settings that replace those of the loaded scheduler: (class, changed values).
        tiled: whether its autoencoder works tile by tile, without which a clip of that size takes far more memory.
        lora: a low-rank addition to the weights that come with the package, which has it too: the name of its file.
        max_frames: the longest clip that the network can make; `None`: not limited by its weights.
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
