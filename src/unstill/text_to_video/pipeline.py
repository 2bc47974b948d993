"""
`unstill.i4vgen`: candidate pictures of a prompt, the selection of one, and the video made from it.

Guo et al., "I4VGen: Image as Free Stepping Stone for Text-to-Video Generation",
https://huggingface.co/papers/2406.02230.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from unstill.data.images import resize_and_crop
from unstill.errors import UnstillError
from unstill.families.registry import family_of
from unstill.hooks import Adapter, adapter_for, apply
from unstill.methods.base import Method
from unstill.methods.ni_vsds import NIVSDS
from unstill.models.call_arguments import clamp_to_uint8, clear_refusals, parameters
from unstill.progress import StageProgress
from unstill.text_to_video.candidates import Candidate, Halving, choose
from unstill.text_to_video.partial_sampling import DistilledLatents, PartialSchedule, ReportingNIVSDS
from unstill.text_to_video.request import CandidateSettings, I4VGenRequest, check_image
from unstill.text_to_video.result import I4VGen, check_pictures, save_pictures
from unstill.text_to_video.rewards import Reward, name_of, reward_named, score
from unstill.text_to_video.stage_cache import OtherCandidates, StageRecord, check_stage_file, stage_key
from unstill.text_to_video.text_to_image import from_text_to_image


CANDIDATES, MOTION, VIDEO = "candidates", "motion", "video"  # names of the stages, the first two passed to `progress`


def i4vgen(
    pipe: Any,
    prompt: str,
    image: Image.Image | None = None,
    *,
    candidates: int = 16,
    reward: Reward | None = None,
    pick: int | None = None,
    preset: str | NIVSDS = "paper",
    early: Halving | None = None,
    text_to_image: Callable[..., Any] | None = None,
    batch: int | None = None,
    generator: torch.Generator | None = None,
    folder: str | Path | None = None,
    replace: bool = False,
    progress: StageProgress | None = None,
    **call: Any,
) -> I4VGen:
    """
    Generates a video from a prompt through a picture, without training: generates several pictures, selects the best,
    animates it with NI-VSDS and refines the result. Or animates `image`.

    Args:
        pipe: a text-to-video pipeline, or with `image` or `text_to_image` any that `NIVSDS` works on.
        prompt: describes pictures and video.
        image: used in place of candidates; resized and cropped to the size of the video.
        candidates: number of pictures.
        reward: scores the pictures, `(prompt, PIL pictures) -> numbers`. By default `world` for the embedded model and
            for others `proxy`, which needs no weights and does not read the prompt; see
            `unstill.text_to_video.rewards` for ImageReward, PickScore and CLIP.
        pick: index of the candidate to use in place of the best.
        preset: `"paper"`, `"released"` (where the code differs from it), or a `NIVSDS`.
        early: scores candidates during sampling and stops the worse ones; see `Halving`.
        text_to_image: generates the candidates in place of the video model: a diffusers text-to-image pipeline, or
            `functools.partial` of one with more arguments for its call.
        batch: pictures in one call; by default as many as the video has frames, which takes no more memory than the
            video, and 1 for `text_to_image`.
        generator: of all noise.
        folder: the result of every stage is written there as soon as it is complete, and a call with the same settings
            resumes from it. Candidates are scored again by the `reward` of that call, so the choice may differ.
        replace: replaces candidates of other settings in `folder` as soon as the new ones are complete; otherwise they
            are an error.
        progress: called with the name of a stage (`"candidates"`, `"motion"`), the steps done and in total.
        **call: further arguments of the pipeline's call, such as `num_frames` and `num_inference_steps`.

    Raises:
        UnstillError: arguments that the pipeline, the method or the reward does not support (before any sampling where
            possible), a reward that fails, or a file in `folder` that an earlier result did not write.

    Example:
        ```py
        result = unstill.i4vgen(pipe, "a boat on a lake", candidates=8, reward=reward, num_inference_steps=25)
        result.frames, result.anchor, result.candidates[result.choice].score
        ```
    """
    settings = CandidateSettings(candidates, reward, pick, early, text_to_image, batch)
    settings.check() if image is None else check_image(image, pick)
    request = I4VGenRequest.of(pipe, prompt, preset, call, generator, folder, progress)
    if request.folder is not None:
        check_pictures(request.folder, candidates if image is None else 0)
        for stage in (CANDIDATES, MOTION, VIDEO):
            check_stage_file(request.folder, stage)
    pictures: tuple[Candidate, ...] = ()
    records: tuple[StageRecord, ...] = ()
    choice = reward_name = state = None
    if image is not None:
        anchor = Candidate(resize_and_crop(image.convert("RGB"), request.size), 0.0)
        key = stage_key({"job": request.key, "image": anchor.image})
    else:
        reward = reward or default_reward(pipe)
        reward_name = name_of(reward)
        key = stage_key(
            {
                "job": request.key,
                "candidates": candidates,
                "early": early and [asdict(early), reward_name],
                "source": _source(text_to_image),
            }
        )
        first = _scored(request, _candidates(request, key, settings, reward, replace), reward)
        pictures, records, state = _from_record(first), (first,), first.tensors["state"]
        choice = choose(pictures, pick)
        anchor = pictures[choice]
        if text_to_image is None:
            anchor = request.image_mode(batch).finish(anchor)
        key = stage_key({"candidates": key, "choice": choice, "anchor": anchor.image})
    if request.folder is not None:
        save_pictures(request.folder, anchor.image, pictures, choice)
    moved, video = _video(request, key, anchor, state)
    still = torch.from_numpy(np.array(anchor.image)).permute(2, 0, 1)
    return I4VGen(
        frames=video.tensors["frames"],
        anchor=anchor.image,
        candidates=pictures,
        choice=choice,
        reward=reward_name,
        static=still[None].expand(len(video.tensors["frames"]), -1, -1, -1),
        animated=video.tensors["animated"],
        records=(*records, moved, video),
    )


def default_reward(pipe: Any) -> Reward:
    """The reward of the pipeline's family (`Family.reward`): `world` for the embedded model, else `proxy`."""
    return reward_named(family_of(type(pipe).__name__).reward)("cpu")


