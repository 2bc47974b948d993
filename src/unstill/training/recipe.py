"""
A training recipe: a YAML file with all settings of a run, validated when it is read.

docs/training.md lists the keys. Some recipes come with the package (`unstill train list`).
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from unstill.data.sources import SourceKind, SourceSettings, guess_kind
from unstill.documents import LARGEST_SIDE, fault_of, parse_size
from unstill.errors import UnstillError, shown
from unstill.training.condition_noise import Name
from unstill.training.noise_sampling import Time
from unstill.training.yaml_reader import read_yaml


LONGEST = 100_000
"""Maximal size of a recipe in bytes; PyYAML takes a second for so many."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)


Speed = Annotated[float, Field(ge=0, le=1)]
Stride = Annotated[int, Field(ge=1, le=10_000)]


class Data(_Part):
    """Selection of the clips. The defaults of frames, fps and size are those of the model."""

    videos: str | None = Field(None, description="a folder of videos, of tar shards, or the word world")
    kind: SourceKind | None = Field(None, description="what `videos` is; detected by default")
    captions: str | None = Field(None, description="a CSV or JSONL file of captions")
    frames: int | None = Field(None, ge=1, le=10_000)
    fps: float | None = Field(None, gt=0, le=1000)
    stride: Stride | tuple[Stride, Stride] | None = Field(None, description="in stored frames, instead of fps")
    size: str | None = Field(None, description="WIDTHxHEIGHT")
    clips_per_video: int = Field(1, ge=1, le=10_000)
    clips: int = Field(16384, ge=1, le=10_000_000, description="of the synthetic world")
    speed: tuple[Speed, Speed] | None = Field(
        None, description="of the synthetic world: the range of the factor of its speeds"
    )
    both_directions: bool = Field(False, description="of the synthetic world: half of the clips run backwards")
    condition_frame: Literal["first", "random"] = "first"
    cache: bool = Field(True, description="encode every clip once and keep its latents on disk")
    cache_folder: str | None = Field(None, description="by default OUT/latents; runs may share one")
    workers: int = Field(2, ge=0, le=256, description="processes per training process that read ahead")

    @field_validator("size")
    @classmethod
    def _possible_size(cls, value: str | None) -> str | None:
        if value is not None:
            parse_size(value)
        return value

    @model_validator(mode="after")
    def _one_rate(self) -> Data:
        if self.fps is not None and self.stride is not None:
            raise ValueError("fps and stride both decide which frames are taken; give one of them")
        return self

    def settings(self, frames: int, fps: float | None, size: tuple[int, int], seed: int) -> SourceSettings:
        """The settings for `open_source`; the arguments are the model's defaults where the recipe sets nothing."""
        if self.videos is None:
            raise UnstillError("The recipe names no clips: give data.videos, a folder of videos (or --videos FOLDER).")
        kind = self.kind or guess_kind(self.videos)
        if self.size is not None:
            size = parse_size(self.size)
        return SourceSettings(
            kind=kind,
            path=None if kind == "world" else self.videos,
            captions=self.captions,
            frames=self.frames or frames,
            size=size,
            fps=self.fps if self.fps or self.stride else fps,
            stride=self.stride or 1,
            clips_per_video=self.clips_per_video,
            clips=self.clips,
            speed=self.speed,
            both_directions=self.both_directions,
            seed=seed,
        )


class ConditionSettings(_Part):
    """Noise on the conditioning image (`unstill.training.condition_noise`)."""

    method: Name = "time-noise"
    preset: str | None = None
    on: Literal["latents", "tokens", "both"] | None = None
    condition_on_level: bool | None = Field(
        None, description="condition the network on the level, where it has an input for it"
    )
    maximum: float | None = Field(None, ge=0, le=1e6)
    exponent: float | None = Field(None, ge=0, le=1e6)
    scale: float | None = Field(None, ge=-1e6, le=1e6)
    noise_shape: Literal["element", "frame", "clip"] | None = None

    def parameters(self) -> dict[str, Any]:
        """The parameters of the method that the recipe sets."""
        names = ("maximum", "exponent", "scale", "noise_shape")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


class Noise(_Part):
    """Distribution of the noise levels (`unstill.training.noise_sampling`)."""

    log_sigma_mean: float = Field(0.7, ge=-20, le=20)
    log_sigma_std: float = Field(1.6, gt=0, le=20)
    time: Time = Field("quantile", description="released: sigma / 700, as the preset `released` has it")
    logit_std: float = Field(0.0, ge=0, le=20)


