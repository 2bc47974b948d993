"""The checked arguments of `unstill.i4vgen`, shared by both stages; all errors are raised before any work."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from unstill.errors import UnstillError
from unstill.hooks import adapter_for, apply
from unstill.methods.ni_vsds import NIVSDS
from unstill.models.call_arguments import native_frames, native_size, parameters
from unstill.progress import StageProgress
from unstill.text_to_video.candidates import Halving, ImageMode
from unstill.text_to_video.stage_cache import StageRecord, stage_key


RESERVED = {  # arguments of the pipeline's call that i4vgen passes itself
    "image",
    "prompt",
    "generator",
    "latents",
    "output_type",
    "return_dict",
    "conditioning_frames",
    "num_videos_per_prompt",
}


@dataclass(frozen=True, slots=True)
class CandidateSettings:
    """How candidates are generated and one is selected; the fields are arguments of `i4vgen`."""

    candidates: int
    reward: Any
    pick: int | None
    early: Halving | None
    text_to_image: Callable[..., Any] | None
    batch: int | None

    def check(self) -> None:
        """Raises `UnstillError` for a value that is not possible."""
        if not _is_count(self.candidates):
            raise UnstillError(f"{self.candidates!r} candidates cannot be chosen from; pass a number of at least 1.")
        if self.batch is not None and not _is_count(self.batch):
            raise UnstillError(f"batch is the number of pictures in one call, at least 1, not {self.batch!r}.")
        if self.pick is not None and self.pick not in range(self.candidates):
            raise UnstillError(f"There is no candidate {self.pick}; they are numbered 0 to {self.candidates - 1}.")
        if self.reward is not None and not callable(self.reward):
            raise UnstillError(
                f"A reward is a callable (prompt, pictures) -> scores, not {self.reward!r}; to load one by name, use "
                "unstill.text_to_video.reward_named(name)('cpu')."
            )
        if self.early is not None and not isinstance(self.early, Halving):
            raise UnstillError(f"early takes a Halving, such as unstill.text_to_video.Halving(), not {self.early!r}.")
        if self.text_to_image is not None and not callable(self.text_to_image):
            raise UnstillError(
                f"text_to_image takes a pipeline that was loaded, not {self.text_to_image!r}; load it, for example "
                "with diffusers.AutoPipelineForText2Image.from_pretrained."
            )
        if self.text_to_image is not None and self.early is not None:
            raise UnstillError(
                "Only pictures of the video model itself can be stopped early; leave out early or text_to_image."
            )


@dataclass(frozen=True, slots=True)
class I4VGenRequest:
    """
    One checked call of `i4vgen`.

    Attributes:
        pipe: the pipeline.
        prompt: of pictures and video.
        method: of stage 2.
        call: arguments of the pipeline's call.
        size: (height, width) in pixels.
        frames: of the video.
        generator: of all noise.
        folder: where the results of the stages are stored; `None`: nowhere.
        progress: called with (stage, steps done, total).
        key: a fingerprint of everything that the pictures and the video depend on.
    """

    pipe: Any
    prompt: str
    method: NIVSDS
    call: dict[str, Any]
    size: tuple[int, int]
    frames: int
    generator: torch.Generator
    folder: Path | None
    progress: StageProgress
    key: str

    @classmethod
    def of(
        cls,
        pipe: Any,
        prompt: str,
        preset: str | NIVSDS,
        call: dict[str, Any],
        generator: torch.Generator | None,
        folder: str | Path | None,
        progress: StageProgress | None,
    ) -> I4VGenRequest:
        if not isinstance(prompt, str) or not prompt.strip():
            raise UnstillError(
                "i4vgen takes one prompt that says what happens, for example 'a boat sails to the left'."
            )
        if generator is not None and not isinstance(generator, torch.Generator):
            raise UnstillError(f"generator is one torch.Generator, seeded by manual_seed, not {generator!r}.")
        accepted = parameters(type(pipe))
        if "prompt" not in accepted:
            raise UnstillError(f"{type(pipe).__name__} takes no prompt; use apply(pipe, NIVSDS()) with an image.")
        _check_call(type(pipe).__name__, call, accepted)
        method = stage_two(pipe, preset)
        image = torch.zeros(()) if adapter_for(pipe).image_latents_from is None else None
        apply(pipe, method, image=image).remove()  # errors of stage 2 are raised before the candidates are generated
        height, width = native_size(pipe)
        size = call.get("height") or height, call.get("width") or width
        frames = call.get("num_frames") or native_frames(pipe)
        steps = call.get("num_inference_steps") or accepted["num_inference_steps"].default
        call = {**call, "num_frames": frames, "num_inference_steps": steps}
        call |= {side: value for side, value in zip(("height", "width"), size, strict=True) if side in accepted}
        # A list of one prompt becomes a string, which as_rows repeats for every row, like `prompt`.
        call |= {k: v[0] for k, v in call.items() if "prompt" in k and isinstance(v, list) and len(v) == 1}
        generator = generator or torch.Generator().manual_seed(int(torch.randint(2**62, ()).item()))
        parts = {
            "prompt": prompt,
            "pipeline": [type(pipe).__name__, getattr(pipe.config, "_name_or_path", None), str(pipe.dtype)],
            "weights": _sample_of_weights(pipe),
            "scheduler": [type(pipe.scheduler).__name__, dict(pipe.scheduler.config)],
            "call": call,
            "generator": generator.get_state(),
        }
        path, silent = None if folder is None else Path(folder), lambda part, done, total: None
        return cls(pipe, prompt, method, call, size, frames, generator, path, progress or silent, stage_key(parts))

    def image_mode(self, batch: int | None) -> ImageMode:
        return ImageMode(self.pipe, self.prompt, self.call, self.size, batch or self.frames, self.generator)

    def cached(self, name: str, key: str) -> StageRecord | None:
        """The stored result of a stage; `None` if there is none with this key."""
        record = None if self.folder is None else StageRecord.read(self.folder, name)
        return record if record is not None and record.key == key else None

    def store(self, record: StageRecord) -> StageRecord:
        """Stores the result of a stage if there is a folder, and returns it."""
        if self.folder is not None:
            record.write(self.folder)
        return record


def stage_two(pipe: Any, preset: str | NIVSDS) -> NIVSDS:
    """The method of a preset; LaVie has presets of its own, as in the paper and its code."""
    if isinstance(preset, NIVSDS):
        return preset
    own = f"{preset}-lavie"
    has_own = type(pipe).__name__ == "LaViePipeline" and own in NIVSDS.presets
    return NIVSDS.preset(own if has_own else preset)


def check_image(image: Any, pick: int | None) -> None:
    """Raises `UnstillError` for an `image` that cannot be the anchor, or together with `pick`."""
    if not isinstance(image, Image.Image):
        raise UnstillError(f"The image of i4vgen is a PIL picture, not {type(image).__name__}; open it with PIL.")
    if pick is not None:
        raise UnstillError("pick selects a candidate, but with image= there are none; leave one of them out.")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _check_call(pipeline: str, call: Mapping[str, Any], accepted: Mapping[str, inspect.Parameter]) -> None:
    if reserved := RESERVED & set(call):
        raise UnstillError(f"i4vgen itself passes {', '.join(sorted(reserved))} to the pipeline; leave that out.")
    names = {name for name, parameter in accepted.items() if parameter.kind is not inspect.Parameter.VAR_KEYWORD}
    for name in call:
        if name not in names:  # pipelines with **kwargs ignore unknown arguments
            close = difflib.get_close_matches(name, names, n=1)
            raise UnstillError(
                f"Neither i4vgen nor {pipeline} has an argument {name}"
                + (f"; did you mean {close[0]}?" if close else "; leave it out.")
            )


def _sample_of_weights(pipe: Any) -> list[Any]:
    """
    The first four numbers of every parameter: they differ after further training or with a LoRA, where the name of
    the model does not.
    """
    sample = []
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            firsts = [p.detach().reshape(-1)[:4] for p in part.parameters() if p.numel() >= 4 and not p.is_meta]
            sample += [torch.stack([values.float().cpu() for values in firsts])] if firsts else []
    return sample
