"""What `unstill.animate` was asked for, checked before a model is loaded."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from PIL import Image

from unstill.data.images import read_image
from unstill.data.ownership import digest
from unstill.data.picture_crop import Crop, FittedPicture, fit_picture, parse_crop
from unstill.errors import UnstillError
from unstill.families.model_card import Model
from unstill.methods.base import Method
from unstill.methods.parsing import parse_method
from unstill.methods.registry import method_name
from unstill.models import registry
from unstill.models.call_arguments import arguments, native_frames, native_size
from unstill.text_to_video.prompt_video import CandidateOptions, starts_from_prompt


@dataclass(frozen=True, kw_only=True, slots=True)
class AnimationRequest:
    """
    What decides an animation; `of` checks it. See `unstill.animate` for the parameters.

    Attributes:
        picture: the whole picture; `None` where there is only a prompt.
        source: what the settings say about the picture: its path and SHA-256.
        methods: of the improved video; none where I4VGen's own preset is used.
        candidates: how pictures are made of the prompt; `None` where the picture is given or there is none.
    """

    model: str | None
    picture: Image.Image | None
    source: dict[str, str] | None
    prompt: str | None
    methods: tuple[Method, ...]
    motion: float | None
    frames: int | None
    steps: int | None
    size: tuple[int, int] | None
    fps: int | None
    guidance: float | None
    crop: Crop
    seed: int
    candidates: CandidateOptions | None

    @classmethod
    def of(
        cls,
        image: Image.Image | str | os.PathLike[str] | None,
        *,
        model: str | None,
        pipeline: type | None,
        prompt: str | None,
        methods: str | Method | Sequence[str | Method] | None,
        motion: float | None,
        frames: int | None,
        steps: int | None,
        size: tuple[int, int] | None,
        fps: int | None,
        guidance: float | None,
        crop: str | tuple[float, float],
        seed: int,
        candidates: CandidateOptions | None,
    ) -> Self:
        """
        Args:
            model: `None` for a pipeline of which only itself is known.
            pipeline: the class of a loaded pipeline; by default that of `model`, as far as it is known.

        Raises:
            UnstillError: see `unstill.animate`.
        """
        # First what needs no diffusers, whose import takes seconds.
        if prompt is not None and not prompt.strip():
            raise UnstillError("--prompt is empty: say what happens, for example 'a boat sails to the left'.")
        for name, value, least in (("frames", frames, 2), ("steps", steps, 1), ("fps", fps, 1), ("seed", seed, 0)):
            if value is not None and value < least:
                raise UnstillError(f"--{name} is at least {least}, but is {value}.")
        if image is None and not prompt:
            of_model = None if model is None else registry.pipeline_name(model)
            if registry.is_embedded(pipeline.__name__ if pipeline else of_model):
                image = registry.bundled_picture()
        part = parse_crop(crop)
        picture, source = _read(image)
        if model is not None:
            defaults = registry.defaults_of(model)
        else:
            defaults = registry.defaults_of_pipeline(pipeline.__name__ if pipeline else None)
        asked = methods_for(methods, defaults)
        if model is not None:
            registry.check_frames(model, frames)
        if size is not None:
            registry.check_video_size(model, size, pipeline)
        if model is not None and pipeline is None:
            pipeline = registry.pipeline_class(model)
        text_to_image = candidates.text_to_image if candidates else None
        named = None if methods is None else [method_name(type(method)) for method in asked]
        makes_picture = starts_from_prompt(pipeline, picture is not None, prompt, named, text_to_image)
        if candidates is not None and not makes_picture:
            raise UnstillError(
                "--candidates, --reward, --pick, --early and --text-to-image are for pictures that are made of a "
                "prompt: give --prompt without a picture and without other methods, and a model that makes videos "
                "from text, or --text-to-image."
            )
        request = cls(
            model=model,
            picture=picture,
            source=source,
            prompt=prompt,
            methods=() if makes_picture and methods is None else asked,
            motion=motion,
            frames=frames,
            steps=steps,
            size=size,
            fps=fps,
            guidance=guidance,
            crop=part,
            seed=seed,
            candidates=(candidates or CandidateOptions()) if makes_picture else None,
        )
        if pipeline is not None:
            # Stands for a picture that is made later, by another model.
            made_later = Image.new("RGB", (64, 64)) if text_to_image is not None else None
            request._arguments(pipeline, picture or made_later)
        return request

    @property
    def entry(self) -> Model | None:
        """What is known of the model by name."""
        return None if self.model is None else registry.find(self.model)

    @property
    def rate(self) -> int:
        """Frames per second of the video."""
        return self.fps or (self.entry.fps if self.entry else 8)

    def size_for(self, pipe: Any) -> tuple[int, int]:
        """(height, width) of the video, in pixels."""
        return self.size or (self.entry.size if self.entry else native_size(pipe))

    def fitted_picture(self, pipe: Any) -> FittedPicture | None:
        """What the model sees of the picture; `None` where there is only a prompt."""
        return None if self.picture is None else fit_picture(self.picture, self.size_for(pipe), self.crop)

    def call(self, pipe: Any, picture: Image.Image | None) -> dict[str, Any]:
        """Arguments of the pipeline's call for a picture of the size of the video."""
        frames = None if self.frames or self.entry else native_frames(pipe)
        return self._arguments(type(pipe), picture, size=self.size_for(pipe), frames=frames)

    def _arguments(
        self,
        pipeline: type,
        picture: Image.Image | None,
        size: tuple[int, int] | None = None,
        frames: int | None = None,
    ) -> dict[str, Any]:
        entry = self.entry
        return arguments(
            pipeline,
            image=picture,
            prompt=self.prompt,
            motion=self.motion,
            frames=self.frames or (entry.frames if entry else frames),
            steps=self.steps or (entry.steps if entry else None),
            size=size,
            fps=self.fps or (entry.fps if entry else None),
            guidance=self.guidance,
        )


def methods_for(methods: str | Method | Sequence[str | Method] | None, defaults: dict[str, Any]) -> tuple[Method, ...]:
    """
    The methods that are asked for.

    Args:
        methods: objects or text; `None` is what suits the model, see `unstill.models.registry.usual_method`.
        defaults: of the model, for what text leaves out, see `unstill.models.registry.defaults_of`.

    Raises:
        UnstillError: an unknown method or parameter.
    """
    if methods is None:
        methods = registry.usual_method(defaults)
    if isinstance(methods, (str, Method)):
        methods = [methods]
    return tuple(parse_method(one, defaults) if isinstance(one, str) else one for one in methods)


def _read(image: Image.Image | str | os.PathLike[str] | None) -> tuple[Image.Image | None, dict[str, str] | None]:
    """The picture, and what the settings say about it."""
    if image is None:
        return None, None
    if isinstance(image, Image.Image):
        picture = image.convert("RGB")
        return picture, {"sha256_of_pixels": hashlib.sha256(picture.tobytes()).hexdigest()}
    path = Path(image)
    return read_image(path), {"path": str(path), "sha256": digest(path)}
