"""The UCF101 protocol on a folder of the same layout."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.videos import h264_avi, packed_avi
from unstill.data import read_video, write_video
from unstill.errors import UnstillError
from unstill.metrics import ucf101
from unstill.metrics.evaluate import evaluate
from unstill.metrics.inputs import EvaluationSettings


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two classes; five videos last long enough for 16 frames at 3 frames/s, one does not, one is damaged."""
    ramp = torch.arange(0, 64).expand(3, 32, 64)
    for index, (label, frames) in enumerate([("ApplyLipstick", 33)] * 3 + [("YoYo", 33)] * 2 + [("YoYo", 20)]):
        video = torch.stack([(ramp * 2 + 3 * f + 20 * index) % 256 for f in range(frames)]).byte()
        write_video(tmp_path / "UCF-101" / label / f"v_{label}_g01_c{index:02}.mp4", video, 6)
    (tmp_path / "UCF-101" / "YoYo" / "v_YoYo_g09_c01.mp4").write_text("damaged")
    return tmp_path / "UCF-101"


def test_clips_have_the_protocols_shape(root: Path, tmp_path: Path) -> None:
    made = ucf101.prepare(root, tmp_path / "out", count=5)
    prompts = json.loads(made.prompts.read_text())
    assert len(prompts) == 5 and set(prompts.values()) == {"Apply Lipstick", "Yo Yo"}
    for name, image, prompt in made.items():
        source, clip = read_video(root / f"{name}.mp4"), read_video(made.reference / f"{name}.mp4")
        assert len(clip) == 16 and clip.fps == 3 and prompt == ucf101.class_text(name.split("/")[0])
        # 6 frames/s thinned to 3: every second frame; H.264 moves levels a little
        assert (clip.frames.int() - source.frames[:31:2].int()).abs().float().mean() < 3
        picture = torch.frombuffer(bytearray(Image.open(image).tobytes()), dtype=torch.uint8)
        assert torch.equal(picture.view(32, 64, 3), source.frames[0].permute(1, 2, 0))


def moving_squares(count: int, step: int = 1) -> list[np.ndarray]:
    """A bright square that moves `step` pixels per frame to the right over a dark texture, (48, 128, 3) each."""
    texture = np.random.default_rng(0).integers(0, 60, (48, 128, 1), np.uint8).repeat(3, 2)
    pictures = [texture.copy() for _ in range(count)]
    for number, picture in enumerate(pictures):
        picture[12:36, 4 + step * number : 28 + step * number] = 220
    return pictures


@pytest.mark.parametrize("write", [h264_avi, packed_avi])
def test_avi_with_b_frames_gives_the_right_frames(tmp_path: Path, write: Callable[..., Path]) -> None:
    pictures = moving_squares(78)
    write(tmp_path / "UCF-101" / "YoYo" / "v_YoYo_g01_c01.avi", pictures, 15)  # 3 frames/s: every fifth
    made = ucf101.prepare(tmp_path / "UCF-101", tmp_path / "out", count=1)
    clip = read_video(made.reference / "YoYo" / "v_YoYo_g01_c01.mp4")
    expected = torch.from_numpy(np.stack(pictures[:76:5])).permute(0, 3, 1, 2)
    assert (clip.frames.int() - expected.int()).abs().float().mean() < 5
    # The square's centre tells the frame: a wrong one is off by a pixel at least.
    columns = (clip.frames[:, :, 12:36].float().mean((1, 2)) > 120).float()
    centres = (columns * torch.arange(128)).sum(1) / columns.sum(1)
    assert (centres - (15.5 + 5 * torch.arange(16))).abs().max() < 0.6


def test_evaluate_measures_an_avi_with_b_frames_as_the_mp4(tmp_path: Path) -> None:
    pictures = moving_squares(30)
    packed_avi(tmp_path / "avi" / "clip.avi", pictures, 12)
    write_video(tmp_path / "mp4" / "clip.mp4", torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2), 12)
    settings = EvaluationSettings(size=(48, 128))
    scores = [evaluate(tmp_path / kind, settings=settings, cache=tmp_path / "cache").scores for kind in ("avi", "mp4")]
    assert scores[0]["motion_score"].value == pytest.approx(scores[1]["motion_score"].value, rel=0.05)


