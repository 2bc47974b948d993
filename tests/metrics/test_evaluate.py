"""Evaluation of folders: numbers, resuming, sharing among processes, and files that cannot be read."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from tests.metrics.clips import SETTINGS, counting_reads, drifting, folder
from unstill.data import read_video, write_video
from unstill.errors import UnstillError
from unstill.metrics import (
    RAFT,
    EvaluationSettings,
    FrameEncoder,
    ProxyFeatures,
    first_frame_error,
    frechet_distance,
    image_fidelity,
    inception_score,
    is_dynamic,
    motion_score,
    temporal_flickering,
    text_alignment,
)
from unstill.metrics.evaluate import evaluate
from unstill.metrics.registry import reported_values


def test_numbers_are_those_of_the_functions(tmp_path: Path) -> None:
    made, real = folder(tmp_path / "made", 1.0), folder(tmp_path / "real", 3.0)
    report = evaluate(made, real, SETTINGS, cache=tmp_path / "cache")
    clips = {side: [read_video(file).frames for file in sorted(side.iterdir())] for side in (made, real)}
    scores = {side: [motion_score(clip, "dis", (48, 64)) for clip in clips[side]] for side in clips}
    assert report.scores["motion_score"].value == pytest.approx(sum(scores[made]) / 3)
    assert report.scores["motion_score"].reference == pytest.approx(sum(scores[real]) / 3)
    spread = torch.tensor(scores[made], dtype=torch.float64).std().item() / 3**0.5
    assert report.scores["motion_score"].error == pytest.approx(spread)
    gap = sum(abs(a - b) for a, b in zip(scores[made], scores[real], strict=True)) / 3
    assert report.scores["motion_score_error"].value == pytest.approx(gap)
    steady = sum(temporal_flickering(clip) for clip in clips[made]) / 3
    assert report.scores["temporal_flickering"].value == pytest.approx(steady)
    # the first frame of the reference of the same name is the image
    first = sum(first_frame_error(a, b[0]) for a, b in zip(clips[made], clips[real], strict=True)) / 3
    assert report.scores["first_frame_error"].value == pytest.approx(first)
    extract = ProxyFeatures()
    x, y = (torch.stack([extract(clip) for clip in clips[side]]) for side in (made, real))
    assert report.scores["proxy_frechet_distance"].value == pytest.approx(frechet_distance(x, y), rel=1e-6)
    assert "fvd" not in report.scores
    assert report.scores["motion_score"].count == report.videos == 3
    assert [values["motion_score"] for values in report.by_video.values()] == pytest.approx(scores[made])


def test_report_is_plain_data_and_a_table(tmp_path: Path) -> None:
    report = evaluate(folder(tmp_path / "made", 1.0), None, SETTINGS, cache=tmp_path / "cache")
    content = json.loads(json.dumps(report.as_dict()))
    assert content["scores"]["proxy_colour_fidelity"]["proxy"] is True
    assert content["scores"]["temporal_flickering"]["vbench_normalised"] <= 1
    assert content["scores"]["motion_score"]["unit"] == "px"
    assert content["settings"]["flow"] == "dis" and content["settings"]["features"].startswith("proxy")
    assert any("own first frame" in note for note in content["notes"])
    table = report.table()
    assert table.row_count == len(report.scores) and len(table.columns) == 5


def test_images_and_prompts_by_name(tmp_path: Path) -> None:
    made = folder(tmp_path / "made", 1.0, count=2)
    (tmp_path / "images").mkdir()
    picture = Image.fromarray(drifting(1.0, 0)[0].permute(1, 2, 0).numpy())
    picture.save(tmp_path / "images" / "clip0.png")
    report = evaluate(made, None, SETTINGS, images=tmp_path / "images", cache=tmp_path / "cache")
    assert report.scores["first_frame_error"].count == 1
    assert report.scores["first_frame_error"].value < 0.05
    assert any(note.startswith("One video has no image") for note in report.notes)


class Scripted(torch.nn.Module):
    """Stands for both public TorchScript files: the mean colour, or a distribution over three classes."""

    def forward(self, x: Tensor, rescale: bool = False, resize: bool = False, return_features: bool = False) -> Tensor:
        means = x.float().mean(dim=(2, 3, 4))
        return means if return_features else means.div(50).softmax(1)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_with_every_network(tmp_path: Path, clip_folder: Path, dino_folder: Path) -> None:
    made = tmp_path / "made"
    for number in range(2):
        frames = torch.nn.functional.interpolate(drifting(2.0, number, frames=16).float(), (64, 96), mode="bilinear")
        write_video(made / f"{number}.mp4", frames.div(255).clamp(0, 1), fps=8)
    torch.jit.script(Scripted()).save(tmp_path / "script.pt")
    (tmp_path / "prompts.json").write_text(json.dumps({"0": "a dog"}))
    settings = EvaluationSettings(
        size=(64, 96),
        clip=str(clip_folder),
        dino=str(dino_folder),
        i3d=str(tmp_path / "script.pt"),
        c3d=str(tmp_path / "script.pt"),
        splits=1,
    )
    report = evaluate(made, made, settings, prompts=tmp_path / "prompts.json", cache=tmp_path / "cache")
    clips = [read_video(made / f"{number}.mp4").frames for number in range(2)]
    encoder = FrameEncoder.load_clip(str(clip_folder))
    features = [encoder.images(clip) for clip in clips]
    expected = sum(image_fidelity(part, part[0]) for part in features) / 2
    assert report.scores["clip_image_fidelity"].value == pytest.approx(expected)
    assert report.scores["clip_text_alignment"].count == 1
    alignment = text_alignment(features[0], encoder.text("a dog"))
    assert report.scores["clip_text_alignment"].value == pytest.approx(alignment)
    assert report.scores["subject_consistency"].count == report.scores["background_consistency"].count == 30
    assert report.scores["i2v_subject"].count == 2
    assert report.scores["fvd"].value == 0 and "proxy_frechet_distance" not in report.scores
    rows = torch.stack([clip.float().mean((0, 2, 3)).div(50).softmax(0) for clip in clips])
    assert report.scores["inception_score"].value == pytest.approx(inception_score(rows, 1)[0], rel=1e-5)
    assert set(report.scores) <= set(reported_values())


def test_raft_gives_the_dynamic_degree_as_well(tmp_path: Path) -> None:
    video = torch.nn.functional.interpolate(drifting(2.0, 0, frames=2).float(), (64, 96), mode="bilinear")
    write_video(tmp_path / "video.mp4", video.div(255).clamp(0, 1), fps=8)
    torch.manual_seed(0)
    save_file(RAFT(small=True).state_dict(), tmp_path / "raft.safetensors")
    settings = EvaluationSettings(size=(64, 64), flow="raft", flow_weights=str(tmp_path / "raft.safetensors"))
    report = evaluate(tmp_path / "video.mp4", settings=settings, cache=tmp_path / "cache")
    clip = read_video(tmp_path / "video.mp4").frames
    weights = tmp_path / "raft.safetensors"
    assert report.scores["motion_score"].value == pytest.approx(motion_score(clip, "raft", (64, 64), weights=weights))
    assert report.scores["dynamic_degree"].value == is_dynamic(clip, 8, "raft", weights)


def test_a_second_run_measures_nothing_and_a_changed_file_is_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = folder(tmp_path / "made", 1.0)
    calls = counting_reads(monkeypatch)
    first = evaluate(made, None, SETTINGS, cache=tmp_path / "cache")
    assert len(calls) == 3
    assert evaluate(made, None, SETTINGS, cache=tmp_path / "cache") == first and len(calls) == 3
    (made / "clip1.mp4").rename(made / "clip9.mp4")
    evaluate(made, None, SETTINGS, cache=tmp_path / "cache")
    assert len(calls) == 3
    write_video(made / "clip9.mp4", drifting(2.0, 5), fps=8)
    evaluate(made, None, SETTINGS, cache=tmp_path / "cache")
    assert len(calls) == 4
    evaluate(made, None, EvaluationSettings(size=(48, 64), frames=3), cache=tmp_path / "cache")
    assert len(calls) == 7


def test_stopped_halfway_it_goes_on(tmp_path: Path) -> None:
    made = folder(tmp_path / "made", 1.0)

    def stop(stage: str, done: int, total: int, figures: str) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(made, None, SETTINGS, cache=tmp_path / "cache", progress=stop)
    kept = len(list((tmp_path / "cache").iterdir()))
    whole = evaluate(made, None, SETTINGS, cache=tmp_path / "cache")
    assert len(list((tmp_path / "cache").iterdir())) == kept * 3 // 2
    assert whole == evaluate(made, None, SETTINGS, cache=tmp_path / "other")


def test_bad_files_are_reported_not_fatal(tmp_path: Path) -> None:
    made = folder(tmp_path / "made", 1.0, count=2)
    (made / "text.mp4").write_text("this is no video")
    (made / "cut.mp4").write_bytes((made / "clip0.mp4").read_bytes()[:200])
    write_video(made / "still.mp4", drifting(1.0, 0)[:1], fps=8)
    report = evaluate(made, None, SETTINGS, cache=tmp_path / "cache")
    assert report.videos == 2
    assert {Path(file).name for file in report.skipped} == {"text.mp4", "cut.mp4", "still.mp4"}
    assert "2 frames" in report.skipped[str(made / "still.mp4")]
    assert not list((tmp_path / "cache").glob(".*"))


def test_different_lengths_and_single_files(tmp_path: Path) -> None:
    made = folder(tmp_path / "made", 1.0, count=1)
    write_video(made / "longer.mp4", drifting(1.0, 3, frames=6), fps=8)
    report = evaluate(made, made, SETTINGS, cache=tmp_path / "cache")
    assert any("4 to 6 frames" in note for note in report.notes)
    assert report.scores["proxy_frechet_distance"].value == pytest.approx(0, abs=1e-9)
    alone = evaluate(made / "clip0.mp4", made, SETTINGS, cache=tmp_path / "cache")
    assert alone.videos == 1 and alone.scores["motion_score"].error is None
    assert "proxy_frechet_distance" not in alone.scores
    assert any("at least 2 videos" in note for note in alone.notes)


def test_nothing_to_measure_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "text.mp4").write_text("this is no video")
    (tmp_path / "prompts.json").write_text("[1]")
    made = folder(tmp_path / "made", 1.0, count=1)
    cases = [
        (lambda: evaluate(tmp_path / "empty", settings=SETTINGS), "no videos"),
        (lambda: evaluate(tmp_path / "absent", settings=SETTINGS), "does not exist"),
        (lambda: evaluate(tmp_path / "bad", settings=SETTINGS, cache=tmp_path / "c"), r"^\S*text\.mp4 is not a video"),
        (lambda: evaluate(made, settings=SETTINGS, prompts=tmp_path / "prompts.json"), "one JSON object"),
        (lambda: evaluate(made, settings=SETTINGS, images=tmp_path / "absent"), "no folder of images"),
        (lambda: evaluate(made, settings=EvaluationSettings(flow="raft")), "needs weights"),
        (lambda: evaluate(made, settings=EvaluationSettings(i3d=str(made / "clip0.mp4"))), "cannot be read"),
    ]
    for call, words in cases:
        with pytest.raises(UnstillError, match=words):
            call()


def test_processes_share_the_files_and_read_each_others_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Process 1 of 2 measures every other file, waits, and then reads what process 0 left on disk."""
    made, cache = folder(tmp_path / "made", 1.0, count=4), tmp_path / "cache"
    expected = evaluate(made, None, SETTINGS, cache=tmp_path / "alone")
    measured = counting_reads(monkeypatch)

    class State:
        process_index, num_processes = 1, 2

        def wait_for_everyone(self) -> None:
            assert len(measured) == 2
            monkeypatch.delenv("WORLD_SIZE")
            evaluate(made, None, SETTINGS, cache=cache)  # stands for the other process
            measured.clear()

    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr("accelerate.PartialState", State)
    assert evaluate(made, None, SETTINGS, cache=cache) == expected
    assert not measured


def test_a_file_in_the_cache_that_cannot_be_read_is_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = folder(tmp_path / "made", 1.0)
    first = evaluate(made, None, SETTINGS, cache=tmp_path / "cache")
    files = sorted((tmp_path / "cache").iterdir())
    files[0].write_bytes(b"mine")
    assert evaluate(made, None, SETTINGS, cache=tmp_path / "cache") == first
    assert files[0].read_bytes() == b"mine" and f"{files[0]} cannot be read and is kept" in caplog.text
