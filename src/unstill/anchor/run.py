"""
`unstill.i4vgen`: candidate pictures, the choice among them, and the video made from it.

Guo et al., "I4VGen: Image as Free Stepping Stone for Text-to-Video Generation",
https://huggingface.co/papers/2406.02230.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from unstill.anchor.candidates import Candidate, Halving, ImageMode, choose, from_text_to_image
from unstill.anchor.pieces import Distilled, Piece, Watched
from unstill.anchor.records import OtherCandidates, Record, fingerprint
from unstill.anchor.result import I4VGen, save_pictures
from unstill.anchor.rewards import Reward, name_of, proxy, score
from unstill.attach import Adapter, adapter_for, apply
from unstill.data.images import resize_and_crop
from unstill.errors import UnstillError
from unstill.methods.base import Method
from unstill.methods.ni_vsds import NIVSDS
from unstill.models.calling import as_uint8, clear_refusals, native_frames, native_size, parameters


Progress = Callable[[str, int, int], None]
CANDIDATES, MOTION = "candidates", "motion"  # the names of the two parts that `progress` hears


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
    progress: Progress | None = None,
    **call: Any,
) -> I4VGen:
    """
    Makes a video of a prompt by way of a picture: several are made, the best is chosen, set in motion and refined. Or
    the picture is given. Nothing is trained.

    Args:
        pipe: a text-to-video pipeline, or with `image` or `text_to_image` any that `NIVSDS` works on.
        prompt: what happens.
        image: in place of candidates; resized and cropped to the size of the video.
        candidates: how many pictures.
        reward: what scores them, `(prompt, PIL pictures) -> numbers`. By default, for the embedded model what the
            pictures show of the prompt (`unstill.anchor.world_reward`), for others `proxy`, which needs no weights and
            does not read the prompt; see `unstill.anchor.rewards` for ImageReward, PickScore and CLIP.
        pick: the number of the candidate to use in place of the best.
        preset: `"paper"`, `"released"` (where the code differs from it), or a `NIVSDS`.
        early: scores candidates on the way and stops the worse ones; see `Halving`.
        text_to_image: makes the candidates in place of the video model: a diffusers text-to-image pipeline, or
            `functools.partial` of one with more arguments for its call.
        batch: pictures at a time; by default as many as the video has frames, which takes no more memory than the
            video does, and 1 for `text_to_image`.
        generator: all noise comes from it.
        folder: keeps the result of every stage there as soon as it is made, and goes on from what is there. The same
            candidates may be scored by another `reward`, or another one picked.
        progress: called with the name of a part (`"candidates"`, `"motion"`), what is done of it, and all of it.
        **call: further arguments of the pipeline's call, such as `num_frames` and `num_inference_steps`.

    Raises:
        UnstillError: for anything that a pipeline, method or reward cannot do, before the long work where it can be
            known.

    Example:
        ```py
        made = unstill.i4vgen(pipe, "a boat on a lake", candidates=8, reward=reward, num_inference_steps=25)
        made.frames, made.anchor, made.candidates[made.choice].score
        ```
    """
    job = _Job.of(pipe, prompt, image, preset, candidates, pick, call, generator, folder, progress)
    made: tuple[Candidate, ...] = ()
    records: tuple[Record, ...] = ()
    choice = reward_name = state = None
    if image is not None:
        anchor = Candidate(resize_and_crop(image.convert("RGB"), job.size), 0.0)
        key = fingerprint({"job": job.key, "image": anchor.image})
    else:
        reward = reward or default_reward(pipe)
        reward_name = name_of(reward)
        key = fingerprint(
            {
                "job": job.key,
                "candidates": candidates,
                "early": early and [asdict(early), reward_name],
                "source": text_to_image and type(getattr(text_to_image, "func", text_to_image)).__name__,
            }
        )
        first = _candidates(job, key, candidates, reward, early, text_to_image, batch)
        made, records, state = _from_record(first), (first,), first.tensors["state"]
        choice = choose(made, pick)
        anchor = made[choice] if text_to_image is not None else job.image_mode(batch).finish(made[choice])
        key = fingerprint({"candidates": key, "choice": choice, "anchor": anchor.image})
    if job.folder is not None:
        save_pictures(job.folder, anchor.image, made, choice)
    moved, video = _video(job, key, anchor, state)
    still = torch.from_numpy(np.array(anchor.image)).permute(2, 0, 1)
    return I4VGen(
        frames=video.tensors["frames"],
        anchor=anchor.image,
        candidates=made,
        choice=choice,
        reward=reward_name,
        static=still[None].expand(len(video.tensors["frames"]), -1, -1, -1),
        animated=video.tensors["animated"],
        records=(*records, moved, video),
    )


def default_reward(pipe: Any) -> Reward:
    """For the embedded model what its pictures show, for others `proxy`."""
    if type(pipe).__name__ == "PicoPipeline":
        from unstill.anchor.world_reward import world

        return world
    return proxy


@dataclass(frozen=True, slots=True)
class _Job:
    """What both stages need to know, checked at the door."""

    pipe: Any
    prompt: str
    method: NIVSDS
    call: dict[str, Any]
    size: tuple[int, int]  # (height, width), pixels
    frames: int
    generator: torch.Generator
    folder: Path | None
    tell: Progress
    key: str

    @classmethod
    def of(
        cls,
        pipe: Any,
        prompt: str,
        image: Image.Image | None,
        preset: str | NIVSDS,
        candidates: int,
        pick: int | None,
        call: dict[str, Any],
        generator: torch.Generator | None,
        folder: str | Path | None,
        progress: Progress | None,
    ) -> _Job:
        if not isinstance(prompt, str) or not prompt.strip():
            raise UnstillError(
                "i4vgen takes one prompt that says what happens, for example 'a boat sails to the left'."
            )
        if image is not None and not isinstance(image, Image.Image):
            raise UnstillError(f"The image of i4vgen is a PIL picture, not {type(image).__name__}; open it with PIL.")
        if candidates < 1:
            raise UnstillError(f"{candidates} candidates cannot be chosen from; make at least 1.")
        if pick is not None and image is not None:
            raise UnstillError("pick chooses among candidates, and a given image has none; leave one of them out.")
        if pick is not None and not 0 <= pick < candidates:
            raise UnstillError(f"There is no candidate {pick}; they are numbered 0 to {candidates - 1}.")
        known = parameters(type(pipe))
        if taken := {"image", "prompt", "generator", "latents", "output_type", "conditioning_frames"} & set(call):
            raise UnstillError(f"i4vgen itself gives the pipeline its {', '.join(sorted(taken))}; leave that out.")
        if "prompt" not in known:
            raise UnstillError(f"{type(pipe).__name__} reads no prompt; use apply(pipe, NIVSDS()) with an image.")
        method = preset if isinstance(preset, NIVSDS) else NIVSDS.preset(_preset_of(pipe, preset))
        given = torch.zeros(()) if adapter_for(pipe).captures is None else None
        apply(pipe, method, image=given).remove()  # raises what would be raised after the candidates
        height, width = native_size(pipe)
        size = call.get("height") or height, call.get("width") or width
        frames = call.get("num_frames") or native_frames(pipe)
        steps = call.get("num_inference_steps") or known["num_inference_steps"].default
        call = {**call, "num_frames": frames, "num_inference_steps": steps}
        call |= {side: value for side, value in zip(("height", "width"), size, strict=True) if side in known}
        generator = generator or torch.Generator().manual_seed(int(torch.randint(2**62, ()).item()))
        parts = {
            "prompt": prompt,
            "pipeline": [type(pipe).__name__, getattr(pipe.config, "_name_or_path", None), str(pipe.dtype)],
            "scheduler": [type(pipe.scheduler).__name__, dict(pipe.scheduler.config)],
            "call": call,
            "generator": generator.get_state(),
        }
        place, silent = None if folder is None else Path(folder), lambda part, done, total: None
        return cls(pipe, prompt, method, call, size, frames, generator, place, progress or silent, fingerprint(parts))

    def image_mode(self, batch: int | None) -> ImageMode:
        return ImageMode(self.pipe, self.prompt, self.call, self.size, batch or self.frames, self.generator)

    def kept(self, name: str, key: str) -> Record | None:
        """What an earlier run has kept of a stage, if it was made from the same."""
        record = None if self.folder is None else Record.read(self.folder, name)
        return record if record is not None and record.key == key else None

    def keep(self, record: Record) -> Record:
        if self.folder is not None:
            record.write(self.folder)
        return record


def _preset_of(pipe: Any, name: str) -> str:
    """LaVie has settings of its own in paper and code."""
    own = f"{name}-lavie"
    return own if type(pipe).__name__ == "LaViePipeline" and own in NIVSDS.presets else name


def _candidates(
    job: _Job,
    key: str,
    count: int,
    reward: Reward,
    early: Halving | None,
    text_to_image: Callable[..., Any] | None,
    batch: int | None,
) -> Record:
    def scores_of(images: Any) -> list[float]:
        return score(reward, job.prompt, images)

    kept = job.kept(CANDIDATES, key)
    if kept is None and job.folder is not None and Record.read(job.folder, CANDIDATES) is not None:
        raise OtherCandidates(f"{job.folder} holds candidates of other settings; name another folder, or delete it.")
    if kept is not None:
        if kept.notes["reward"] != name_of(reward):  # never with `early`, where it is part of the key
            images = [one.image for one in _from_record(kept)]
            notes = {**kept.notes, "reward": name_of(reward), "scores": scores_of(images)}
            kept = job.keep(Record(CANDIDATES, key, kept.tensors, notes))
        return kept

    tell = lambda done, total: job.tell(CANDIDATES, done, total)  # noqa: E731
    if text_to_image is None:
        made = job.image_mode(batch).make(count, scores_of, early, tell)
    elif early is not None:
        raise UnstillError("Only pictures of the video model itself can be stopped early; leave out text_to_image.")
    else:
        images = from_text_to_image(text_to_image, job.prompt, count, job.size, batch or 1, job.generator, tell)
        made = [Candidate(*pair) for pair in zip(images, scores_of(images), strict=True)]
    tensors = {
        "images": torch.stack([torch.from_numpy(np.array(one.image)) for one in made]),  # (N, H, W, 3)
        "state": job.generator.get_state(),
    }
    if made[0].sample is not None:
        tensors["samples"] = torch.cat([one.sample for one in made if one.sample is not None])
    notes = {
        "reward": name_of(reward),
        "scores": [one.score for one in made],
        "stopped": [one.stopped for one in made],
    }
    return job.keep(Record(CANDIDATES, key, tensors, notes))


def _from_record(record: Record) -> tuple[Candidate, ...]:
    samples = record.tensors.get("samples")
    rows = zip(record.tensors["images"], record.notes["scores"], record.notes["stopped"], strict=True)
    return tuple(
        Candidate(Image.fromarray(picture.numpy()), value, None if samples is None else samples[[i]], stopped)
        for i, (picture, value, stopped) in enumerate(rows)
    )


def _video(job: _Job, key: str, anchor: Candidate, state: torch.Tensor | None) -> tuple[Record, Record]:
    """Both loops of stage 2 in one call of the pipeline; or only the second, from what the first has left."""
    adapter = adapter_for(job.pipe)
    key = fingerprint({"anchor": key, "method": asdict(job.method)})
    moved, video = job.kept(MOTION, key), job.kept("video", key)
    if moved is not None and video is not None:
        return moved, video
    if state is not None:
        job.generator.set_state(state)  # also where candidates were read, scored again or finished
    found: list[Record] = [] if moved is None else [moved]

    def distilled(it: Distilled) -> None:
        tensors = {"video": it.video, "sample": it.sample, "state": it.state}
        found.append(job.keep(Record(MOTION, key, tensors, {"since": it.since})))

    if moved is None:
        method: Method = Watched.of(job.method, watch=lambda *done: job.tell(MOTION, *done), distilled=distilled)
    else:
        since, steps = moved.notes["since"], job.call["num_inference_steps"]
        method = Piece(
            since=since,
            sample=moved.tensors["sample"],
            state=moved.tensors["state"],
            watch=lambda level: job.tell(MOTION, level + 1 - since, steps - since),
        )
    frames = _call(job, adapter, anchor, method)
    pixels = adapter.decode_video(job.pipe, found[0].tensors["video"].to(job.pipe._execution_device))
    tensors = {"frames": frames, "animated": as_uint8(pixels)}
    return found[0], job.keep(Record("video", key, tensors, {}))


def _call(job: _Job, adapter: Adapter, anchor: Candidate, method: Method) -> torch.Tensor:
    """The pipeline with the anchor, wherever it takes it: uint8 `(F, 3, H, W)`."""
    pipe, known, call = job.pipe, parameters(type(job.pipe)), dict(job.call)
    if "prompt_embeds" not in call:
        call["prompt"] = job.prompt
    if "image" in known:
        call["image"] = anchor.image
    if "controlnet_frame_indices" in known:  # SparseCtrl, of which frame 0 is the default
        call["conditioning_frames"] = [anchor.image]
    given = None
    if adapter.captures is None:
        given = anchor.image if anchor.sample is None else anchor.sample.to(pipe._execution_device)
    with apply(pipe, method, image=given), clear_refusals(pipe):
        return as_uint8(pipe(**call, generator=job.generator, output_type="pt").frames[0])
