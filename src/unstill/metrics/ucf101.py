"""
The UCF101 protocol of the leakage paper, for any folder laid out as UCF101 (one subfolder of videos per class).

Clips of 16 frames at 3 frames/s; the first frame is the image, the name of the class the text; 2,048 videos for FVD,
10,000 for the inception score. The paper does not say what it does with videos shorter than the 5 s that such a clip
takes: here they are left out. One clip is taken per video, from its beginning, in an order fixed by `seed`.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from pydantic import RootModel, field_validator

from unstill.data import read_image, read_video, video_files, write_video
from unstill.data.files import replacing
from unstill.data.ownership import check_free, together
from unstill.data.video_index import class_text
from unstill.documents import read_json
from unstill.errors import UnstillError, shown


FRAMES, FPS = 16, 3.0
FVD_VIDEOS, INCEPTION_VIDEOS = 2048, 10_000

Animate = Callable[[Image.Image, str, int], Sequence[Image.Image] | torch.Tensor]


class _Prompts(RootModel[dict[str, str]]):
    """prompts.json: caption by the relative name of the clip, which names files below the folder only."""

    @field_validator("root")
    @classmethod
    def _inside(cls, root: dict[str, str]) -> dict[str, str]:
        for name in root:
            if not name or Path(name).is_absolute() or ".." in Path(name).parts:
                raise ValueError(f"{shown(name)} is not the name of a clip")
        return root


@dataclass(frozen=True, slots=True)
class Ucf101:
    """The files that `prepare` writes below a folder, and the folder for generated videos of the same names."""

    folder: Path

    @property
    def reference(self) -> Path:
        """The folder of the real clips."""
        return self.folder / "reference"

    @property
    def images(self) -> Path:
        """The folder of their first frames."""
        return self.folder / "images"

    @property
    def generated(self) -> Path:
        """The folder for generated videos."""
        return self.folder / "generated"

    @property
    def prompts(self) -> Path:
        """The JSON file of their captions."""
        return self.folder / "prompts.json"

    @property
    def record(self) -> Path:
        """The record of the `prompts.json` that this program wrote."""
        return self.folder / "prepared.json"

    def items(self) -> Iterator[tuple[str, Path, str]]:
        """(relative name, image file, prompt) of every clip, in order of the names."""
        if not self.prompts.is_file():
            raise UnstillError(f"{self.folder} is not prepared (no prompts.json); call ucf101.prepare first.")
        for name, prompt in sorted(read_json(self.prompts, _Prompts, "call ucf101.prepare again").root.items()):
            yield name, self.images / f"{name}.png", prompt


def prepare(
    root: str | Path,
    out: str | Path,
    count: int = FVD_VIDEOS,
    size: tuple[int, int] | None = None,
    seed: int = 0,
    progress: Callable[[str, int, int, str], None] | None = None,
) -> Ucf101:
    """
    Writes the first `count` usable clips: `reference/CLASS/NAME.mp4`, `images/CLASS/NAME.png`, `prompts.json`.

    Existing videos and images are kept, so that an interrupted call can be continued. The references are H.264 at high
    quality; the images are exact.

    Args:
        root: UCF101, or any folder with a subfolder of videos per class.
        out: the folder to write.
        count: number of clips.
        size: (height, width) of the model, to resize and crop to; `None` keeps that of the videos.
        seed: of the order in which videos are taken.
        progress: called with ("prepared", done, count, "").

    Raises:
        UnstillError: fewer than `count` videos are long enough and readable, or `out` has a `prompts.json` that this
            function did not write or that was changed since.
    """
    root, prepared = Path(root), Ucf101(Path(out))
    files = [file for file in video_files(root) if file.parent != root]
    if not files:
        raise UnstillError(f"{root} is not laid out as UCF101; expected a subfolder of videos for every class.")
    check_free(prepared.record, [prepared.prompts], "out")
    random.Random(seed).shuffle(files)
    prompts: dict[str, str] = {}
    for file in files:
        if len(prompts) == count:
            break
        name = file.relative_to(root).with_suffix("").as_posix()
        video, image = prepared.reference / f"{name}.mp4", prepared.images / f"{name}.png"
        if not (video.exists() and image.exists()):
            try:
                clip = read_video(file, fps=FPS, frames=FRAMES, size=size)
            except UnstillError:
                continue  # too short or damaged; counted below
            if not image.exists():
                with replacing(image) as temporary:
                    Image.fromarray(clip.frames[0].permute(1, 2, 0).numpy()).save(temporary)
            if not video.exists():
                write_video(video, clip.frames, FPS)
        prompts[name] = class_text(file.relative_to(root).parts[0])
        if progress:
            progress("prepared", len(prompts), count, "")
    if len(prompts) < count:
        raise UnstillError(
            f"Only {len(prompts)} of the {len(files)} videos of {root} can be read and last "
            f"{(FRAMES - 1) / FPS:.0f} s; {count} were asked for."
        )
    with together(prepared.record, [prepared.prompts.name], "out") as written:
        written.record |= {"clips": count, "seed": seed, "size": size and list(size)}
        text = json.dumps(prompts, indent=1, ensure_ascii=False)
        (written.folder / prepared.prompts.name).write_text(text, encoding="utf-8")
    return prepared


def generate_videos(
    prepared: Ucf101, animate: Animate, progress: Callable[[str, int, int, str], None] | None = None
) -> None:
    """
    Animates every image and writes the videos into `generated/`; existing files are kept.

    Args:
        prepared: the result of `prepare`.
        animate: called as `animate(image, prompt, number)`, where `number` counts the clips in the order of their
            names. Used as the seed, it gives the same videos in an interrupted and continued run.
        progress: called with ("generated", done, total, "").
    """
    items = list(prepared.items())
    for number, (name, image, prompt) in enumerate(items):
        target = prepared.generated / f"{name}.mp4"
        if not target.exists():
            write_video(target, animate(read_image(image), prompt, number), FPS)
        if progress:
            progress("generated", number + 1, len(items), "")
