"""`unstill.animate`: a picture, or a prompt, becomes a video with methods, and the plain video beside it."""

from __future__ import annotations

import dataclasses
import functools
import os
import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from unstill.animation_request import AnimationRequest
from unstill.animation_result import Animation, check_output
from unstill.data.output_paths import check_writable
from unstill.lab.provenance import versions
from unstill.methods.base import Method
from unstill.methods.ni_vsds import NIVSDS
from unstill.methods.registry import describe_method
from unstill.metrics.quick_scores import breaks_up, score_video, scores_verdict
from unstill.models import registry
from unstill.models.call_arguments import generate, parameters
from unstill.models.loading_options import LoraFile, Quantisation, dtype_named
from unstill.models.memory import Offload
from unstill.models.progress_bars import report_steps
from unstill.progress import StageProgress
from unstill.text_to_video.prompt_video import (
    CandidateOptions,
    check_candidates_folder,
    describe_candidates,
    make_from_prompt,
    mean_reward,
)


if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from unstill.text_to_video.result import I4VGen
    from unstill.text_to_video.rewards import Reward


PICTURES = ("image", "conditioning_frames")  # arguments that are no text in the settings


def animate(
    image: Image.Image | str | os.PathLike[str] | None = None,
    *,
    prompt: str | None = None,
    model: str | None = None,
    methods: str | Method | Sequence[str | Method] | None = None,
    motion: float | None = None,
    frames: int | None = None,
    steps: int | None = None,
    size: tuple[int, int] | None = None,
    fps: int | None = None,
    guidance: float | None = None,
    crop: str | tuple[float, float] = "auto",
    seed: int = 0,
    plain: bool = True,
    candidates: CandidateOptions | None = None,
    out: str | os.PathLike[str] | None = None,
    compare: bool = False,
    upscale: int | None = None,
    pipe: DiffusionPipeline | None = None,
    device: str | None = None,
    offload: bool | Offload = False,
    dtype: torch.dtype | str | None = None,
    quantise: Quantisation | None = None,
    loras: Sequence[str | LoraFile] = (),
    command: str = "",
    progress: StageProgress | None = None,
) -> Animation:
    """
    Makes a video of a picture with methods, and from the same seed the plain video without them; scores both.

    With a prompt and no picture, and a model that makes videos of text, I4VGen makes several pictures of the prompt
    and animates the best one (`unstill.i4vgen`). All that can be wrong is found before a model is loaded.

    Args:
        image: a picture, or its file. Without picture and prompt, the embedded model takes the one of this package.
        prompt: what happens, for models that read text.
        model: a name of `unstill models`, a local diffusers folder, or a hub id; by default the embedded model `pico`.
        methods: objects or text (`"early-start:sigma=20"`); by default Analytic-Init where the model's statistics are
            known, otherwise an early start. An empty sequence: none.
        motion: how much should move, from 0 (still) to 1 (lively), for models that have such a level.
        frames, steps: of the video and of sampling; by default the model's.
        size: (height, width) in pixels, for models that make more than one size.
        fps: frames per second of the written video; by default the model's.
        guidance: weight of prompt and image, the pipeline's `guidance_scale`; by default the pipeline's.
        crop: what of a picture of another aspect ratio the model sees: `"centre"`, `"fit"` (the whole on a blurred
            ground), `"X,Y"` or (x, y), the middle of the part in percent from the left and the top, or `"auto"`: the
            centre unless that cuts off more than 35 %, then the whole.
        seed: of the noise. The same seed gives the same video.
        plain: also make the plain video, which takes as long again.
        candidates: how pictures are made of a prompt and chosen.
        out: the video to write (.mp4, .gif, .webp, or a folder for PNG pictures); the plain one is `OUT_plain`, the
            settings `OUT.json`, candidates are kept in the folder `OUT_candidates`. By default nothing is written.
        compare: also write both videos side by side as `OUT_compare`.
        upscale: whole factor by which the written videos are enlarged; by default 4 up to 128 pixels, otherwise 1.
        pipe: a loaded pipeline, in place of loading `model`. What is left out is then decided by `model`, if it is
            given, and otherwise by the pipeline.
        device, offload, quantise, loras: as of `unstill.load`.
        dtype: as of `unstill.load`, or its name, such as `"bfloat16"`.
        command: what the settings name as their origin.
        progress: called with a stage (`"plain"`, `"improved"`; with candidates `"candidates"` and `"motion"`), the
            steps done and all steps. An exception that it raises ends the run.

    Returns:
        The videos with their scores and settings.

    Raises:
        UnstillError: a picture that cannot be read; an unknown model or method; something that this model has no use
            for or lacks; a place that cannot be written or holds files that unstill did not write.

    Example:
        ```py
        animation = unstill.animate("photo.jpg", motion=0.8, out="walk.mp4", compare=True)
        print(animation.verdict)
        ```
    """
    target = None if out is None else Path(out)
    if pipe is None and model is None:
        model = "pico"
    check_output(target, plain, compare, upscale)
    request = AnimationRequest.of(
        image,
        model=model,
        pipeline=None if pipe is None else type(pipe),
        prompt=prompt,
        methods=methods,
        motion=motion,
        frames=frames,
        steps=steps,
        size=size,
        fps=fps,
        guidance=guidance,
        crop=crop,
        seed=seed,
        candidates=candidates,
    )
    if target is not None:
        if request.candidates is not None:
            check_candidates_folder(target)
        check_writable(target)
    seconds: dict[str, float] = {}
    if pipe is None:
        assert model is not None
        with _timed(seconds, "load"):
            pipe = registry.load(
                model, device=device, offload=offload, dtype=dtype_named(dtype), quantise=quantise, loras=loras
            )
    animation = _sample(pipe, request, plain, target, bool(offload), seconds, progress or (lambda *_: None))
    loading = {"loras": [str(lora) for lora in loras], "quantise": quantise}
    animation = dataclasses.replace(animation, settings={**animation.settings, **loading})
    return animation if target is None else animation.save(target, compare=compare, upscale=upscale, command=command)


