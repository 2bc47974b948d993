"""What `unstill.animate` was asked for, checked before a model is loaded."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from PIL import Image

from unstill.animation_settings import AnimationSettings
from unstill.data.images import read_image
from unstill.data.ownership import digest
from unstill.data.picture_crop import Crop, FittedPicture, fit_picture, parse_crop
from unstill.errors import UnstillError
from unstill.families.model_card import Model
from unstill.lab.fingerprint import model_fingerprint
from unstill.lab.provenance import versions
from unstill.methods.base import Method
from unstill.methods.parsing import parse_method
from unstill.methods.registry import describe_method, method_name
from unstill.models import registry
from unstill.models.call_arguments import arguments, native_frames, native_size
from unstill.models.loading_options import LoraFile
from unstill.text_to_video.prompt_video import CandidateOptions, starts_from_prompt


DECIDES = (
    "prompt",
    "motion",
    "guidance",
    "steps",
    "seed",
    "plain",
    "quantise",
    "frames",
    "size",
    "fps",
    "upscale",
    "compare",
)
"""Settings that decide the written files as they are; `AnimationRequest.key` adds those that are read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AnimationRequest:
    """
    What decides an animation, checked and read; `of` makes it.

    Attributes:
        settings: what was asked for.
        picture: the whole picture; `None` where there is only a prompt.
        source: what the settings file says about the picture: its path and SHA-256.
        methods: of the improved video; none where I4VGen's own preset is used.
        crop: what the model sees of the picture.
        candidates: how pictures are made of the prompt; `None` where the picture is given or there is none.
    """

    settings: AnimationSettings
    picture: Image.Image | None
    source: dict[str, str] | None
    methods: tuple[Method, ...]
    crop: Crop
    candidates: CandidateOptions | None

    @classmethod
    def of(cls, settings: AnimationSettings, image: Image.Image | str | os.PathLike[str] | None) -> Self:
        """
        The request, as far as it can be checked before a model is loaded.

        Raises:
            UnstillError: see `unstill.animate`.
        """
        # First what needs no diffusers, whose import takes seconds.
        settings.check()
        model, prompt = settings.model_name, settings.prompt
        pipeline: type | None = None if settings.pipe is None else type(settings.pipe)
        if image is None and not prompt:
            of_model = None if model is None else registry.pipeline_name(model)
            if registry.is_embedded(pipeline.__name__ if pipeline else of_model):
                image = registry.bundled_picture()
        part = parse_crop(settings.crop)
        picture, source = _read(image)
        if model is not None:
            defaults = registry.defaults_of(model)
        else:
            defaults = registry.defaults_of_pipeline(pipeline.__name__ if pipeline else None)
        asked = methods_for(settings.methods, defaults)
        if model is not None:
            registry.check_frames(model, settings.frames)
        if settings.size is not None:
            registry.check_video_size(model, settings.size, pipeline)
        if model is not None and pipeline is None:
            pipeline = registry.pipeline_class(model)
        candidates = settings.candidates
        text_to_image = candidates.text_to_image if candidates else None
        named = None if settings.methods is None else [method_name(type(method)) for method in asked]
        makes_picture = starts_from_prompt(pipeline, picture is not None, prompt, named, text_to_image)
        if candidates is not None and not makes_picture:
            raise UnstillError(
                "--candidates, --reward, --pick, --early and --text-to-image are for pictures that are made of a "
                "prompt: give --prompt without a picture and without other methods, and a model that makes videos "
                "from text, or --text-to-image."
            )
        request = cls(
            settings=settings,
            picture=picture,
            source=source,
            methods=() if makes_picture and settings.methods is None else asked,
            crop=part,
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
        model = self.settings.model_name
        return None if model is None else registry.find(model)

    @property
    def rate(self) -> int:
        """Frames per second of the video."""
        return self.settings.fps or (self.entry.fps if self.entry else 8)

    def size_for(self, pipe: Any) -> tuple[int, int]:
        """(height, width) of the video, in pixels."""
        return self.settings.size or (self.entry.size if self.entry else native_size(pipe))

    def fitted_picture(self, pipe: Any) -> FittedPicture | None:
        """What the model sees of the picture; `None` where there is only a prompt."""
        return None if self.picture is None else fit_picture(self.picture, self.size_for(pipe), self.crop)

    def call(self, pipe: Any, picture: Image.Image | None) -> dict[str, Any]:
        """Arguments of the pipeline's call for a picture of the size of the video."""
        frames = None if self.settings.frames or self.entry else native_frames(pipe)
        return self._arguments(type(pipe), picture, size=self.size_for(pipe), frames=frames)

    def key(self) -> str | None:
        """
        A hash of all that decides the written files: image, settings, weights, versions of the software.

        Returns:
            `None` where that is not known: for a pipeline that was loaded by somebody else, and without an image.
        """
        settings = self.settings
        if self.source is None or settings.pipe is not None:
            return None
        assert settings.model_name is not None
        loras = [lora if isinstance(lora, LoraFile) else LoraFile.parse(lora) for lora in settings.loras]
        decides = {
            **{name: getattr(settings, name) for name in DECIDES},
            "image": [value for name, value in self.source.items() if name != "path"],
            "model": [settings.model_name, model_fingerprint(settings.model_name)],
            "dtype": str(settings.dtype).removeprefix("torch."),
            "loras": [[digest(lora.file), lora.weight, lora.second] for lora in loras],
            "methods": [describe_method(method) for method in self.methods],
            "crop": self.crop,
            "versions": versions(),
        }
        return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()

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
            prompt=self.settings.prompt,
            motion=self.settings.motion,
            frames=self.settings.frames or (entry.frames if entry else frames),
            steps=self.settings.steps or (entry.steps if entry else None),
            size=size,
            fps=self.settings.fps or (entry.fps if entry else None),
            guidance=self.settings.guidance,
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
