"""`unstill evaluate` from the outside: table, JSON, files, and mistakes."""

import json

import pytest
import torch

from unstill.data import write_video


@pytest.fixture
def clips(tmp_path):
    generator = torch.Generator().manual_seed(0)
    for number in range(2):
        noise = torch.rand(1, 3, 40, 64, generator=generator)
        write_video(tmp_path / "clips" / f"{number}.mp4", torch.cat([noise.roll(f, -1) for f in range(3)]), 8)
    return tmp_path / "clips"


def test_table_and_json(unstill, clips, tmp_path):
    words = ("evaluate", clips, "--reference", clips, "--size", "own", "--cache", tmp_path / "cache")
    shown = unstill(*words)
    assert shown.exit_code == 0 and "moves, summed" in shown.stdout and "(proxy)" in shown.stdout
    result = json.loads(unstill(*words, "--json", "--out", tmp_path / "result.json").stdout)
    assert result["videos"] == 2 and result["scores"]["motion_score_error"]["value"] == 0
    assert result["settings"]["size"] is None and set(result["by_video"]) == {"0", "1"}
    written = json.loads((tmp_path / "result.json").read_text())
    assert written == result


def test_files_that_cannot_be_read_are_named(unstill, clips, tmp_path):
    (clips / "text.mp4").write_text("no video")
    result = unstill("evaluate", clips, "--size", "own", "--cache", tmp_path / "cache")
    assert result.exit_code == 0 and "text.mp4" in result.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--flow", "raft"), "needs weights"),
        (("--flow", "horn"), "farneback"),
        (("--size", "big"), "WIDTHxHEIGHT"),
        (("--i3d", "absent.pt"), "no weights file"),
        (("--frames", "99"), "None of the 2 videos"),
        (("--aesthetic", "head.pth"), "CLIP"),
    ],
)
def test_mistakes_exit_2_with_a_sentence(unstill, clips, tmp_path, options, words):
    result = unstill("evaluate", clips, "--cache", tmp_path / "cache", *options)
    assert result.exit_code == 2 and words in result.stderr


def test_an_empty_folder_exits_2(unstill, tmp_path):
    (tmp_path / "empty").mkdir()
    result = unstill("evaluate", tmp_path / "empty")
    assert result.exit_code == 2 and "no videos" in result.stderr
