"""Sources of training clips: folders, caption files, UCF101's layout, and the world."""

import logging
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.data.conftest import make_video, numbers
from unstill.data.sources import SourceSettings, guess_kind, open_source
from unstill.data.video_index import Texts, list_folder
from unstill.errors import UnstillError


CLIPS = Path(__file__).parents[3] / "shared" / "clips"
SMALL = SourceSettings(frames=4, size=(16, 16))
WORLD = SourceSettings(kind="world", frames=4, size=(16, 16), clips=5)


def sentence(action: Callable[[], object]) -> str:
    with pytest.raises(UnstillError) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message and message.endswith(".")
    return message


def test_texts_are_given_back() -> None:
    texts = ["a boat", "", "ein Mädchen läuft", "走る犬"]
    packed = Texts(texts)
    assert [packed[i] for i in range(len(packed))] == texts
    assert len(Texts([])) == 0


def test_names_that_are_not_utf_8_are_kept(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.mp4")
    (tmp_path / name).write_bytes(b"")
    assert list_folder(tmp_path).names[0] == name


def test_a_folder_without_captions(videos: Path) -> None:
    source = open_source(replace(SMALL, path=videos))
    samples = [source[i] for i in range(len(source))]
    assert [sample.name for sample in samples] == ["000001_000050/11.mp4", "33.mp4", "000051_000100/22.mp4"]
    for sample, base in zip(samples, (20, 60, 40), strict=True):
        assert sample.video.shape == (4, 3, 16, 16) and sample.video.dtype == torch.float32
        first, *rest = numbers(sample.video, base)
        assert rest == [first + 1, first + 2, first + 3] and 0 <= first <= 20
        assert (sample.caption, sample.fps, sample.motion) == ("", 8, None)
    with pytest.raises(IndexError):
        source[3]


WEBVID = """videoid,contentUrl,duration,page_dir,name
22,https://example.org/22.mp4,PT00H00M03S,000051_000100,"A boat, on a lake"
11,https://example.org/11.mp4,PT00H00M03S,000001_000050,Tourists walking
33,https://example.org/33.mp4,PT00H00M03S,000101_000150,Kept without its folder
44,https://example.org/44.mp4,PT00H00M03S,000101_000150,Never downloaded
"""


def test_webvids_columns_are_read_as_they_are(videos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "train.csv").write_text(WEBVID)
    source = open_source(replace(SMALL, path=videos, captions=tmp_path / "train.csv"))
    told = [(source[i].name, source[i].caption) for i in range(len(source))]
    assert told == [
        ("000051_000100/22.mp4", "A boat, on a lake"),
        ("000001_000050/11.mp4", "Tourists walking"),
        ("33.mp4", "Kept without its folder"),
    ]
    (message,) = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert message.startswith("1 of the 4 videos") and "000101_000150/44" in message


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("c.csv", "file_name,text\n33.mp4,two lines\n"),
        ("c.csv", "\ufefffile,caption\n33.mp4,two lines\n"),
        ("c.tsv", "video\tprompt\n33\ttwo lines\n"),
        ("c.jsonl", '{"file": "33.mp4", "caption": "two lines"}\n\n'),
        ("c.jsonl", '{"videoid": 33, "name": "two lines", "page_dir": null}'),
    ],
)
def test_other_caption_files(
    videos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, content: str
) -> None:
    (tmp_path / name).write_text(content)
    source = open_source(replace(SMALL, path=videos, captions=tmp_path / name))
    assert [(source[0].name, source[0].caption)] == [("33.mp4", "two lines")] and len(source) == 1
    assert "2 of the 3 videos" in caplog.text and "no row" in caplog.text and "000001_000050/11.mp4" in caplog.text


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("c.csv", "video,length\n33.mp4,3\n", "needs a column for the video"),
        ("c.csv", "videoid,name\n33\n", "row 1 has videoid."),
        ("c.csv", "file,caption\nnone.mp4,x\n", "names none of the videos"),
        ("c.csv", "file,caption\n../33.mp4,x\n", "names none of the videos"),
        ("c.csv", "file,caption\n", "is empty"),
        ("c.csv", "file,caption\n33.mp4,\xff\n", "cannot be read after row 0"),
        ("c.jsonl", '{"file": "33.mp4", "caption": "x"}\n{"file": \n', "Row 2 of"),
        ("c.jsonl", "[1]\n", "Row 1 of"),
        ("c.jsonl", '{"file": "33.mp4", "caption": "\\ud800"}\n', "Row 1 of"),
        ("c.jsonl", "[" * 20_000 + "\n", "Row 1 of"),
        ("c.jsonl", '{"file": ' + "[" * 20_000 + "\n", "Row 1 of"),
        ("c.xlsx", "x", "unknown kind"),
        ("missing.csv", None, "does not exist"),
        ("folder", "", "is a folder"),
    ],
)
def test_caption_files_that_do_not_fit(videos: Path, tmp_path: Path, name: str, content: str, says: str) -> None:
    if name == "folder":
        (tmp_path / name).mkdir()
    elif content is not None:
        (tmp_path / name).write_bytes(content.encode("latin-1"))
    assert says in sentence(lambda: open_source(replace(SMALL, path=videos, captions=tmp_path / name)))


