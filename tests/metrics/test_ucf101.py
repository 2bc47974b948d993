"""The UCF101 protocol on a folder of the same layout."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from unstill.data import read_video, write_video
from unstill.errors import UnstillError
from unstill.metrics import ucf101
from unstill.metrics.evaluate import evaluate
from unstill.metrics.measure import Settings


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
        ucf101.generate(made, animate)
    ucf101.generate(made, animate)
    assert [number for _, number in calls] == [0, 1, -1, 2, 3, 4]
    assert ucf101.prepare(root, tmp_path / "out", count=5) == made

    report = evaluate(
        made.generated,
        made.reference,
        Settings(size=(32, 64), frames=4),
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
