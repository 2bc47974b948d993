"""The part of `unstill animate` that begins with words alone: pictures are made of them, the best is set in motion."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unstill.errors import UnstillError


MARK = "candidates.json"  # says that the folder of candidates is this program's
CANDIDATES = 16  # unless another number is asked for; the paper's

if TYPE_CHECKING:
    import torch

    from unstill.cli.progress import Report
    from unstill.methods.ni_vsds import NIVSDS
    from unstill.text_to_video import I4VGen, Reward


@dataclass(frozen=True, slots=True)
class Choice:
    """
    How candidates are made and chosen, as a person asked for it.

    Attributes:
        candidates: how many pictures.
        reward: loads what scores them on a device; `None` is what suits the model.
        pick: the number of the one to take in place of the best.
        early: whether the worse ones are stopped on the way.
        text_to_image: folder or hub id of the model that makes them; `None` is the video model itself.
    """

    candidates: int | None
    reward: Callable[[str], Reward] | None
    pick: int | None
    early: bool
    text_to_image: str | None

    @classmethod
    def of(
        cls, candidates: int | None, reward: str | None, pick: int | None, early: bool, text_to_image: str | None
    ) -> Choice:
        """Raises `UnstillError` for a reward or a number that there is not, or options that exclude each other."""
        from unstill.text_to_video import reward_named

        count = candidates or CANDIDATES
        if pick is not None and pick >= count:
            raise UnstillError(f"There is no candidate {pick}; they are numbered 0 to {count - 1}.")
        if early and text_to_image is not None:
            raise UnstillError(
                "--early stops pictures of the video model itself; leave it out, or leave out --text-to-image."
            )
        return cls(candidates, None if reward is None else reward_named(reward), pick, early, text_to_image)

    @property
    def given(self) -> bool:
        """Whether anything was asked for."""
        return self.early or any(
            value is not None for value in (self.candidates, self.reward, self.pick, self.text_to_image)
        )


def applies(
    cls: type | None, image: Path | None, prompt: str | None, methods: list[str] | None, text_to_image: str | None
) -> bool:
    """
    Whether a picture is to be made from the prompt: there is none, the model or another can, and no other method was
    named.
    """
    from unstill.text_to_video.candidates import has_image_mode

    names = {text.partition(":")[0].strip().lower().replace("-", "_") for text in methods or []}
    can = cls is None or has_image_mode(cls) or text_to_image is not None
    return image is None and prompt is not None and names <= {"ni_vsds"} and can


def place(out: Path) -> Path:
    """The folder beside `out` that keeps the candidates and stages."""
    return out.with_name(f"{out.stem}_candidates")


def check_place(out: Path) -> None:
    """Raises `UnstillError` if the folder of candidates holds things of somebody else."""
    from unstill.data.ownership import check_folder

    check_folder(place(out), MARK)


def make(
    pipe: Any,
    prompt: str,
    call: dict[str, Any],
    choice: Choice,
    method: NIVSDS,
    seed: int,
    out: Path,
    offload: bool,
    report: Report,
) -> tuple[I4VGen, Reward]:
    """
    All stages of I4VGen, each of which goes on from what an earlier run with the same settings has kept; candidates of
    other settings are replaced, as videos of the same name are. And what has scored them.
    """
    import torch

    from unstill.data.files import replacing, sweep
    from unstill.data.ownership import write_record
    from unstill.text_to_video import Halving, TextToImage, default_reward, i4vgen

    ours = ("prompt", "image", "conditioning_frames", "output_type", "decode_chunk_size")
    options = {name: value for name, value in call.items() if name not in ours}
    device = pipe._execution_device
    reward = default_reward(pipe) if choice.reward is None else choice.reward(str(device))
    source = choice.text_to_image and TextToImage(choice.text_to_image, device, pipe.dtype, offload)
    pipe.set_progress_bar_config(disable=True)
    check_place(out)
    sweep(place(out))
    with replacing(place(out) / MARK) as mark:
        write_record(mark, {"prompt": prompt})
    with report:
        made = i4vgen(
            pipe,
            prompt,
            candidates=choice.candidates or CANDIDATES,
            reward=reward,
            pick=choice.pick,
            preset=method,
            early=Halving() if choice.early else None,
            text_to_image=source or None,
            generator=torch.Generator().manual_seed(seed),
            folder=place(out),
            replace=True,
            progress=report,
            **options,
        )
    return made, reward


def reward_of(video: torch.Tensor, prompt: str, reward: Reward) -> float:
    """The mean over the frames of a video, uint8 (F, 3, H, W)."""
    from PIL import Image

    from unstill.text_to_video.rewards import score

    frames = [Image.fromarray(frame.permute(1, 2, 0).contiguous().numpy()) for frame in video]
    return round(sum(score(reward, prompt, frames)) / len(frames), 5)


def side_by_side(videos: dict[str, torch.Tensor], made: I4VGen) -> dict[str, torch.Tensor]:
    """What `--compare` shows: the plain video, the picture, what NI-VSDS has made of it, and the video."""
    return {"plain": videos["plain"], "chosen picture": made.static, "set in motion": made.animated} | {
        "refined": videos["improved"]
    }


def verdict(scores: dict[str, dict[str, float]], made: I4VGen) -> str:
    """One sentence: what the chosen picture was good for; nothing where there is no plain video."""
    if "plain" not in scores:
        return ""
    plain, improved = scores["plain"], scores["improved"]
    ratio = improved["motion"] / max(plain["motion"], 1e-6)
    return (
        f"The pictures of the improved video score {improved['reward']:.3g} by {made.reward}, those of the plain one "
        f"{plain['reward']:.3g}; it moves {ratio:.0%} as much."
    )


def describe(made: I4VGen, out: Path) -> dict[str, Any]:
    """What the settings beside the video say about the candidates."""
    return {
        "reward": made.reward,
        "scores": [round(one.score, 5) for one in made.candidates],
        "stopped": [one.stopped for one in made.candidates],
        "choice": made.choice,
        "folder": str(place(out)),
    }


def told(made: I4VGen, out: Path) -> str:
    """One sentence on what was chosen, and how to choose another."""
    scores = [one.score for one in made.candidates]
    assert made.choice is not None
    score = f"score {scores[made.choice]:.3g} by {made.reward}"
    if len(scores) == 1:
        return f"Made from the only candidate ({score}), which is {place(out) / 'anchor.png'}."
    return (
        f"Made from candidate {made.choice} of {len(scores)} ({score}); all are on "
        f"{place(out) / 'candidates.png'}, and --pick takes another one."
    )
