"""What `unstill.i4vgen` returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from unstill.data.ownership import check_free, matching_files, read_record, together
from unstill.text_to_video.candidates import Candidate
from unstill.text_to_video.stage_cache import StageRecord, check_stage_file


RECORD = "candidates.json"  # the record of the pictures in a folder of candidates
FRAME = 4  # pixels around each picture of the sheet


@dataclass(frozen=True, slots=True, eq=False)
class I4VGen:
    """
    A video, and the intermediate results that it was made from.

    Attributes:
        frames: the video, uint8 `(F, 3, H, W)`.
        anchor: the picture it was made from, at the size of the video.
        candidates: the pictures that it was selected from, in the order of their noise; none where it was given.
        choice: index of the selected one.
        reward: name of the reward that scored them.
        static: the anchor as a still video, uint8 `(F, 3, H, W)`.
        animated: the result of NI-VSDS before regeneration, of the same shape and type.
        records: the results of the stages, from which they can be resumed.
    """

    frames: torch.Tensor
    anchor: Image.Image
    candidates: tuple[Candidate, ...]
    choice: int | None
    reward: str | None
    static: torch.Tensor
    animated: torch.Tensor
    records: tuple[StageRecord, ...]

    def save(self, folder: str | Path) -> None:
        """
        Writes the stages (from which `i4vgen(folder=...)` resumes), the anchor, and the candidates, as single files
        and on one contact sheet.

        Raises:
            UnstillError: `folder` holds a file of one of these names that is not of an earlier result.
        """
        check_pictures(Path(folder), len(self.candidates))
        for record in self.records:
            check_stage_file(Path(folder), record.name)
        for record in self.records:
            record.write(Path(folder))
        save_pictures(Path(folder), self.anchor, self.candidates, self.choice)


def check_pictures(folder: Path, count: int) -> None:
    """Raises `UnstillError` if `save_pictures` would overwrite a file that this program did not write."""
    check_free(folder / RECORD, [folder / name for name in _names(count)], "folder")


def save_pictures(folder: Path, anchor: Image.Image, candidates: Sequence[Candidate], choice: int | None) -> None:
    """
    Writes `anchor.png`, the candidates as `candidate_00.png`, ... and `candidates.png`, and the record
    `candidates.json`.

    Pictures of an earlier result with more candidates are removed if its record names them and they are unchanged.

    Raises:
        UnstillError: `folder` holds a file of one of these names that is not of an earlier result.
    """
    pictures = [anchor]
    if candidates:
        pictures += [*(candidate.image for candidate in candidates), sheet(candidates, choice)]
    names, record = _names(len(candidates)), folder / RECORD
    with together(record, names, "folder") as results:
        results.record |= {**(read_record(record) or {}), "choice": choice}
        for name, picture in zip(names, pictures, strict=True):
            picture.save(results.folder / name)
    for path in matching_files(record) if candidates else ():
        if path.name not in names and path.match("candidate_*.png"):
            path.unlink()


def _names(count: int) -> list[str]:
    """File names of the pictures of a result with `count` candidates."""
    candidates = [f"candidate_{index:02}.png" for index in range(count)]
    return ["anchor.png", *candidates, "candidates.png"] if count else ["anchor.png"]


def sheet(candidates: Sequence[Candidate], choice: int | None = None) -> Image.Image:
    """
    A contact sheet of the candidates with their numbers and scores; the selected one has a frame, and those that were
    stopped early are labelled with the step.
    """
    from unstill.data.contact_sheets import INK, PAPER, side_by_side

    labels, clips = [], []
    for index, candidate in enumerate(candidates):
        chosen = index == choice
        stopped = "" if candidate.stopped is None else f", stopped at {candidate.stopped}"
        labels.append(f"{index}: {candidate.score:.3g}" + (stopped or ", chosen" * chosen))
        picture = ImageOps.expand(_readable(candidate.image), FRAME, INK if chosen else PAPER)
        clips.append(torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None])
    return Image.fromarray(side_by_side(clips, labels, 8, panel=1)[0].permute(1, 2, 0).contiguous().numpy())


def _readable(picture: Image.Image, low: int = 160, high: int = 256) -> Image.Image:
    """The picture at a height that is readable on the sheet: enlarged by a whole factor, or made smaller."""
    width, height = picture.size
    scale = high / height if height > high else -(-low // height)
    return picture.resize((round(width * scale), round(height * scale)), Image.Resampling.LANCZOS)