class Drop(_Part):
    """
    Probabilities of dropping conditions, for classifier-free guidance: only the caption, only the image, both; and
    the motion level.
    """

    text: float = Field(0.05, ge=0, le=1)
    image: float = Field(0.05, ge=0, le=1)
    both: float = Field(0.05, ge=0, le=1)
    motion: float = Field(0.0, ge=0, le=1)

    @model_validator(mode="after")
    def _at_most_all(self) -> Drop:
        if self.text + self.image + self.both > 1:
            raise ValueError("text, image and both exclude each other, so their sum is at most 1")
        return self


class Lora(_Part):
    """Train a LoRA instead of all weights."""

    rank: int = Field(32, ge=1, le=4096)
    alpha: float | None = Field(None, gt=0, le=1e6, description="by default the rank")
    targets: list[Annotated[str, Field(min_length=1)]] | None = Field(
        None, min_length=1, max_length=1000, description="names of linear layers; by default those of attention"
    )


Beta = Annotated[float, Field(ge=0, lt=1)]


class Optimiser(_Part):
    """AdamW, number of steps and batch size."""

    steps: int = Field(ge=1, le=1_000_000_000)
    batch: int = Field(8, ge=1, le=65_536, description="clips per step, over all processes")
    batch_per_device: int | None = Field(None, ge=1, le=65_536, description="clips at a time; the rest is accumulated")
    learning_rate: float = Field(1e-5, gt=0, le=1000)
    warmup: int = Field(0, ge=0, le=1_000_000_000)
    decay: float = Field(0.0, ge=0, le=1, description="share of the steps, at the end, over which the rate falls to 0")
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    weight_decay: float = Field(1e-2, ge=0, le=1000)
    clip: float = Field(1.0, gt=0, le=1e9, description="largest gradient norm")
    ema: float | None = Field(0.9999, gt=0, lt=1, description="null: no average of the weights")
    mixed_precision: Literal["no", "bf16", "fp16"] = "no"
    gradient_checkpointing: bool = False
    compile: bool = False

    @field_validator("mixed_precision", mode="before")
    @classmethod
    def _no(cls, value: Any) -> Any:
        return "no" if value is False else value  # YAML reads an unquoted no as false


class Save(_Part):
    """Checkpoints of the full state, from which a run resumes."""

    every: int = Field(500, ge=1)
    keep: int = Field(2, ge=1)


class Validate(_Part):
    """Videos and the leakage curve during training."""

    every: int = Field(500, ge=1)
    images: str | None = Field(None, description="a folder of pictures; by default first frames of training clips")
    videos: int = Field(2, ge=0, le=1000)
    clips: int = Field(4, ge=0, le=10_000, description="for the leakage curve; 0 leaves it out")
    steps: int = Field(25, ge=1, le=1000, description="of the sampler")


class Recipe(_Part):
    """A training run."""

    model: str
    checkpoint: str | None = Field(None, description="weights of the denoiser to begin with, instead of the model's")
    seed: int = Field(0, ge=0, lt=2**63)
    data: Data = Data()
    condition: ConditionSettings = ConditionSettings()
    noise: Noise = Noise()
    drop: Drop = Drop()
    lora: Lora | None = None
    train: Optimiser
    save: Save = Save()
    validation: Validate | None = Field(None, alias="validate")
    motion_bucket: float | None = Field(
        None, ge=-1e6, le=1e6, description="SVD's motion bucket; by default 127, as in its pipeline"
    )
    fps_condition: float | None = Field(
        None, ge=0, le=1000, description="the network's fps conditioning; by default the clips' own rate"
    )
    trackers: list[Literal["tensorboard", "trackio", "wandb"]] = []

    @model_validator(mode="before")
    @classmethod
    def _released_time(cls, value: Any) -> Any:
        """The preset `released` implies the released code's time, unless the recipe sets one."""
        if isinstance(value, dict) and isinstance(condition := value.get("condition"), dict):
            noise = value.get("noise") or {}
            if condition.get("preset") == "released" and isinstance(noise, dict):
                return {**value, "noise": {"time": "released", **noise}}
        return value

    @field_validator("lora", mode="before")
    @classmethod
    def _default_lora(cls, value: Any) -> Any:
        return {} if value is True else None if value is False else value


