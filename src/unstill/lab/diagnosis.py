"""`unstill.diagnose`: does a model copy its image instead of moving it, and where should sampling start?"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from unstill.data.clips import video_files
from unstill.data.ownership import check_free, together
from unstill.errors import UnstillError
from unstill.lab.diagnosis_report import command as suggested_command
from unstill.lab.diagnosis_report import diagnosis_page, diagnosis_verdict
from unstill.lab.diagnosis_run import DiagnosisRun, Findings
from unstill.lab.fingerprint import model_fingerprint
from unstill.lab.image_gap import ImageGap, VideoPairs, check_image_gap
from unstill.lab.leakage import SHARE, Diagnosis
from unstill.lab.motion_response import ResponseCurve, takes_motion
from unstill.lab.one_step import usual_levels
from unstill.lab.probe_clips import Folder, ProbeClip, ProbeClips, World, motion_argument, picture_of
from unstill.lab.provenance import versions
from unstill.lab.reference_attention import AttentionByLevel
from unstill.methods.base import Method
from unstill.methods.parsing import parse_method
from unstill.methods.registry import describe_method
from unstill.models import registry
from unstill.models.call_arguments import arguments, native_frames, native_size, parameters
from unstill.progress import StepProgress


CANDIDATES = 128
"""Alternative continuations of each rendered clip, for the best possible prediction."""
CANDIDATES_UP_TO = 96
"""Largest side, pixels, at which they are encoded: a large autoencoder would take hours for them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DiagnosisResult:
    """
    What `diagnose` found.

    Attributes:
        diagnosis: figures at every noise level.
        response: motion measured against motion asked for; `None` if it was left out or cannot be asked for.
        attention: how much of it the first latent frame gets, by noise level and block; `None` where it cannot be
            measured.
        gap: motion with and without an image; `None` if it was left out.
        verdict: what was found, and what to set.
        use: the command that animates a picture with the recommended start; `None` if there is none.
        limits: what makes the result less certain.
        report: the web page; a JSON file of the same name is beside it.
        settings: of the diagnosis: methods, source, frames, size, seed.
        versions: of the packages that decide the numbers.
    """

    diagnosis: Diagnosis
    response: ResponseCurve | None
    attention: AttentionByLevel | None
    gap: ImageGap | None
    verdict: tuple[str, str]
    use: str | None
    limits: tuple[str, ...]
    report: Path
    settings: dict[str, Any]
    versions: dict[str, str]

    def as_dict(self) -> dict[str, Any]:
        """The content of the JSON file."""
        return {
            "versions": self.versions,
            **self.diagnosis.as_dict(),
            "verdict": self.verdict[0],
            "advice": self.verdict[1],
            "use": self.use,
            "response": self.response and self.response.as_dict(),
            "attention": self.attention and self.attention.as_dict(),
            "image_gap": self.gap and self.gap.as_dict(),
            "limits": list(self.limits),
            **self.settings,
        }