def _source(text_to_image: Any) -> Any:
    """Class, name and arguments of the text-to-image pipeline, for the fingerprint."""
    if text_to_image is None:
        return None
    pipe = getattr(text_to_image, "func", text_to_image)  # of functools.partial
    name = getattr(pipe, "name", None) or getattr(getattr(pipe, "config", None), "_name_or_path", None)
    return [type(pipe).__name__, name, getattr(text_to_image, "keywords", {})]


def _candidates(
    request: I4VGenRequest, key: str, settings: CandidateSettings, reward: Reward, replace: bool
) -> StageRecord:
    """The pictures, written before they are scored: generating them takes longest, and a user's reward may fail."""
    cached = request.cached(CANDIDATES, key)
    if cached is not None:
        return cached
    if not replace and request.folder is not None and StageRecord.read(request.folder, CANDIDATES) is not None:
        raise OtherCandidates(
            f"{request.folder} holds candidates of other settings; name another folder, delete it, or pass "
            "replace=True."
        )

    progress = lambda done, total: request.progress(CANDIDATES, done, total)  # noqa: E731
    generate, count = settings.text_to_image, settings.candidates
    if generate is None:
        scores_of = lambda images: score(reward, request.prompt, images)  # noqa: E731
        candidates = request.image_mode(settings.batch).make(count, scores_of, settings.early, progress)
    else:
        images = from_text_to_image(
            generate, request.prompt, count, request.size, settings.batch or 1, request.generator, progress
        )
        candidates = [Candidate(image) for image in images]
    tensors = {
        "images": torch.stack(
            [torch.from_numpy(np.array(candidate.image)) for candidate in candidates]
        ),  # (N, H, W, 3)
        "state": request.generator.get_state(),
    }
    samples = [candidate.sample for candidate in candidates if candidate.sample is not None]
    if samples:
        tensors["samples"] = torch.cat(samples)
    notes = {
        "scores": [candidate.score for candidate in candidates],
        "stopped": [candidate.stopped for candidate in candidates],
    }
    return request.store(StageRecord(CANDIDATES, key, tensors, notes))


