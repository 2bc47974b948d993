"""The result of `unstill.animate`: videos, scores, settings, and how they are written."""

from __future__ import annotations

import dataclasses
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

from unstill.animation_settings import AnimationSettings
from unstill.data.contact_sheets import side_by_side
from unstill.data.output_paths import check_video_name, check_writable, sibling
from unstill.data.ownership import check_free, together
from unstill.data.video import write_video
from unstill.errors import UnstillError
from unstill.text_to_video.prompt_video import comparison_panels


if TYPE_CHECKING:
    from unstill.text_to_video.result import I4VGen


SMALL, ENLARGED = 128, 4  # videos of up to 128 pixels are enlarged 4 times when they are written


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Animation:
    """
    What `unstill.animate` made.

    Attributes:
        frames: the video with methods, uint8 (F, 3, H, W).
        plain: the video of the same seed without methods, uint8 (F, 3, H, W); `None` where it was left out.
        picture: the picture as the model saw it, of the size of the video; `None` where the model saw only a prompt.
        picture_note: one sentence on what of the picture was cut off or added; empty where the model saw it as it is.
        fps: frames per second.
        scores: by `"plain"` and `"improved"`, see `unstill.metrics.quick_scores.score_video`; with candidates also the
            mean `reward` of the frames.
        verdict: one sentence that compares both videos; empty without the plain one.
        chosen: candidates, choice and stages of I4VGen, where the picture was made of the prompt.
        call: arguments of the pipeline's call, pictures included.
        settings: all that is needed to make the videos again, as JSON can hold it.
        files: what was written: the video, the plain one, the comparison and the settings, as far as asked for.
    """

    frames: torch.Tensor
    plain: torch.Tensor | None
    picture: Image.Image | None
    picture_note: str
    fps: int
    scores: dict[str, dict[str, float]]
    verdict: str
    chosen: I4VGen | None
    call: dict[str, Any]
    settings: dict[str, Any]
    files: tuple[Path, ...] = ()

    @property
    def videos(self) -> dict[str, torch.Tensor]:
        """The videos by name: `"plain"`, if it was made, and `"improved"`."""
        plain = {} if self.plain is None else {"plain": self.plain}
        return {**plain, "improved": self.frames}

    def comparison(self) -> torch.Tensor:
        """
        The plain video and the improved one side by side with their names, uint8 (F, 3, H', W').

        Raises:
            UnstillError: the plain video was left out.
        """
        if self.plain is None:
            raise UnstillError("A comparison needs the plain video; make it with plain=True.")
        panels = self.videos if self.chosen is None else comparison_panels(self.plain, self.chosen)
        return side_by_side(list(panels.values()), list(panels))

    def save(
        self,
        out: str | os.PathLike[str],
        *,
        compare: bool = False,
        upscale: int | None = None,
        command: str = "",
    ) -> Animation:
        """
        Writes the videos and their settings, all files together or none; replaces files that unstill wrote.

        Args:
            out: .mp4, .gif, .webp, or a folder for PNG pictures, see `unstill.animate`.
            compare: also write both videos side by side.
            upscale: whole factor by which the videos are enlarged; by default 4 up to 128 pixels, otherwise 1.
            command: what the settings name as their origin.

        Returns:
            This animation with `files`, and with settings as they were written.

        Raises:
            UnstillError: the place cannot be written, or holds files that unstill did not write.
        """
        out = Path(out)
        AnimationSettings(plain=self.plain is not None, compare=compare, upscale=upscale).check()
        check_output(out, self.plain is not None, compare)
        check_writable(out)
        factor = upscale or (ENLARGED if max(self.frames.shape[-2:]) <= SMALL else 1)
        videos = {out: self.frames} | ({} if self.plain is None else {sibling(out, "plain"): self.plain})
        files = video_paths(out, self.plain is not None, compare)
        since = time.perf_counter()
        with together(record_path(out), [file.name for file in files]) as results:
            for path, video in videos.items():
                write_video(results.folder / path.name, video, self.fps, upscale=factor)
            if compare:
                write_video(results.folder / files[-1].name, self.comparison(), self.fps)
            seconds = {**self.settings["seconds"], "write": round(time.perf_counter() - since, 3)}
            results.record = {
                **({"command": command} if command else {}),
                **self.settings,
                "seconds": seconds,
                "upscale": factor,
                "files": [str(file) for file in files],
            }
        return dataclasses.replace(self, settings=results.record, files=(*files, record_path(out)))


def record_path(out: Path) -> Path:
    """The JSON file of settings beside a video."""
    return out.with_name(f"{out.stem}.json")


def video_paths(out: Path, plain: bool, compare: bool) -> list[Path]:
    """The files or folders of the videos that are written: `out`, the plain video, the comparison."""
    return [out, *[sibling(out, "plain")] * plain, *[sibling(out, "compare")] * compare]


def check_output(out: Path, plain: bool, compare: bool) -> None:
    """Raises `UnstillError` for files that cannot or must not be written."""
    check_video_name(out)
    check_free(record_path(out), video_paths(out, plain, compare))
