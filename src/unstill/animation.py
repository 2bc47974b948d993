"""`unstill.animate`: a picture, or a prompt, becomes a video with methods, and the plain video beside it."""

from __future__ import annotations

import functools
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
from unstill.animation_settings import AnimationSettings, OneImage, takes
from unstill.data.output_paths import check_writable
from unstill.lab.provenance import versions
from unstill.methods.base import Method
from unstill.methods.ni_vsds import NIVSDS
from unstill.methods.registry import describe_method
from unstill.metrics.quick_scores import breaks_up, score_video, scores_verdict
from unstill.models import registry
from unstill.models.call_arguments import generate, parameters
from unstill.models.loading_options import dtype_named
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


@takes(OneImage)
def animate(settings: OneImage) -> Animation:
    """
    Makes a video of a picture with methods, and from the same seed the plain video without them; scores both.

    With a prompt and no picture, and a model that makes videos of text, I4VGen makes several pictures of the prompt
    and animates the best one (`unstill.i4vgen`). All that can be wrong is found before a model is loaded. Without
    `out` nothing is written. The keyword arguments are the fields of `AnimationSettings`.

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
    request = AnimationRequest.of(settings, settings.image)
    if settings.out is not None:
        check_place(Path(settings.out), request)
    seconds: dict[str, float] = {}
    pipe = settings.pipe
    if pipe is None:
        with timed(seconds, "load"):
            pipe = load_asked(settings)
    return sample(pipe, request, seconds)


def load_asked(settings: AnimationSettings) -> DiffusionPipeline:
    """The pipeline that is asked for by name."""
    assert settings.model_name is not None
    return registry.load(
        settings.model_name,
        device=settings.device,
        offload=settings.offload,
        dtype=dtype_named(settings.dtype),
        quantise=settings.quantise,
        loras=settings.loras,
    )


def check_place(out: Path, request: AnimationRequest) -> None:
    """Raises `UnstillError` if the results cannot be written to `out`, or replace what unstill did not write."""
    settings = request.settings
    check_output(out, settings.plain, settings.compare)
    if request.candidates is not None:
        check_candidates_folder(out)
    check_writable(out)


def sample(pipe: Any, request: AnimationRequest, seconds: dict[str, float]) -> Animation:
    """The videos of a checked request with their scores, written if the settings say where."""
    settings = request.settings
    progress: StageProgress = settings.progress or (lambda *_: None)
    out = None if settings.out is None else Path(settings.out)
    size = request.size_for(pipe)
    fitted = request.fitted_picture(pipe)
    picture = None if fitted is None else fitted.picture
    methods, chosen, reward = request.methods, None, None
    if request.candidates is not None:
        with timed(seconds, "improved"):
            method, chosen, reward = _animate_prompt(pipe, request, request.candidates, progress)
        methods = (method,)
        if request.candidates.text_to_image is not None:  # the plain video is made of the same picture
            picture = chosen.anchor
    call = request.call(pipe, picture)
    videos: dict[str, torch.Tensor] = {}
    if settings.plain:
        videos["plain"] = _video(pipe, call, picture, (), settings.seed, "plain", seconds, progress)
    if chosen is None:
        videos["improved"] = _video(pipe, call, picture, methods, settings.seed, "improved", seconds, progress)
    else:
        videos["improved"] = chosen.frames
    scores = {"plain": _scores(videos["plain"], picture, request.rate)} if settings.plain else {}
    scores["improved"] = _scores(videos["improved"], picture if chosen is None else chosen.anchor, request.rate)
    if reward is not None:
        for name, video in videos.items():
            scores[name]["reward"] = mean_reward(video, settings.prompt or "", reward)
    verdict, note = _verdict(scores, chosen), fitted.note if fitted else ""
    animation = Animation(
        frames=videos["improved"],
        plain=videos.get("plain"),
        picture=picture,
        picture_note=note,
        fps=request.rate,
        scores=scores,
        verdict=verdict,
        chosen=chosen,
        call=call,
        settings={
            "versions": versions(),
            "platform": platform.platform(),
            "image": request.source,
            "crop": fitted and {"crop": fitted.crop, "seen": fitted.box},
            "picture_note": note,
            "model": {
                "name": settings.model_name,
                "pipeline": type(pipe).__name__,
                "weights": request.entry and request.entry.weights,
            },
            "methods": [describe_method(method) for method in methods],
            "scheduler": {"class": type(pipe.scheduler).__name__, **pipe.scheduler.config},
            "call": {**_defaults(pipe), **{key: value for key, value in call.items() if key not in PICTURES}},
            "size": {"height": size[0], "width": size[1]},
            "candidates": chosen and describe_candidates(chosen, out),
            "seed": settings.seed,
            "device": str(pipe._execution_device),
            "dtype": str(pipe.dtype).removeprefix("torch."),
            "fps": request.rate,
            "scores": scores,
            "verdict": verdict,
            "seconds": seconds,
            "loras": [str(lora) for lora in settings.loras],
            "quantise": settings.quantise,
            "request": request.key(),
        },
    )
    if out is None:
        return animation
    return animation.save(out, compare=settings.compare, upscale=settings.upscale, command=settings.command)


def _animate_prompt(
    pipe: Any,
    request: AnimationRequest,
    options: CandidateOptions,
    progress: StageProgress,
) -> tuple[NIVSDS, I4VGen, Reward]:
    """The method used, all stages of I4VGen, and what scored the candidates."""
    from unstill.text_to_video.request import stage_two

    # Pipelines that need a picture are called with the chosen one.
    stand_in = None if options.text_to_image is None else Image.new("RGB", request.size_for(pipe)[::-1])
    call = request.call(pipe, stand_in)
    settings = request.settings
    method = stage_two(pipe, next((one for one in request.methods if isinstance(one, NIVSDS)), "paper"))
    with report_steps(pipe, lambda done, total: None):  # i4vgen reports its own stages
        chosen, reward = make_from_prompt(
            pipe,
            settings.prompt or "",
            call,
            options,
            method,
            settings.seed,
            None if settings.out is None else Path(settings.out),
            offload=settings.offload not in (False, "none"),
            progress=progress,
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
    with timed(seconds, name), report_steps(pipe, steps), sampling(pipe, *methods, image=given) as sampler:
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
    return {name: value for name, value in values.items() if isinstance(value, (str, int, float))}


@contextmanager
def timed(seconds: dict[str, float], part: str) -> Iterator[None]:
    """Adds the duration of the block."""
    since = time.perf_counter()
    yield
    seconds[part] = round(time.perf_counter() - since, 3)