def test_classes_as_in_ucf101(tmp_path: Path) -> None:
    for name in ("ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi", "YoYo/v_YoYo_g01_c02.avi", "Tai Chi/a.mp4"):
        make_video(tmp_path / Path(name).with_suffix(".mp4")).rename(tmp_path / name)
    source = open_source(replace(SMALL, kind="ucf101", path=tmp_path))
    assert [source[i].caption for i in range(3)] == ["Apply Eye Makeup", "Tai Chi", "Yo Yo"]
    make_video(tmp_path / "stray.mp4")
    assert "stray.mp4 lies outside" in sentence(lambda: open_source(replace(SMALL, kind="ucf101", path=tmp_path)))


def test_a_clip_depends_on_settings_index_and_epoch_alone(videos: Path) -> None:
    settings = replace(SMALL, path=videos, clips_per_video=2)
    one, other = open_source(settings), open_source(settings)
    there = {(i, e): numbers(one.read(i, e).video, 20)[0] for i in (0, 1) for e in range(8)}
    back = {(i, e): numbers(other.read(i, e).video, 20)[0] for e in (7, 0, 3) for i in (1, 0)}
    assert back == {key: there[key] for key in back}
    assert len(set(there.values())) > 5  # other places in other epochs
    (videos / "33.mp4").unlink()
    assert numbers(open_source(settings).read(1, 3).video, 20)[0] == there[1, 3]
    assert {i: numbers(open_source(replace(settings, seed=1))[i].video, 20)[0] for i in (0, 1)} != {
        i: there[i, 0] for i in (0, 1)
    }


def test_strides_and_rates(videos: Path) -> None:
    def read(epoch: int = 0, **options: object) -> tuple[list[int], float]:
        sample = open_source(replace(SMALL, path=videos, **options)).read(0, epoch)
        return numbers(sample.video, 20), sample.fps

    frames, fps = read(stride=3)
    assert [b - a for a, b in zip(frames, frames[1:], strict=False)] == [3, 3, 3] and fps == pytest.approx(8 / 3)
    frames, fps = read(fps=4)
    assert [b - a for a, b in zip(frames, frames[1:], strict=False)] == [2, 2, 2] and fps == 4
    drawn = set()
    for epoch in range(40):
        frames, fps = read(epoch, stride=(1, 3))
        stride = frames[1] - frames[0]
        assert fps == pytest.approx(8 / stride) and frames[3] - frames[0] == 3 * stride
        drawn.add(stride)
    assert drawn == {1, 2, 3}
    # 24 frames: 8 of them fit with a stride of up to 3, whatever is asked
    assert {round(8 / read(epoch, frames=8, stride=(2, 9))[1]) for epoch in range(12)} == {2, 3}


def test_a_limit_draws_videos_by_the_seed(videos: Path, tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text(WEBVID)
    settings = replace(SMALL, path=videos, captions=tmp_path / "train.csv", clips_per_video=2)
    whole = {sample.name: sample for sample in map(open_source(settings).__getitem__, range(6))}
    drawn = set()
    for seed in range(8):
        source = open_source(replace(settings, limit=2, seed=seed))
        names = [source.name(i) for i in range(len(source))]
        assert names[0] == names[1] != names[2] == names[3] and len(names) == 4
        assert all(source[i].caption == whole[name].caption for i, name in enumerate(names))
        drawn.add(names[0])
    assert len(drawn) > 1
    assert len(open_source(replace(settings, limit=9))) == 6


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"kind": "world"}, "neither a path"),
        ({"kind": "laserdisc"}, "one of folder"),
        ({"path": None}, "needs a path"),
        ({"path": "nowhere"}, "does not exist"),
        ({"frames": 0}, "frames must be"),
        ({"stride": 0}, "stride must be"),
        ({"stride": (3, 1)}, "exchange"),
        ({"stride": 2, "fps": 4.0}, "give one of them"),
        ({"fps": -1.0}, "fps must be"),
        ({"clips_per_video": 0}, "clips_per_video must be"),
        ({"limit": -1}, "limit must be"),
        ({"size": (0, 8)}, "size is"),
        ({"kind": "ucf101", "captions": "c.csv"}, "belongs to a folder"),
        ({"speed": (0.0, 0.15)}, "belong to the synthetic world, not to folder"),
        ({"both_directions": True}, "belong to the synthetic world, not to folder"),
    ],
)
def test_settings_that_do_not_fit(videos: Path, options: dict[str, object], says: str) -> None:
    assert says in sentence(lambda: open_source(replace(SMALL, **{"path": videos, **options})))


