"""`unstill.animate` from a prompt alone: pictures are generated from it, and the best one is animated."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

from unstill.data.files import sweep
from unstill.data.ownership import check_folder, read_record, together
from unstill.errors import UnstillError
from unstill.text_to_video.rewards import Reward, reward_named, score


if TYPE_CHECKING:
    from unstill.methods.ni_vsds import NIVSDS
    from unstill.progress import StageProgress
    from unstill.text_to_video.result import I4VGen


COUNT = 16  # candidates, as in the paper
NOT_FOR_I4VGEN = ("prompt", "image", "conditioning_frames", "output_type", "decode_chunk_size")


@dataclass(frozen=True, kw_only=True, slots=True)
class CandidateOptions:
    """
    How pictures are generated from a prompt, and which one is animated.

    Args:
        count: number of pictures.
        reward: scores the pictures: a name (`proxy`, `world`, `pickscore`, `clip:FOLDER_OR_ID`,
            `image-reward:CHECKPOINT`) or a function `(prompt, pictures) -> scores`; by default that of the family.
        pick: number of the picture to take in place of the best one.
        early: stop the pictures with lower scores before they are finished.
        text_to_image: folder or hub id of the text-to-image model that makes the pictures in place of the video model.

    Raises:
        UnstillError: an unknown reward, a `pick` that is not below `count`, or `early` with `text_to_image`.
    """

    count: int = COUNT
    reward: str | Reward | None = None
    pick: int | None = None
    early: bool = False
    text_to_image: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.reward, str):
            reward_named(self.reward)
        if self.count < 1:
            raise UnstillError(f"{self.count} candidates cannot be chosen from; give a number of at least 1.")
        if self.pick is not None and not 0 <= self.pick < self.count:
            raise UnstillError(f"There is no candidate {self.pick}; they are numbered 0 to {self.count - 1}.")
        if self.early and self.text_to_image is not None:
            raise UnstillError(
                "--early stops pictures of the video model itself; leave it out, or leave out --text-to-image."
            )


def starts_from_prompt(
    cls: type | None, has_image: bool, prompt: str | None, methods: Collection[str] | None, text_to_image: str | None
) -> bool:
    """
    Whether pictures are generated from the prompt: no picture is given, this or another model can generate them, and
    no method other than NI-VSDS is requested.

    Args:
        cls: class of the pipeline; `None` if it is known only when it is loaded.
        methods: names of the requested methods; `None`: the default ones.
    """
    from unstill.text_to_video.candidates import has_image_mode

    possible = cls is None or has_image_mode(cls) or text_to_image is not None
    return not has_image and prompt is not None and (methods is None or set(methods) == {"ni_vsds"}) and possible


def candidates_folder(out: Path) -> Path:
    """The folder beside the video `out` that keeps the candidates and the results of the stages."""
    return out.with_name(f"{out.stem}_candidates")


def check_candidates_folder(out: Path) -> None:
    """Raises `UnstillError` if the folder of candidates exists and was not written by this program."""
    from unstill.text_to_video.result import RECORD

    check_folder(candidates_folder(out), RECORD)


def make_from_prompt(
    pipe: Any,
    prompt: str,
    call: dict[str, Any],
    options: CandidateOptions,
    method: NIVSDS,
    seed: int,
    out: Path | None = None,
    *,
    offload: bool = False,
    progress: StageProgress | None = None,
) -> tuple[I4VGen, Reward]:
    """
    All stages of I4VGen.

    Args:
        call: arguments of the pipeline's call, see `unstill.models.call_arguments.arguments`.
        out: the video that will be written. The folder of candidates beside it keeps the results of the stages: a run
            with the same settings continues from them, and candidates of other settings are replaced.
        offload: of the text-to-image model.
        progress: called with the stage, the steps done and all steps.

    Returns:
        The result, and the reward that scored the candidates.

    Raises:
        UnstillError: as `unstill.i4vgen`.
    """
    from unstill.text_to_video.candidates import Halving
    from unstill.text_to_video.pipeline import default_reward, i4vgen
    from unstill.text_to_video.result import RECORD
    from unstill.text_to_video.text_to_image import TextToImage

    device = pipe._execution_device
    if options.reward is None:
        reward = default_reward(pipe)
    else:
        reward = reward_named(options.reward)(str(device)) if isinstance(options.reward, str) else options.reward
    source = options.text_to_image and TextToImage(options.text_to_image, device, pipe.dtype, offload)
    folder = None
    if out is not None:
        folder = candidates_folder(out)
        check_candidates_folder(out)
        sweep(folder)
        record = folder / RECORD
        with together(record) as results:  # marks the folder as this program's; the pictures are added to the record
            results.record |= {**(read_record(record) or {}), "prompt": prompt}
    result = i4vgen(
        pipe,
        prompt,
        candidates=options.count,
        reward=reward,
        pick=options.pick,
        preset=method,
        early=Halving() if options.early else None,
        text_to_image=source or None,
        generator=torch.Generator().manual_seed(seed),
        folder=folder,
        replace=True,
        progress=progress,
        **{name: value for name, value in call.items() if name not in NOT_FOR_I4VGEN},
    )
    return result, reward


def mean_reward(video: torch.Tensor, prompt: str, reward: Callable[..., Any]) -> float:
    """The mean reward of the frames of a video, uint8 (F, 3, H, W)."""
    frames = [Image.fromarray(frame.permute(1, 2, 0).contiguous().numpy()) for frame in video]
    return round(sum(score(reward, prompt, frames)) / len(frames), 5)


def comparison_panels(plain: torch.Tensor, result: I4VGen) -> dict[str, torch.Tensor]:
    """The panels of a comparison: the plain video, the picture, the output of NI-VSDS, and the refined video."""
    return {
        "plain": plain,
        "chosen picture": result.static,
        "set in motion": result.animated,
        "refined": result.frames,
    }


def describe_candidates(result: I4VGen, out: os.PathLike[str] | None) -> dict[str, Any]:
    """The entry about the candidates in the JSON record of a video."""
    return {
        "reward": result.reward,
        "scores": [round(candidate.score, 5) for candidate in result.candidates],
        "stopped": [candidate.stopped for candidate in result.candidates],
        "choice": result.choice,
        "folder": None if out is None else str(candidates_folder(Path(out))),
    }
