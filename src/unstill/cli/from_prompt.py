"""The part of `unstill animate` that begins with words alone: pictures are made of them, the best is set in motion."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unstill.errors import UnstillError


if TYPE_CHECKING:
    from unstill.anchor import I4VGen, Reward
    from unstill.cli.progress import Report
    from unstill.methods.base import Method


@dataclass(frozen=True, slots=True)
class Choice:
    """
    How candidates are made and chosen, as a person asked for it.

    Attributes:
        candidates: how many pictures.
        reward: loads what scores them on a device; `None` is what suits the model.
        pick: the number of the one to take in place of the best.
        early: whether the worse ones are stopped on the way.
    """

    candidates: int | None
    reward: Callable[[str], Reward] | None
    pick: int | None
    early: bool

    @classmethod
    def of(cls, candidates: int | None, reward: str | None, pick: int | None, early: bool) -> Choice:
        """Raises `UnstillError` for a reward that there is not."""
        from unstill.anchor import reward_named

        return cls(candidates, None if reward is None else reward_named(reward), pick, early)

    @property
    def given(self) -> bool:
        """Whether anything was asked for."""
        return self.early or any(value is not None for value in (self.candidates, self.reward, self.pick))


def applies(cls: type | None, image: Path | None, prompt: str | None, methods: list[str] | None) -> bool:
    """Whether a picture is to be made from the prompt: there is none, the model can, and no other method was named."""
    from unstill.anchor.candidates import has_image_mode

    names = {text.partition(":")[0].strip().lower().replace("-", "_") for text in methods or []}
    return image is None and bool(prompt) and names <= {"ni_vsds"} and (cls is None or has_image_mode(cls))


def place(out: Path) -> Path:
    """The folder beside `out` that keeps the candidates and stages."""
    return out.with_name(f"{out.stem}_candidates")


def make(
    pipe: Any,
    prompt: str,
    call: dict[str, Any],
    choice: Choice,
    methods: tuple[Method, ...],
    seed: int,
    out: Path,
    report: Report,
) -> I4VGen:
    """
    All stages of I4VGen, each of which goes on from what an earlier run with the same settings has kept; candidates of
    other settings are replaced, as videos of the same name are.
    """
    import torch

    from unstill.anchor import Halving, i4vgen
    from unstill.anchor.records import OtherCandidates
    from unstill.methods.ni_vsds import NIVSDS

    method = next(iter(methods), "paper")
    assert isinstance(method, NIVSDS | str)  # `applies` saw to it
    ours = ("prompt", "image", "output_type", "decode_chunk_size")
    options = {name: value for name, value in call.items() if name not in ours}
    folder = place(out)
    reward = None if choice.reward is None else choice.reward(str(pipe._execution_device))
    pipe.set_progress_bar_config(disable=True)
    for attempt in (1, 2):
        try:
            with report:
                return i4vgen(
                    pipe,
                    prompt,
                    candidates=choice.candidates or 16,
                    reward=reward,
                    pick=choice.pick,
                    preset=method,
                    early=Halving() if choice.early else None,
                    generator=torch.Generator().manual_seed(seed),
                    folder=folder,
                    progress=report,
                    **options,
                )
        except OtherCandidates:
            if attempt == 2:
                raise
            _clear(folder)
    raise AssertionError


def _clear(folder: Path) -> None:
    ours = {"anchor.png", "candidates.png", *(f"{name}.safetensors" for name in ("candidates", "motion", "video"))}
    for entry in folder.iterdir():
        if entry.name not in ours and not (entry.name.startswith("candidate_") and entry.suffix == ".png"):
            raise UnstillError(f"{folder} holds other things than candidates; name another --out.")
    shutil.rmtree(folder)


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
    return (
        f"Made from candidate {made.choice} of {len(scores)} (score {scores[made.choice]:.3g} by {made.reward}); all "
        f"are on {place(out) / 'candidates.png'}, and --pick takes another one."
    )