def _sample(
    pipe: Any,
    request: AnimationRequest,
    plain: bool,
    out: Path | None,
    offload: bool,
    seconds: dict[str, float],
    progress: StageProgress,
) -> Animation:
    """The videos with their scores and settings; of files, only candidates are written."""
    size = request.size_for(pipe)
    fitted = request.fitted_picture(pipe)
    picture = None if fitted is None else fitted.picture
    methods, chosen, reward = request.methods, None, None
    if request.candidates is not None:
        with _timed(seconds, "improved"):
            method, chosen, reward = _animate_prompt(pipe, request, request.candidates, out, offload, progress)
        methods = (method,)
        if request.candidates.text_to_image is not None:  # the plain video is made of the same picture
            picture = chosen.anchor
    call = request.call(pipe, picture)
    videos: dict[str, torch.Tensor] = {}
    if plain:
        videos["plain"] = _video(pipe, call, picture, (), request.seed, "plain", seconds, progress)
    if chosen is None:
        videos["improved"] = _video(pipe, call, picture, methods, request.seed, "improved", seconds, progress)
    else:
        videos["improved"] = chosen.frames
    scores = {"plain": _scores(videos["plain"], picture, request.rate)} if plain else {}
    scores["improved"] = _scores(videos["improved"], picture if chosen is None else chosen.anchor, request.rate)
    if reward is not None:
        for name, video in videos.items():
            scores[name]["reward"] = mean_reward(video, request.prompt or "", reward)
    return Animation(
        frames=videos["improved"],
        plain=videos.get("plain"),
        picture=picture,
        picture_note=fitted.note if fitted else "",
        fps=request.rate,
        scores=scores,
        verdict=_verdict(scores, chosen),
        chosen=chosen,
        call=call,
        settings={
            "versions": versions(),
            "platform": platform.platform(),
            "image": request.source,
            "crop": fitted and {"crop": fitted.crop, "seen": fitted.box},
            "model": {
                "name": request.model,
                "pipeline": type(pipe).__name__,
                "weights": request.entry and request.entry.weights,
            },
            "methods": [describe_method(method) for method in methods],
            "scheduler": {"class": type(pipe.scheduler).__name__, **pipe.scheduler.config},
            "call": {**_defaults(pipe), **{key: value for key, value in call.items() if key not in PICTURES}},
            "size": {"height": size[0], "width": size[1]},
            "candidates": chosen and describe_candidates(chosen, out),
            "seed": request.seed,
            "device": str(pipe._execution_device),
            "dtype": str(pipe.dtype).removeprefix("torch."),
            "fps": request.rate,
            "scores": scores,
            "seconds": seconds,
        },
    )


