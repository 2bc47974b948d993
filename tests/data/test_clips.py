"""Folders of videos as clip data sets."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from unstill.data import ClipFolder, iterate_clips, video_files, write_video
from unstill.errors import UnstillError
from unstill.statistics_estimation import estimate


CLIPS = Path(__file__).parents[3] / "shared" / "clips"


def video(path: Path, count: int = 24, base: int = 0) -> Path:
    """Flat grey frames that tell their number: base + 4 * index."""
    values = base + 4 * torch.arange(count)
    return write_video(path, values[:, None, None, None].expand(-1, 3, 16, 16).to(torch.uint8), 8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for index in (10, 2, 1):
        video(tmp_path / f"v{index}.mp4", base=20 * index)
    video(tmp_path / "sub" / "a.gif")
    (tmp_path / "notes.txt").write_text("no video")
    (tmp_path / ".hidden.mp4").write_bytes(b"")
    return tmp_path


def first_number(frames: torch.Tensor, base: int) -> int:
    return round((float(frames[0].float().mean()) - base) / 4)


def test_files_are_found_below_and_in_natural_order(folder: Path) -> None:
    names = [file.relative_to(folder).as_posix() for file in video_files(folder)]
    assert names == ["sub/a.gif", "v1.mp4", "v2.mp4", "v10.mp4"]


def test_no_videos(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    for name, says in (("missing", "does not exist"), ("file", "is a file"), ("empty", "holds no videos")):
        with pytest.raises(UnstillError, match=says):
            video_files(tmp_path / name)


def test_clips_stream_and_what_cannot_be_read_is_named_once(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = (folder / "v2.mp4").read_bytes()
    (folder / "broken.mp4").write_bytes(whole[:300])
    (folder / "text.mp4").write_text("I am no video.")
    video(folder / "short.mp4", count=3)
    with caplog.at_level(logging.WARNING):
        clips = list(iterate_clips(folder, frames=6, fps=8, size=(8, 12)))
    assert len(clips) == 4 and all(clip.frames.shape == (6, 3, 8, 12) and clip.fps == 8 for clip in clips)
    messages = [record.message for record in caplog.records]
    assert len(messages) == 3
    for name, says in (("broken.mp4", "damaged"), ("short.mp4", "too short"), ("text.mp4", "not a video")):
        assert sum(name in message and says in message for message in messages) == 1


def test_a_folder_of_broken_videos_ends(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_text("no")
    assert list(iterate_clips(tmp_path, frames=2)) == []
    with pytest.raises(UnstillError, match="None of the 1 clips"):
        estimate(lambda clip, generator: clip[None], ClipFolder(folder=tmp_path, frames=2))


def test_starts_are_spread_over_all_places_where_a_clip_fits(tmp_path: Path) -> None:
    video(tmp_path / "v.mp4", count=24)
    clips = ClipFolder(folder=tmp_path, frames=4, fps=8, clips_per_video=60)
    assert len(clips) == 60
    starts = [first_number(clip.frames, 0) for clip in clips]
    assert len(starts) == 60 and min(starts) <= 2 and 17 <= max(starts) <= 20
    assert 7 < np.mean(starts) < 13


def test_starts_depend_on_seed_and_name_alone(folder: Path) -> None:
    def numbers(**options: int | None) -> dict[str, int]:
        clips = ClipFolder(folder=folder, frames=4, **options)  # type: ignore[arg-type]
        bases = {"v1.mp4": 20, "v2.mp4": 40, "v10.mp4": 200, "a.gif": 0}
        return {file.name: int(clips[i].frames[0].sum()) for i, file in enumerate(clips.files) if file.name in bases}

    before = numbers(seed=3)
    assert numbers(seed=3) == before != numbers(seed=4)
    (folder / "v1.mp4").unlink()
    after = numbers(seed=3)
    assert after == {name: value for name, value in before.items() if name != "v1.mp4"}
    clip = ClipFolder(folder=folder, frames=4, seed=None)[1]
    assert first_number(clip.frames, 40) == 0


def test_fingerprint_tells_data_sets_apart(folder: Path) -> None:
    first = ClipFolder(folder=folder, frames=4, fps=8).fingerprint
    assert ClipFolder(folder=folder, frames=4, fps=8).fingerprint == first
    assert ClipFolder(folder=folder, frames=5, fps=8).fingerprint != first
    video(folder / "new.mp4")
    assert ClipFolder(folder=folder, frames=4, fps=8).fingerprint != first


def test_impossible_numbers(folder: Path) -> None:
    for options in ({"clips_per_video": 0}, {"clips_per_video": 2, "seed": None}):
        with pytest.raises(UnstillError, match="clips_per_video"):
            ClipFolder(folder=folder, frames=4, **options)  # type: ignore[arg-type]


if CLIPS.is_dir():

    def test_real_clips() -> None:
        clips = ClipFolder(folder=CLIPS, frames=4, fps=8, size=(32, 48))
        statistics = estimate(lambda clip, generator: clip.transpose(0, 1)[None], clips)
        assert statistics.count == len(clips) == 6
        assert 0.01 < statistics.variance < 0.2 and statistics.mean.shape == (3, 4, 32, 48)