def _scored(request: I4VGenRequest, record: StageRecord, reward: Reward) -> StageRecord:
    """Scores the finished pictures; those that were stopped keep the scores by which they were stopped."""
    finished = [i for i, stopped in enumerate(record.notes["stopped"]) if stopped is None]
    images = _from_record(record)
    try:
        values = score(reward, request.prompt, [images[i].image for i in finished])
    except UnstillError as error:
        if request.folder is None:
            raise
        raise UnstillError(f"{error} The pictures are kept in {request.folder}.") from error
    scores = list(record.notes["scores"])
    for i, value in zip(finished, values, strict=True):
        scores[i] = value
    notes = {**record.notes, "reward": name_of(reward), "scores": scores}
    return (
        record if notes == record.notes else request.store(StageRecord(CANDIDATES, record.key, record.tensors, notes))
    )


def _from_record(record: StageRecord) -> tuple[Candidate, ...]:
    samples = record.tensors.get("samples")
    rows = zip(record.tensors["images"], record.notes["scores"], record.notes["stopped"], strict=True)
    return tuple(
        Candidate(Image.fromarray(picture.numpy()), value, None if samples is None else samples[[i]], stopped)
        for i, (picture, value, stopped) in enumerate(rows)
    )


def _video(
    request: I4VGenRequest, key: str, anchor: Candidate, state: torch.Tensor | None
) -> tuple[StageRecord, StageRecord]:
    """Both loops of stage 2 in one call of the pipeline; or only the second, from the saved result of the first."""
    adapter = adapter_for(request.pipe)
    key = stage_key({"anchor": key, "method": asdict(request.method)})
    moved, video = request.cached(MOTION, key), request.cached(VIDEO, key)
    if moved is not None and video is not None:
        return moved, video
    if state is not None:
        request.generator.set_state(state)  # also where candidates were read from the folder
    motion: list[StageRecord] = [] if moved is None else [moved]

    def save_distilled(result: DistilledLatents) -> None:
        tensors = {"video": result.video, "sample": result.sample, "state": result.state}
        motion.append(request.store(StageRecord(MOTION, key, tensors, {"since": result.since})))

    if moved is None:
        method: Method = ReportingNIVSDS.of(
            request.method, progress=lambda *done: request.progress(MOTION, *done), save_distilled=save_distilled
        )
    else:
        since, steps = moved.notes["since"], request.call["num_inference_steps"]
        method = PartialSchedule(
            since=since,
            sample=moved.tensors["sample"],
            state=moved.tensors["state"],
            progress=lambda level: request.progress(MOTION, level + 1 - since, steps - since),
        )
    frames = _call(request, adapter, anchor, method)
    pixels = adapter.decode_video(request.pipe, motion[0].tensors["video"].to(request.pipe._execution_device))
    tensors = {"frames": frames, "animated": clamp_to_uint8(pixels)}
    return motion[0], request.store(StageRecord(VIDEO, key, tensors, {}))


def _call(request: I4VGenRequest, adapter: Adapter, anchor: Candidate, method: Method) -> torch.Tensor:
    """Calls the pipeline, with the anchor as its image if it takes one; returns uint8 `(F, 3, H, W)`."""
    pipe, accepted, call = request.pipe, parameters(type(request.pipe)), dict(request.call)
    if "prompt_embeds" not in call:
        call["prompt"] = request.prompt
    if "image" in accepted:
        call["image"] = anchor.image
    if "controlnet_frame_indices" in accepted:  # SparseCtrl, whose default is frame 0
        call["conditioning_frames"] = [anchor.image]
    image = None
    if adapter.image_latents_from is None:
        image = anchor.image if anchor.sample is None else anchor.sample.to(pipe._execution_device)
    with apply(pipe, method, image=image), clear_refusals(pipe):
        return clamp_to_uint8(pipe(**call, generator=request.generator, output_type="pt").frames[0])
