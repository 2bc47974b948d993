"""Batches: shuffled, endless, a function of the step alone; what cannot be read is replaced."""

import logging
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

import pytest
import torch

from tests.data.conftest import make_video
from unstill.data.loading import TRIES, Loader, index_and_epoch
from unstill.data.sources import SourceSettings, open_source
from unstill.errors import UnstillError


@dataclass
class Numbers:
    """Clips that are only their (index, epoch); those in `broken` cannot be read."""

    length: int
    broken: set[int] = field(default_factory=set)
    read_so_far: int = 0

    def __len__(self) -> int:
        return self.length

    def name(self, index: int) -> str:
        return f"{index}.mp4"

    def read(self, index: int, epoch: int = 0) -> tuple[int, int]:
        self.read_so_far += 1
        if index in self.broken:
            raise UnstillError(f"{index}.mp4 is damaged in epoch {epoch}.")
        return index, epoch


def taken(loader: Loader, steps: int, first: int = 0) -> list[list]:
    return list(islice(loader.batches(first), steps))


def test_every_epoch_has_every_clip_once_in_another_order() -> None:
    batches = taken(Loader(Numbers(10), 4), 10)
    assert all(len(batch) == 4 for batch in batches)
    clips = [clip for batch in batches for clip in batch]
    orders = [[index for index, epoch in clips if epoch == e] for e in range(4)]
    assert all(sorted(order) == list(range(10)) for order in orders)
    assert len({tuple(order) for order in orders}) == 4
    assert [index_and_epoch(n, 10, 0) for n in range(40)] == clips
    assert taken(Loader(Numbers(10), 4, seed=1), 10) != batches


def test_a_run_goes_on_from_its_step() -> None:
    whole = taken(Loader(Numbers(7), 3), 12)
    for step in (0, 1, 5, 11):
        assert taken(Loader(Numbers(7), 3), 12 - step, first=step) == whole[step:]


def test_processes_share_the_batch_of_one() -> None:
    whole = taken(Loader(Numbers(7), 6), 5)
    shares = [taken(Loader(Numbers(7), 6, process=p, processes=3), 5) for p in range(3)]
    assert [sum((share[step] for share in shares), []) for step in range(5)] == whole


def test_a_batch_that_cannot_be_shared() -> None:
    for batch in (5, 0):
        with pytest.raises(UnstillError, match="choose a multiple"):
            Loader(Numbers(7), batch, processes=2)


def test_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    taken(Loader(Numbers(7), 3), 4)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_broken_clip_is_reported_once_and_replaced(caplog: pytest.LogCaptureFixture) -> None:
    good, bad = taken(Loader(Numbers(8), 4), 20), taken(Loader(Numbers(8, {2, 5}), 4), 20)
    for before, after in zip(sum(good, []), sum(bad, []), strict=True):
        if before[0] in (2, 5):
            assert after[0] not in (2, 5) and after[1] == before[1]
        else:
            assert after == before
    replacements = {after[0] for before, after in zip(sum(good, []), sum(bad, []), strict=True) if before[0] == 2}
    assert len(replacements) > 2  # not always the same one
    messages = sorted(record.message for record in caplog.records if record.levelno == logging.WARNING)
    assert [message[:43] for message in messages] == [
        "Replacing 2.mp4 by another clip: 2.mp4 is d",
        "Replacing 5.mp4 by another clip: 5.mp4 is d",
    ]
    # what replaces what is a function of the place alone
    assert taken(Loader(Numbers(8, {2, 5}), 4), 10, first=10) == bad[10:]


@pytest.mark.parametrize("length", [1, 5, 500])
def test_a_source_of_broken_clips_ends(length: int) -> None:
    source = Numbers(length, set(range(length)))
    with pytest.raises(UnstillError) as caught:
        taken(Loader(source, 2), 1)
    assert source.read_so_far <= min(length, TRIES + 1)
    message = str(caught.value)
    assert message.startswith(f"None of {source.read_so_far} clips could be read; the first: ")
    assert "is damaged" in message and "\n" not in message


@pytest.mark.parametrize("good", [0, 9])
def test_in_a_small_source_the_one_good_clip_is_found(good: int) -> None:
    loader = Loader(Numbers(10, set(range(10)) - {good}), 5)
    assert {clip[0] for batch in taken(loader, 4) for clip in batch} == {good}


def test_workers_and_files(videos: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = (videos / "33.mp4").read_bytes()
    (videos / "broken.mp4").write_bytes(whole[:300])
    make_video(videos / "short.mp4", count=3)
    source = open_source(SourceSettings(path=videos, frames=6, size=(8, 8)))
    alone = taken(Loader(source, 4), 3, first=2)
    with caplog.at_level(logging.WARNING):
        caplog.clear()
        shared = taken(Loader(source, 4, workers=2), 3, first=2)
    for one, other in zip(sum(alone, []), sum(shared, []), strict=True):
        assert torch.equal(one.video, other.video) and replace(one, video=None) == replace(other, video=None)
    messages = [record.message for record in caplog.records]
    for name, says in (("broken.mp4", "damaged"), ("short.mp4", "too short")):
        assert sum(name in message and says in message for message in messages) == 1
    assert len(messages) == 2


@pytest.mark.parametrize("workers", [0, 1])
def test_frames_that_no_video_has(videos: Path, workers: int) -> None:
    source = open_source(SourceSettings(path=videos, frames=60, size=(8, 8)))
    with pytest.raises(UnstillError, match=r"^None of 3 clips could be read; the first: .* is too short: .*\.$"):
        taken(Loader(source, 2, workers=workers), 1)


@dataclass
class Tensors:
    """Clips of several tensors."""

    def __len__(self) -> int:
        return 8

    def name(self, index: int) -> str:
        return f"{index}.mp4"

    def read(self, index: int, epoch: int = 0) -> dict[str, torch.Tensor]:
        video = torch.arange(24.0).reshape(2, 3, 4).transpose(0, 2) + index
        return {"video": video, "fps": torch.tensor(index), "half": video.half(), "none": video[:0], "is": video > 9}


def test_a_batch_of_another_process_is_one_piece_of_memory() -> None:
    """Each piece takes a file descriptor; with one for every tensor, a batch of a hundred clips never arrived."""
    (alone,), (shared,) = taken(Loader(Tensors(), 4), 1), taken(Loader(Tensors(), 4, workers=1), 1)
    assert len({tensor.untyped_storage().data_ptr() for clip in shared for tensor in clip.values()}) == 1
    for clip, other in zip(alone, shared, strict=True):
        assert list(clip) == list(other)
        for name, tensor in clip.items():
            assert tensor.dtype == other[name].dtype and torch.equal(tensor, other[name])