def diagnose(
    model: str = "pico",
    *,
    clips: Path | str | None = None,
    count: int = 8,
    levels: Sequence[float] | None = None,
    methods: Sequence[Method | str] = (),
    share: float = SHARE,
    prompt: str | None = None,
    response: int = 4,
    gap: int = 0,
    text_model: str | None = None,
    frames: int | None = None,
    fps: float | None = None,
    size: tuple[int, int] | None = None,
    seed: int = 0,
    out: Path | str = "diagnosis.html",
    device: str | None = None,
    offload: bool = False,
    command: str = "",
    rank: int = 0,
    processes: int = 1,
    progress: StepProgress | None = None,
) -> DiagnosisResult | None:
    """
    Adds noise to clips, lets the model predict them in one step, compares the motion, and writes a report.

    The model predicts with its image, with a weakened one, and without any; on rendered clips the best possible
    prediction is known as well (leakage paper, Fig. 2 and Eq. 4; `unstill.lab.leakage`). Results are stored beside
    `out`: after an interruption the same call resumes; several processes share the clips.

    Args:
        model: name, local folder or hub id.
        clips: a folder of real videos; by default clips of the synthetic world.
        count: number of clips, at least 2 for intervals.
        levels: noise levels, falling, as `sigma` or `start` of the model's methods; by default about ten.
        methods: act in the predictions, and in the videos with an image of the gap, as objects or as text
            (`"noise-rectification"`).
        share: share of the motion that a recommended start has to keep.
        prompt: for models that read text.
        response: number of clips for which a video is sampled at each of several motion levels; 0: none.
        gap: pairs of videos, one of a text alone, the other of the same text and the former's first frame: how much
            motion the image takes away (ALG, https://huggingface.co/papers/2506.08456, Section 3). The texts are the
            prompt, or the captions of rendered clips. 0: none.
        text_model: makes the videos of a text alone: name, local folder or hub id of the text-to-video model that
            belongs to the model. By default the model itself, if it makes videos of a text alone, as pico does.
        frames, fps, size: of the clips, size as (height, width) in pixels; by default the model's.
        seed: of clips and noise.
        out: the web page to write.
        device, offload: as of `unstill.load`.
        command: command line to name in the report.
        rank, processes: index of this process and number of processes. Rank 0 waits for the others and writes the
            report.
        progress: called with (finished clips and videos, all of them).

    Returns:
        The result; `None` if `rank` is not 0.

    Raises:
        UnstillError: an unknown method or model, clips that cannot be read, levels or sizes that the model does not
            have, or predictions that are not finite.
    """
    out = Path(out)
    clips = None if clips is None else Path(clips)
    if out.suffix.lower() not in (".html", ".htm"):
        raise UnstillError(f"The report is a web page, so its name has to end in .html, unlike {out}.")
    check_free(out.with_suffix(".json"), [out])
    entry, defaults = registry.find(model), registry.defaults_of(model)
    videos = None if clips is None else len(video_files(clips))
    acting = tuple(parse_method(method, defaults) if isinstance(method, str) else method for method in methods)
    cls = registry.pipeline_class(model)
    if cls is not None:
        _check_prompt(cls, prompt)
    if gap or text_model is not None:
        check_image_gap(model, text_model, gap, has_text=prompt is not None or clips is None)

    pipe = _load(model, device, offload)
    shape = size or (entry.size if entry else native_size(pipe))
    length = frames or (entry.frames if entry else native_frames(pipe))
    rate = fps or (entry.fps if entry else None)
    candidates = CANDIDATES if clips is None and max(shape) <= CANDIDATES_UP_TO else 0
    takes_image = "image" in parameters(type(pipe))

    def call(picture: Image.Image, motion: float | None, steps: int | None = None) -> dict[str, Any]:
        image = picture if takes_image else None
        return arguments(type(pipe), image=image, prompt=prompt, motion=motion, frames=length, steps=steps, size=shape)

    def probe_call(subject: ProbeClip, picture: Image.Image) -> dict[str, Any]:
        # The embedded model's best prediction is known: the mean of the clean clip (Eq. 4), which guidance is not.
        accepted = parameters(type(pipe))
        unguided = {"motion_guidance_scale": 1.0, "guidance_scale": 1.0} if "motion_guidance_scale" in accepted else {}
        return call(picture, motion_argument(pipe, subject)) | unguided

    def probe_clips(n: int, others: int = 0) -> ProbeClips:
        if clips is None:
            return World(count=n, frames=length, size=shape, seed=seed, others=others)
        return Folder(folder=clips, count=n, frames=length, fps=rate, size=shape, seed=seed)

    def text_of(index: int) -> str:
        return prompt or str(probe_clips(gap)[index].caption)

    def text_pipe() -> Any:
        return pipe if text_model is None else _load(text_model, device, offload)

    pairs = VideoPairs(
        pipe=pipe,
        text_pipe=functools.cache(text_pipe),
        text_of=text_of,
        methods=acting,
        frames=length,
        size=shape,
        seed=seed,
    )
    answers = response if takes_motion(pipe) and takes_image else 0
    described = [describe_method(method) for method in acting]
    used = versions()
    run = DiagnosisRun(
        work=out.with_suffix(".cells"),
        decides={
            **{"weights": model_fingerprint(model), "methods": described, "prompt": prompt, "versions": used},
            "text_model": text_model and model_fingerprint(text_model),
        },
        pipe=pipe,
        subjects=probe_clips(count, candidates),
        call=probe_call,
        levels=tuple(levels) if levels is not None else usual_levels(pipe),
        name=model,
        methods=acting,
        share=share,
        seed=seed,
        fps=rate or 8,
        answers=probe_clips(answers) if answers else None,
        ask=lambda subject, level: call(picture_of(subject), level, entry.steps if entry else None),
        pairs=gap,
        pair=pairs.make,
    )
    findings = run.run(rank, processes, progress=progress)
    if findings is None:
        return None
    diagnosis = findings.diagnosis
    result = DiagnosisResult(
        diagnosis=diagnosis,
        response=findings.response,
        attention=findings.attention,
        gap=findings.gap,
        verdict=diagnosis_verdict(diagnosis),
        use=suggested_command(diagnosis, "statistics" in defaults),
        limits=tuple(_limits(diagnosis.clips, count, videos)),
        report=out,
        settings={
            "methods": described,
            "source": "the synthetic world" if clips is None else str(clips),
            "frames": length,
            "size": {"height": shape[0], "width": shape[1]},
            "text_model": text_model,
            "seed": seed,
        },
        versions=used,
    )
    _write(result, findings, command)
    return result


def _load(model: str, device: str | None, offload: bool) -> Any:
    pipe: Any = registry.load(model, device=device, offload=offload)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _write(result: DiagnosisResult, findings: Findings, command: str) -> None:
    settings = result.settings
    size = settings["size"]
    clips = f"{result.diagnosis.clips} of {settings['source']}"
    origin = {"command": command} if command else {}
    facts = {
        **origin,
        "clips": f"{clips}, {settings['frames']} frames of {size['width']}x{size['height']}",
        **({"limits": " ".join(result.limits)} if result.limits else {}),
        "methods": ", ".join(f"{method['name']} {method['parameters']}" for method in settings["methods"]) or "none",
        "versions": ", ".join(f"{name} {number}" for name, number in result.versions.items()),
    }
    record = result.report.with_suffix(".json")
    with together(record, [result.report.name]) as results:
        diagnosis_page(findings, result.use, facts).save(results.folder / result.report.name)
        results.record.update({**origin, **result.as_dict()})


def _limits(used: int, requested: int, videos: int | None) -> list[str]:
    """Sentences on what limits the certainty: missing clips, a single clip, several clips of one video."""
    limits = []
    if used < requested:
        missing = f"{requested - used} of {requested} clips"
        limits.append(f"{missing} are left out: their videos are too short or cannot be read.")
    if used == 1:
        limits.append("A single clip gives no intervals; use more.")
    elif videos is not None and videos < used:
        limits.append(
            f"{used} clips come from {videos} video{'' if videos == 1 else 's'}; clips of one video are alike, so the "
            "intervals are too narrow for other videos."
        )
    return limits


def _check_prompt(cls: type, prompt: str | None) -> None:
    """Raises `UnstillError` before the model is loaded where it needs a prompt, or reads none."""
    image = Image.new("RGB", (8, 8)) if "image" in parameters(cls) else None
    arguments(cls, image=image, prompt=prompt)
