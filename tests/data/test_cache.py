"""The cache of latents: what comes back, what a kill leaves, what is never used again."""

import json
import logging
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from tests.processes import finish, start
from unstill.data import cache
from unstill.data.cache import CacheSettings, fill_cache, fingerprint_of, open_cache
from unstill.data.loading import Loader
from unstill.data.sources import Sample, SourceSettings, open_source
from unstill.errors import UnstillError


@dataclass(frozen=True)
class Noise:
    """A source that costs nothing."""

    clips: int = 23
    seed: int = 0

    def __len__(self) -> int:
        return self.clips

    def __getitem__(self, index: int) -> Sample:
        return self.read(index)

    def read(self, index: int, epoch: int = 0) -> Sample:
        video = torch.rand(2, 3, 16, 16, generator=cache.generator_for(self.seed, epoch, index))
        return Sample(video, "word " * index, 8.0 + index, self.name(index), index / 10 if index % 2 else None)

    def name(self, index: int) -> str:
        return f"clip {index}"

    @property
    def fingerprint(self) -> str:
        return repr(self)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "CLIPS_PER_PART", 5)


def encode(sample: Sample, generator: torch.Generator) -> dict[str, torch.Tensor]:
    mean = torch.nn.functional.avg_pool2d(sample.video, 4).transpose(0, 1)  # (F, 3, h, w) -> (3, F, h, w)
    return {"latents": mean + torch.randn(mean.shape, generator=generator), "ids": torch.tensor([len(sample.caption)])}


def noise(tmp_path: Path, **options: object) -> CacheSettings:
    return replace(CacheSettings(tmp_path, Noise(), model="pool"), **options)


def test_what_comes_back(tmp_path: Path) -> None:
    settings, seen = noise(tmp_path), []
    fill_cache(settings, encode, progress=lambda *done: seen.append(done))
    assert seen == [(done, 23) for done in range(1, 24)]
    cached, source = open_cache(settings), Noise()
    assert len(cached) == 23
    for index in (0, 4, 5, 22):
        sample, one = source[index], cached[index]
        exact = encode(sample, cache.generator_for("cache", 0, index))
        error = (one.tensors["latents"] - exact["latents"]).abs() / exact["latents"].abs()
        assert one.tensors["latents"].dtype == torch.float32 and 0 < error.max() <= 2**-11
        assert torch.equal(one.tensors["ids"], exact["ids"])
        told = (one.caption, one.fps, one.name, one.motion)
        assert told == (sample.caption, sample.fps, sample.name, sample.motion)
    assert cached.name(5) == "clip 5"
    batch = next(Loader(cached, 4).batches(3))
    assert len(batch) == 4 and batch[0].tensors["latents"].shape == (3, 2, 4, 4)


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.rglob("*.safetensors")}


@pytest.mark.parametrize("shards", [2, 3, 7])
def test_processes_share_the_parts(tmp_path: Path, shards: int) -> None:
    fill_cache(noise(tmp_path / "one"), encode)
    for index in range(shards):
        with pytest.raises(UnstillError, match="is not full"):
            open_cache(noise(tmp_path / "many"))
        fill_cache(noise(tmp_path / "many"), encode, shard=(index, shards))
        if index == 4:
            break
    for index in range(5, shards):
        fill_cache(noise(tmp_path / "many"), encode, shard=(index, shards))  # no part left for these
    assert contents(tmp_path / "many") == contents(tmp_path / "one")
    with pytest.raises(UnstillError, match="0 <= index < count"):
        fill_cache(noise(tmp_path), encode, shard=(2, 2))


def test_readers_ahead_give_the_same(tmp_path: Path) -> None:
    fill_cache(noise(tmp_path / "one"), encode)
    fill_cache(noise(tmp_path / "two"), encode, workers=1)
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


def test_a_run_that_was_stopped_goes_on(tmp_path: Path) -> None:
    settings, encoded = noise(tmp_path), []

    def stopping(sample: Sample, generator: torch.Generator) -> dict[str, torch.Tensor]:
        if len(encoded) == 12:
            raise KeyboardInterrupt
        encoded.append(sample.name)
        return encode(sample, generator)

    with pytest.raises(KeyboardInterrupt):
        fill_cache(settings, stopping)
    assert len(contents(tmp_path)) == 2  # of 12 clips two parts were full
    fill_cache(settings, lambda *given: encoded.append(given[0].name) or encode(*given))
    assert encoded[12:] == [f"clip {i}" for i in range(10, 23)]
    fill_cache(noise(tmp_path / "whole"), encode)
    assert contents(next(iter(settings.parts)).parent) == contents(tmp_path / "whole")


def killed(tmp_path: Path) -> None:
    def dying(sample: Sample, generator: torch.Generator) -> dict[str, torch.Tensor]:
        if sample.name == "clip 13":
            os.kill(os.getpid(), signal.SIGKILL)
        return encode(sample, generator)

    cache.CLIPS_PER_PART = 5  # a process of its own
    fill_cache(noise(tmp_path), dying)


