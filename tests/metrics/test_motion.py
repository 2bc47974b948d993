"""Motion score against recorded OpenCV values and against motions known by construction."""

from pathlib import Path

import cv2
import pytest
import torch
from safetensors.torch import load_file

from unstill.errors import UnstillError
from unstill.metrics import is_dynamic, motion_response, motion_score, optical_flow, pair_motion, top_motion


GOLDEN = load_file(Path(__file__).parents[1] / "golden" / "metrics" / "motion.safetensors")


@pytest.mark.parametrize("engine", ["farneback", "dis"])
@pytest.mark.parametrize("clip", ["translate", "dog"])
def test_pairs_match_opencv(clip: str, engine: str) -> None:
    pairs = pair_motion(GOLDEN[f"{clip}.frames"], engine, size=None)
    torch.testing.assert_close(pairs, GOLDEN[f"{clip}.{engine}.pairs"], rtol=1e-3, atol=0)


@pytest.mark.parametrize("engine", ["farneback", "dis"])
def test_paper_size_matches_opencv(engine: str) -> None:
    pairs = pair_motion(GOLDEN["dog.frames"], engine)
    torch.testing.assert_close(pairs, GOLDEN[f"dog.{engine}.pairs_450x800"], rtol=1e-3, atol=0)


@pytest.mark.parametrize(("engine", "tolerance"), [("farneback", 0.05), ("dis", 0.01)])
def test_translation_has_its_length_and_direction(engine: str, tolerance: float) -> None:
    video = GOLDEN["translate.frames"]
    assert motion_score(video, engine, size=None, reduction="mean") == pytest.approx(13**0.5, abs=tolerance)
    for field in optical_flow(video, engine):
        assert field.shape == (2, 128, 160)
        assert field[0].median().item() == pytest.approx(3, abs=tolerance)
        assert field[1].median().item() == pytest.approx(-2, abs=tolerance)


def test_reductions_are_one_number_read_three_ways() -> None:
    video = GOLDEN["translate.frames"]
    pairs = pair_motion(video, "dis", size=None)
    total = float(pairs.sum())
    for reduction, expected in {"sum": total, "mean": total / 3, "mean_times_frames": total * 4 / 3}.items():
        assert motion_score(video, "dis", size=None, reduction=reduction) == pytest.approx(expected)


def test_a_still_video_does_not_move() -> None:
    still = GOLDEN["dog.frames"][:1].repeat(3, 1, 1, 1)
    assert motion_score(still, "dis", size=None) == 0
    # Farneback's polynomial fit is not symmetric at the border: its floor is small, but not zero.
    assert motion_score(still, "farneback", size=None, reduction="mean") < 0.002


def test_floating_video_gives_the_score_of_its_bytes() -> None:
    video = GOLDEN["translate.frames"]
    assert motion_score(video.float() / 255, "dis", size=None) == motion_score(video, "dis", size=None)


def test_result_does_not_depend_on_threads_and_setting_survives() -> None:
    before, torch_before = cv2.getNumThreads(), torch.get_num_threads()
    one = pair_motion(GOLDEN["dog.frames"], "dis")
    torch.set_num_threads(2)
    try:
        two = pair_motion(GOLDEN["dog.frames"], "dis")
    finally:
        torch.set_num_threads(torch_before)
    assert torch.equal(one, two)
    assert cv2.getNumThreads() == before


def test_any_callable_is_an_engine() -> None:
    def constant(video: torch.Tensor):
        return (torch.tensor([3.0, 4.0])[:, None, None].expand(2, *video.shape[2:]) for _ in range(len(video) - 1))

    assert motion_score(GOLDEN["dog.frames"], constant) == 15


@pytest.mark.parametrize(
    ("video", "arguments", "words"),
    [
        (torch.zeros(1, 3, 32, 32), {}, "at least 2 frames"),
        (torch.zeros(4, 32, 32), {}, "(F, 3, H, W)"),
        (torch.zeros(4, 3, 32, 32) - 1, {}, "[0, 1]"),
        (torch.full((4, 3, 32, 32), torch.nan), {}, "[0, 1]"),
        (torch.zeros(4, 3, 32, 32, dtype=torch.int64), {}, "uint8"),
        (torch.zeros(4, 3, 32, 32), {"flow": "horn"}, "farneback"),
        (torch.zeros(4, 3, 8, 8), {"size": None}, "16 x 16"),
        (torch.zeros(4, 3, 32, 32), {"reduction": "max"}, "mean_times_frames"),
    ],
)
def test_bad_input_is_one_clear_sentence(video: torch.Tensor, arguments: dict, words: str) -> None:
    with pytest.raises(UnstillError) as error:
        motion_score(video, **arguments)
    assert words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("engine", ["farneback", "dis"])
def test_top_motion_is_the_mean_of_the_largest_twentieth(engine: str) -> None:
    top = top_motion(GOLDEN["dog.frames"], engine)
    torch.testing.assert_close(top.float(), GOLDEN[f"dog.{engine}.top5"], rtol=1e-3, atol=0)


def test_dynamic_degree_follows_its_thresholds() -> None:
    """At 128 px a pair moves above 3 px; of 16 frames at least 4 pairs must."""

    def moves(fast_pairs: int, magnitude: float, frames: int = 16, fps: float = 8) -> bool:
        def engine(video: torch.Tensor):
            for number in range(len(video) - 1):
                yield torch.full((2, 128, 160), magnitude / 2**0.5 if number < fast_pairs else 0.0)

        return is_dynamic(torch.zeros(frames, 3, 128, 160, dtype=torch.uint8), fps, engine)

    assert moves(4, 3.01) and not moves(4, 2.99)
    assert not moves(3, 9.0)
    assert moves(4, 3.01, frames=32, fps=16) and not moves(3, 9.0, frames=32, fps=16)  # thinned to 16 frames
    assert moves(8, 3.01, frames=32, fps=8) and not moves(7, 9.0, frames=32, fps=8)


def test_motion_response_separates_error_bias_and_slope() -> None:
    requested = torch.tensor([0.0, 1.0, 2.0])
    follows = motion_response(requested, requested)
    assert (follows.error, follows.bias, follows.slope) == (0, 0, 1)
    offset = motion_response(requested, requested + 0.5)
    assert (offset.error, offset.bias) == (0.5, 0.5) and offset.slope == pytest.approx(1)
    deaf = motion_response(requested, torch.full((3,), 1.0))
    assert deaf.slope == 0 and deaf.bias == pytest.approx(0) and deaf.error == pytest.approx(2 / 3)
    with pytest.raises(UnstillError, match="per requested"):
        motion_response(requested, torch.zeros(2))