def test_stopped_and_started_again(root: Path, tmp_path: Path) -> None:
    made = ucf101.prepare(root, tmp_path / "out", count=5)
    calls: list[tuple[str, int]] = []

    def animate(image: Image.Image, prompt: str, number: int) -> list[Image.Image]:
        if len(calls) == 2:
            calls.append(("stopped", -1))
            raise KeyboardInterrupt
        calls.append((prompt, number))
        return [image.rotate(number + f) for f in range(16)]

    with pytest.raises(KeyboardInterrupt):
        ucf101.generate_videos(made, animate)
    ucf101.generate_videos(made, animate)
    assert [number for _, number in calls] == [0, 1, -1, 2, 3, 4]
    assert ucf101.prepare(root, tmp_path / "out", count=5) == made

    report = evaluate(
        made.generated,
        made.reference,
        EvaluationSettings(size=(32, 64), frames=4),
        images=made.images,
        prompts=made.prompts,
        cache=tmp_path / "cache",
    )
    assert report.videos == 5 and report.scores["motion_score_error"].count == 5
    assert report.scores["first_frame_error"].count == 5 and not report.skipped


def test_smaller_counts_are_part_of_larger_ones(root: Path, tmp_path: Path) -> None:
    few = ucf101.prepare(root, tmp_path / "few", count=2)
    many = ucf101.prepare(root, tmp_path / "many", count=5)
    assert {name for name, *_ in few.items()} < {name for name, *_ in many.items()}


def test_errors(root: Path, tmp_path: Path) -> None:
    with pytest.raises(UnstillError, match="Only 5 of the 7 videos"):
        ucf101.prepare(root, tmp_path / "out", count=6)
    with pytest.raises(UnstillError, match="subfolder of videos"):
        ucf101.prepare(root / "YoYo", tmp_path / "out")
    with pytest.raises(UnstillError, match="not prepared"):
        list(ucf101.Ucf101(tmp_path / "nothing").items())


@pytest.mark.parametrize("content", ["null", "[]", '{"a": 1}', '{"../a": "x"}', '{"/a": "x"}', "{", "[" * 20_000])
def test_prompts_that_were_damaged_are_named(tmp_path, content):
    (tmp_path / "prompts.json").write_text(content)
    with pytest.raises(UnstillError, match="prompts.json is damaged .*; call ucf101.prepare again"):
        list(ucf101.Ucf101(tmp_path).items())


def test_what_is_there_already_is_kept(root: Path, tmp_path: Path) -> None:
    made = ucf101.prepare(root, tmp_path / "out", count=2)
    (name, image, _), _ = made.items()
    video = made.reference / f"{name}.mp4"
    image.write_bytes(b"mine")
    video.unlink()
    ucf101.prepare(root, tmp_path / "out", count=3)  # prompts.json of the first call is replaced
    assert image.read_bytes() == b"mine" and video.exists() and len(list(made.items())) == 3


@pytest.mark.parametrize("earlier", [True, False])
def test_prompts_of_the_users_are_not_overwritten(root: Path, tmp_path: Path, earlier: bool) -> None:
    made = ucf101.Ucf101(tmp_path / "out")
    if earlier:
        ucf101.prepare(root, made.folder, count=1)
    made.folder.mkdir(exist_ok=True)
    made.prompts.write_text('{"mine": "mine"}')
    before = sorted(made.folder.rglob("*"))
    with pytest.raises(UnstillError, match="prompts.json exists already, and unstill did not write it"):
        ucf101.prepare(root, made.folder, count=2)
    assert made.prompts.read_text() == '{"mine": "mine"}' and sorted(made.folder.rglob("*")) == before