def test_an_empty_folder(tmp_path: Path) -> None:
    assert "holds no videos" in sentence(lambda: open_source(replace(SMALL, path=tmp_path)))


def test_the_world() -> None:
    source = open_source(WORLD)
    samples = [source.read(i, epoch) for epoch in (0, 1) for i in range(5)]
    assert len(source) == 5 and all(s.video.shape == (4, 3, 16, 16) and s.fps == 8 for s in samples)
    assert all(0 <= s.video.min() and s.video.max() <= 1 and " " in s.caption and s.motion >= 0 for s in samples)
    assert len({float(s.video.sum()) for s in samples}) == 10  # every index and epoch another clip
    again = open_source(WORLD).read(3, 1)
    assert torch.equal(again.video, samples[8].video) and again.caption == samples[8].caption
    assert not torch.equal(open_source(replace(WORLD, seed=1))[0].video, samples[0].video)
    with pytest.raises(IndexError):
        source[5]
    assert "square" in sentence(lambda: open_source(replace(WORLD, size=(16, 32))))


def test_slow_clips_of_the_world_in_both_directions() -> None:
    settings = replace(WORLD, frames=16, clips=12, speed=(0.1, 0.15))
    forwards, mixed = open_source(settings), open_source(replace(settings, both_directions=True))
    assert all(forwards[i].motion <= 0.18 for i in range(12))
    assert max(open_source(WORLD)[i].motion for i in range(5)) > 0.3
    turned = 0
    for i in range(12):
        one, other = forwards[i], mixed[i]
        assert one.motion == other.motion
        if not torch.equal(one.video, other.video):
            assert torch.equal(one.video.flip(0), other.video)
            opposite = {"left": "right", "right": "left", "up": "down", "down": "up"}
            assert other.caption.split() == [opposite.get(word, word) for word in one.caption.split()]
            turned += 1
    assert 0 < turned < 12
    for wrong in ((0.2, 0.1), (-0.1, 0.1), (0.5, 1.5)):
        assert "0 <= low <= high <= 1" in sentence(lambda w=wrong: open_source(replace(WORLD, speed=w)))


def test_fingerprints_tell_data_sets_apart(videos: Path, tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("file,caption\n33.mp4,one\n")
    (tmp_path / "d.csv").write_text("file,caption\n33.mp4,another\n")
    settings = replace(SMALL, path=videos)
    all_of_them = [
        settings,
        replace(settings, seed=1),
        replace(settings, stride=2),
        replace(settings, fps=8.0),
        replace(settings, captions=tmp_path / "c.csv"),
        replace(settings, captions=tmp_path / "d.csv"),
        WORLD,
        replace(WORLD, clips=6),
        replace(WORLD, speed=(0.0, 0.15)),
        replace(WORLD, both_directions=True),
    ]
    fingerprints = [open_source(s).fingerprint for s in all_of_them]
    assert len(set(fingerprints)) == len(all_of_them)
    assert [open_source(s).fingerprint for s in all_of_them] == fingerprints
    make_video(videos / "33.mp4", count=25)
    assert open_source(settings).fingerprint != fingerprints[0]


def test_what_a_path_means(videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "0.tar").touch()
    kinds = [guess_kind(path) for path in ("world", videos, "nowhere", tmp_path / "shards", "0.tar")]
    assert kinds == ["world", "folder", "folder", "shards", "shards"]
    (tmp_path / "world").mkdir()
    assert guess_kind("world") == "folder"


if CLIPS.is_dir():

    def test_real_clips() -> None:
        source = open_source(SourceSettings(path=CLIPS, frames=4, size=(32, 48), stride=(1, 4)))
        samples = [source.read(i, 2) for i in range(len(source))]
        assert len(samples) == 6 and all(s.video.shape == (4, 3, 32, 48) for s in samples)
        assert all(0.05 < float(s.video.std()) for s in samples)