def read_recipe(name_or_path: str, changes: Mapping[str, Any] | None = None) -> Recipe:
    """
    Reads a recipe.

    Args:
        name_or_path: a file, or the name of a recipe in this package.
        changes: values of single keys to replace, such as `{"data.videos": "clips"}`.

    Raises:
        UnstillError: no such recipe, a file that is not YAML, or unknown keys or invalid values.
    """
    return check_recipe(yaml_of(name_or_path), name_or_path, changes)


def yaml_of(name_or_path: str) -> str:
    """The text of a recipe."""
    path = Path(name_or_path)
    if path.is_file():
        if path.stat().st_size > LONGEST:
            raise UnstillError(
                f"{path} has more than {LONGEST:,} bytes, so it is no recipe; name the YAML file of one."
            )
        try:
            return path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise UnstillError(f"{path} is not a text file in UTF-8, as a recipe must be; save it as one.") from error
    if name_or_path in shipped():
        return (files("unstill.training") / "recipes" / f"{name_or_path}.yaml").read_text(encoding="utf-8")
    close = difflib.get_close_matches(name_or_path, shipped(), n=1)
    raise UnstillError(
        f"There is no recipe file {name_or_path}"
        + (f"; did you mean {close[0]}?" if close else ".")
        + f" Recipes of this package: {', '.join(shipped())}, and pico, which trains the embedded model from nothing."
    )


def shipped() -> list[str]:
    """Names of the recipes in this package."""
    folder = files("unstill.training") / "recipes"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def check_recipe(text: str, where: str, changes: Mapping[str, Any] | None = None) -> Recipe:
    """
    Parses and validates a recipe.

    Args:
        text: the YAML.
        where: the beginning of error messages.
        changes: values of single keys to replace.

    Raises:
        UnstillError: as `read_recipe`.
    """
    content = read_yaml(text, where)
    if not isinstance(content, dict):
        raise UnstillError(f"{where} is not a recipe: it should begin with a line such as 'model: svd'.")
    for key, value in (changes or {}).items():
        *parts, last = key.split(".")
        inner = content
        for part in parts:
            if inner.get(part) is None or inner[part] is True:  # true: with its defaults, as `lora: true`
                inner[part] = {}
            inner = inner[part]
            if not isinstance(inner, dict):
                raise UnstillError(f"{key} cannot be set: {part} has no keys of its own in {where}.")
        inner[last] = value
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        raise UnstillError(f"{where}: {_sentence(error)}") from error


def _sentence(error: ValidationError) -> str:
    """All validation errors in one sentence."""
    errors = error.errors(include_url=False)
    faults = "; ".join(dict.fromkeys(_fault(fault) for fault in errors[:MOST]))  # each alternative of a type is one
    if len(errors) > MOST:
        faults += f"; and {len(errors) - MOST} more"
    return faults if faults.endswith("?") else faults + "."


MOST = 8
"""Maximal number of errors in one message."""


def _fault(fault: Any) -> str:
    place = list(fault["loc"])
    if fault["type"] == "extra_forbidden" and all(isinstance(part, str) for part in place):
        known = _keys(place[:-1])
        close = difflib.get_close_matches(place[-1][:80], known, n=1)
        group = ".".join(place[:-1]) or "a recipe"
        elsewhere = [f"{part}.{place[-1]}" for part in known if len(place) == 1 and place[-1] in _keys([part])]
        suggestion = next(iter(elsewhere or close), None)
        hint = f"did you mean {suggestion}?" if suggestion else f"there are {', '.join(known)}"
        name = ".".join(shown(part).strip("'") for part in place)
        return f"{name} is not a key of {group}; {hint}"
    if place[:2] == ["data", "stride"]:
        value = fault["input"]
        return f"data.stride has {shown(value)}: should be a number of frames from 1 on, or a range such as [1, 6]"
    if place[-2:] == ["data", "size"]:
        return (
            f"data.size is {shown(fault['input'])}: should be WIDTHxHEIGHT in pixels, each at most {LARGEST_SIDE}, "
            "for example 512x320"
        )
    return fault_of(fault)


def _keys(place: list[str]) -> list[str]:
    """The keys that the part of the recipe at `place` has; none if it is a single value."""
    part: Any = Recipe
    for key in place:
        field = next(f for name, f in part.model_fields.items() if key in (name, f.alias))
        kinds = getattr(field.annotation, "__args__", (field.annotation,))
        part = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
        if part is None:
            return []
    return [field.alias or name for name, field in part.model_fields.items()]