def _animate_prompt(
    pipe: Any,
    request: AnimationRequest,
    options: CandidateOptions,
    out: Path | None,
    offload: bool,
    progress: StageProgress,
) -> tuple[NIVSDS, I4VGen, Reward]:
    """The method used, all stages of I4VGen, and what scored the candidates."""
    from unstill.text_to_video.request import stage_two

    # Pipelines that need a picture are called with the chosen one.
    stand_in = None if options.text_to_image is None else Image.new("RGB", request.size_for(pipe)[::-1])
    call = request.call(pipe, stand_in)
    method = stage_two(pipe, next((one for one in request.methods if isinstance(one, NIVSDS)), "paper"))
    with report_steps(pipe, lambda done, total: None):  # i4vgen reports its own stages
        chosen, reward = make_from_prompt(
            pipe, request.prompt or "", call, options, method, request.seed, out, offload=offload, progress=progress
        )
    return method, chosen, reward


def _video(
    pipe: Any,
    call: dict[str, Any],
    picture: Image.Image | None,
    methods: Sequence[Method],
    seed: int,
    name: str,
    seconds: dict[str, float],
    progress: StageProgress,
) -> torch.Tensor:
    """One video, uint8 (F, 3, H, W)."""
    from unstill.hooks import sampling

    # A pipeline without an image of its own lets the methods encode it.
    given = None if "image" in call else picture
    steps = functools.partial(progress, name)
    with _timed(seconds, name), report_steps(pipe, steps), sampling(pipe, *methods, image=given) as sampler:
        return generate(pipe, call, seed, sampler)


def _scores(video: torch.Tensor, picture: Image.Image | None, fps: float) -> dict[str, float]:
    pixels = None if picture is None else torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    return {key: round(value, 5) for key, value in score_video(video, pixels, fps).items()}


def _verdict(scores: dict[str, dict[str, float]], chosen: I4VGen | None) -> str:
    """One sentence that compares both videos; empty without the plain one."""
    if "plain" not in scores:
        return ""
    plain, improved = scores["plain"], scores["improved"]
    if chosen is None:
        return scores_verdict(plain, improved)
    score = (
        f"The pictures of the improved video score {improved['reward']:.3g} by {chosen.reward}, those of the plain "
        f"one {plain['reward']:.3g}"
    )
    if breaks_up(improved):
        return f"{score}; it breaks up."
    return f"{score}; it moves {improved['motion'] / max(plain['motion'], 1e-6):.0%} as much."


def _defaults(pipe: Any) -> dict[str, Any]:
    """Arguments that the call leaves to the pipeline, as far as JSON holds them."""
    values = {name: parameter.default for name, parameter in parameters(type(pipe)).items()}
    if "guidance_scale" in values and values["guidance_scale"] is None:  # it depends on the prompt
        values["guidance_scale"] = getattr(pipe, "guidance_scale", None)
    return {name: value for name, value in values.items() if isinstance(value, (str, int, float))}


@contextmanager
def _timed(seconds: dict[str, float], part: str) -> Iterator[None]:
    """Adds the duration of the block."""
    since = time.perf_counter()
    yield
    seconds[part] = round(time.perf_counter() - since, 3)
