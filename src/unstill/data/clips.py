"""Clip data sets: a folder of videos as a sequence of clips, read one at a time."""

import hashlib
import logging
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from unstill.data.decode import VIDEO_SUFFIXES, natural_key
from unstill.data.images import Size
from unstill.data.video import Clip, VideoInfo, read_video, video_info
from unstill.errors import UnstillError


log = logging.getLogger(__name__)


def video_files(folder: str | os.PathLike[str]) -> list[Path]:
    """
    All video files below a folder, in natural order of their relative paths.

    No file is opened; subfolders without read permission are reported as warnings.

    Raises:
        UnstillError: no such folder, or no video in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "does not exist"
        raise UnstillError(f"{folder} {what}; pass a folder of videos.")

    def report(error: OSError) -> None:
        log.warning("Skipping %s: %s.", error.filename, error.strerror)

    videos = [
        Path(parent, name)
        for parent, _, names in os.walk(folder, onerror=report)
        for name in names
        if Path(name).suffix.lower() in VIDEO_SUFFIXES and not name.startswith(".")
    ]
    if not videos:
        kinds = " ".join(sorted(VIDEO_SUFFIXES))
        raise UnstillError(
            f"The folder {folder} holds no videos (looked for {kinds}, subfolders included); name the folder of yours."
        )
    return sorted(videos, key=lambda file: natural_key(file.relative_to(folder).as_posix()))


@dataclass(frozen=True, kw_only=True)
class ClipFolder:
    """
    The clips of a folder of videos: `len(clips)`, `clips[i]`, and iteration that skips unreadable videos.

    Clip i is from video i // clips_per_video. Its start is uniform over the times at which the whole clip fits, drawn
    from (seed, relative path, number): independent of the order, the other videos and the division of the work. A
    video of unknown length is read from its beginning.

    Attributes:
        folder: searched with its subfolders, once, at construction.
        frames: frames per clip.
        fps: rate to sample at; None keeps each video's own.
        size: (H, W) to fill by resize and centre crop; None keeps each video's own.
        clips_per_video: clips from each video.
        seed: of the starts; None begins every video at its first frame (then clips_per_video must be 1).
    """

    folder: str | os.PathLike[str]
    frames: int
    fps: float | None = None
    size: Size | None = None
    clips_per_video: int = 1
    seed: int | None = 0
    files: tuple[Path, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.clips_per_video < 1 or (self.seed is None and self.clips_per_video > 1):
            raise UnstillError(
                f"clips_per_video must be at least 1, and 1 where seed is None, but got {self.clips_per_video}."
            )
        object.__setattr__(self, "files", tuple(video_files(self.folder)))

    def __len__(self) -> int:
        return len(self.files) * self.clips_per_video

    def __getitem__(self, index: int) -> Clip:
        """Clip number `index`; raises `UnstillError` if it cannot be read, `IndexError` past the end."""
        file, start = self.files[index // self.clips_per_video], 0.0
        if self.seed is not None:
            name = file.relative_to(self.folder).as_posix()
            drawn = random.Random(f"{self.seed}/{name}/{index % self.clips_per_video}")
            start, _ = clip_window(video_info(file), self.frames, self.fps, 1, drawn)
        return read_video(file, self.fps, self.frames, self.size, start=start)

    def __iter__(self) -> Iterator[Clip]:
        for index in range(len(self)):
            try:
                yield self[index]
            except UnstillError as error:
                log.warning("Skipping clip %d: %s", index, error)

    @property
    def fingerprint(self) -> str:
        """Equal only for the same settings and files (names and sizes): resuming a run checks it."""
        names = [(file.relative_to(self.folder).as_posix(), file.stat().st_size) for file in self.files]
        settings = (self.frames, self.fps, self.size, self.clips_per_video, self.seed)
        return hashlib.sha256(repr((settings, names)).encode()).hexdigest()


def clip_window(
    info: VideoInfo, frames: int, fps: float | None, stride: int | tuple[int, int], drawn: random.Random
) -> tuple[float, int]:
    """
    Draws the start and the stride of a clip, uniformly over those with which the whole clip fits.

    Args:
        info: of the video; one of unknown length is read from its beginning.
        frames: of the clip.
        fps: sampling rate; `None`: the video's own.
        stride: in stored frames; (low, high) is drawn from those that fit, and is low if none does.
        drawn: the random numbers.

    Returns:
        The start in seconds, and the stride.
    """
    fraction = drawn.random()
    low, high = stride if isinstance(stride, tuple) else (stride, stride)
    length = info.duration or 0.0
    if high > low:
        fitting = int((length * info.fps - 2) / max(frames - 1, 1))
        high = max(low, min(high, fitting))
        low += int(drawn.random() * (high - low + 1))
    # One frame of margin, since the lengths in file headers are rounded.
    margin = length - ((frames - 1) * low + 2) / (fps or info.fps)
    return max(0.0, margin) * fraction, low


def iterate_clips(
    folder: str | os.PathLike[str],
    frames: int,
    fps: float | None = None,
    size: Size | None = None,
    clips_per_video: int = 1,
    seed: int | None = 0,
) -> Iterator[Clip]:
    """
    Iterates over the clips of a folder of videos, one in memory at a time; see `ClipFolder` for the arguments.

    A video that is damaged or too short is skipped with a warning.
    """
    yield from ClipFolder(folder=folder, frames=frames, fps=fps, size=size, clips_per_video=clips_per_video, seed=seed)