def test_a_run_that_was_killed_goes_on(tmp_path: Path) -> None:
    finish([start(killed, tmp_path / "a")], code=-signal.SIGKILL)
    assert len(contents(tmp_path / "a")) == 2
    fill_cache(noise(tmp_path / "a"), encode)
    fill_cache(noise(tmp_path / "b"), encode)
    assert contents(tmp_path / "a") == contents(tmp_path / "b") and len(contents(tmp_path / "a")) == 5


def test_a_stale_cache_is_never_used(tmp_path: Path) -> None:
    fill_cache(noise(tmp_path), encode)
    others = [
        noise(tmp_path, model="another"),
        noise(tmp_path, seed=1),
        noise(tmp_path, source=Noise(seed=1)),
        noise(tmp_path, source=Noise(24)),
    ]
    for settings in others:
        with pytest.raises(UnstillError, match="is not full"):
            open_cache(settings)
    assert len({settings.key for settings in others}) == len(others)
    # not even where somebody moved its files
    settings, old = others[0], next(iter(noise(tmp_path).parts)).parent
    old.rename(next(iter(settings.parts)).parent)
    with pytest.raises(UnstillError, match="belongs to another cache"):
        open_cache(settings)


def test_broken_videos_are_left_out_and_all_broken_is_an_error(
    videos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def settings() -> CacheSettings:
        return CacheSettings(
            tmp_path / "cache", open_source(SourceSettings(path=videos, frames=4, size=(16, 16))), "pool"
        )

    (videos / "33.mp4").write_text("no video")
    with caplog.at_level(logging.WARNING):
        fill_cache(settings(), encode)
    assert [record.message[:22] for record in caplog.records] == ["Leaving out clip 1: " + str(videos)[:2]]
    cached = open_cache(settings())
    assert [cached[i].name for i in range(len(cached))] == ["000001_000050/11.mp4", "000051_000100/22.mp4"]
    for file in videos.rglob("*.mp4"):
        file.write_text("no video")
    for _ in range(2):  # the second time, the reasons are said again
        caplog.clear()
        fill_cache(settings(), encode)
        assert len(caplog.records) == 3
        with pytest.raises(UnstillError, match=r"None of the clips could be read, .*; replace these videos"):
            open_cache(settings())


@pytest.mark.parametrize(
    ("encode", "says"),
    [
        (lambda sample, _: {"latents": sample.video + 7e4}, "beyond 65,504"),
        (lambda sample, _: {"latents": sample.video / 0}, "'latents' of clip 0 holds NaN"),
        (lambda sample, g: {"x": torch.zeros(1 + int(sample.name[-1]) // 3)}, "clip 3 has {'x': (2,)}"),
    ],
)
def test_what_cannot_be_stored(tmp_path: Path, encode: Callable, says: str) -> None:
    with pytest.raises(UnstillError) as caught:
        fill_cache(noise(tmp_path), encode)
    assert says in str(caught.value) and str(caught.value).endswith(".") and not contents(tmp_path)


def test_a_damaged_part_is_named(tmp_path: Path) -> None:
    fill_cache(noise(tmp_path), encode)
    file, cached = list(noise(tmp_path).parts)[2], open_cache(noise(tmp_path))
    file.write_bytes(file.read_bytes()[:200])
    assert cached.name(11) == f"clip 1 of {file}"
    with pytest.raises(
        UnstillError, match=r"part-000002.safetensors is damaged .*; delete it, and it is created again\.$"
    ):
        open_cache(noise(tmp_path))


def test_fingerprints_of_weights() -> None:
    torch.manual_seed(0)
    one = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    before = fingerprint_of(one)
    assert fingerprint_of(one) == before != fingerprint_of(one, one)
    assert fingerprint_of(one.bfloat16()) != before
    torch.manual_seed(0)
    other = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    assert fingerprint_of(other) == before
    with torch.no_grad():
        other[0].weight[1, 2] += 1e-6
    assert fingerprint_of(other) != before


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors, text: text.update(clips=None),
        lambda tensors, text: text.update(clips=text["clips"][:-1]),
        lambda tensors, text: text["clips"][0].update(fps="8"),
        lambda tensors, text: text["clips"][0].update(fps=float("nan")),
        lambda tensors, text: text["clips"][0].update(motion=[]),
        lambda tensors, text: text["clips"][0].pop("name"),
        lambda tensors, text: text.pop("key"),
        lambda tensors, text: tensors["latents"].fill_(float("nan")),
    ],
)
def test_a_part_of_other_content_is_named(tmp_path: Path, change: Callable) -> None:
    fill_cache(noise(tmp_path), encode)
    file = next(iter(noise(tmp_path).parts))
    with safe_open(file, "pt") as part:
        tensors = {name: part.get_tensor(name) for name in part.keys()}  # noqa: SIM118
        text = json.loads(part.metadata()["unstill.cache"])
    change(tensors, text)
    save_file(tensors, file, {"unstill.cache": json.dumps(text)})
    with pytest.raises(UnstillError, match="part-000000.safetensors is damaged") as error:
        open_cache(noise(tmp_path)).read(0)
    assert "\n" not in str(error.value)
