"""Webdataset shards, made by hand: a tar file needs no package."""

import io
import json
import logging
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.data.conftest import make_video, numbers
from unstill.data import read_video
from unstill.data.shards import list_shards
from unstill.data.sources import SourceSettings, open_source
from unstill.errors import UnstillError


SHARDS = SourceSettings(kind="shards", frames=4, size=(16, 16))


def write_shard(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


@pytest.fixture
def shards(tmp_path: Path, videos: Path) -> Path:
    a, b, c = (file.read_bytes() for file in sorted(videos.rglob("*.mp4")))  # bases 20, 40, 60
    folder = tmp_path / "shards"
    write_shard(
        folder / "10.tar",
        {"0002.json": json.dumps({"caption": "from json", "key": 2}).encode(), "0002.mp4": c, "0003.txt": b"no video"},
    )
    write_shard(
        folder / "2.tar",
        {
            "sub/0000.mp4": a,
            "sub/0000.txt": b" a boat\n",
            "sub/0000.json": b'{"caption": "not this"}',
            "0001.v.1.mp4": b"ignored, the extension is v.1.mp4",
            "0001.MP4": b,
            "0001.json": b"broken {",
        },
    )
    return folder


def test_samples_are_found_with_their_captions(shards: Path, videos: Path) -> None:
    source = open_source(replace(SHARDS, path=shards))
    samples = [source[i] for i in range(len(source))]
    assert [(s.name, s.caption) for s in samples] == [
        ("2.tar/sub/0000.mp4", "a boat"),
        ("2.tar/0001.MP4", ""),
        ("10.tar/0002.mp4", "from json"),
    ]
    for sample, base in zip(samples, (20, 40, 60), strict=True):
        first, *rest = numbers(sample.video, base)
        assert rest == [first + 1, first + 2, first + 3]
    one = open_source(replace(SHARDS, path=shards / "10.tar"))
    assert len(one) == 1 and one[0].caption == "from json"


def test_a_packed_video_is_the_file(shards: Path, videos: Path) -> None:
    packed = read_video(list_shards(shards).video(2))
    assert torch.equal(packed.frames, read_video(videos / "33.mp4").frames) and packed.fps == 8


def test_a_limit(shards: Path) -> None:
    whole = open_source(replace(SHARDS, path=shards))
    some = open_source(replace(SHARDS, path=shards, limit=2))
    there = {whole.name(i): whole[i] for i in range(3)}
    for i in range(len(some)):
        one = some[i]
        assert torch.equal(one.video, there[one.name].video) and one.caption == there[one.name].caption
    assert len(some) == 2


def test_fingerprint(shards: Path) -> None:
    before = open_source(replace(SHARDS, path=shards)).fingerprint
    assert open_source(replace(SHARDS, path=shards)).fingerprint == before
    make_video(shards / "x.mp4")
    write_shard(shards / "10.tar", {"0002.mp4": (shards / "x.mp4").read_bytes() + b"longer"})
    assert open_source(replace(SHARDS, path=shards)).fingerprint != before


def test_a_shard_that_is_cut_off(shards: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = (shards / "2.tar").read_bytes()
    listing = list_shards(shards / "2.tar")
    last = listing.video(1)
    (shards / "2.tar").write_bytes(whole[: last.offset + last.size // 2])
    with caplog.at_level(logging.WARNING):
        found = list_shards(shards / "2.tar")
    assert [found.names[i] for i in range(len(found))] == ["2.tar/sub/0000.mp4"]
    assert "2.tar is damaged" in caplog.text
    with pytest.raises(UnstillError, match="0001.MP4 .* is cut off"):
        last.read()


def test_what_is_no_shard(tmp_path: Path, shards: Path) -> None:
    (tmp_path / "empty").mkdir()
    write_shard(tmp_path / "texts.tar", {"0.txt": b"a boat"})
    (tmp_path / "text.tar").write_text("I am no tar file, but long enough to be taken for one. " * 30)
    with tarfile.open(tmp_path / "zipped.tar", "w:gz") as tar:
        tar.add(shards / "2.tar")
    for name, says in (
        ("missing.tar", "There are no shards"),
        ("empty", "holds no .tar files"),
        ("texts.tar", "hold no videos"),
        ("text.tar", "not a plain tar file"),
        ("zipped.tar", "not a plain tar file"),
    ):
        with pytest.raises(UnstillError, match=says) as caught:
            open_source(replace(SHARDS, path=tmp_path / name))
        assert "\n" not in str(caught.value) and str(caught.value).endswith(".")
