"""Motion onset on motions known by construction."""

import pytest
import torch

from tests.metrics.clips import SETTINGS, drifting
from unstill.data import write_video
from unstill.errors import UnstillError
from unstill.metrics import motion_onset, motion_score, onset_time
from unstill.metrics.evaluate import evaluate
from unstill.metrics.quick_scores import score_video


@pytest.mark.parametrize(
    ("motion", "seconds"),
    [
        ([2.0] * 8, 0.0),  # steady
        ([0.1] * 4 + [2.0] * 4, 1.0),  # still for four pairs at 4 frames/s
        ([0.05] * 7 + [2.0], 1.75),  # moves only at the very end
        ([2.0, 0.1, 0.1, 0.1, 2.0, 2.0, 2.0, 2.0], 1.0),  # a jump from the first frame to the second is no motion
        ([1.0, 1.0, 1.0, 1.0, 6.0, 6.0, 1.0, 1.0], 0.0),  # moves before it moves more
        ([0.0, 0.3, 0.6, 0.9, 1.2, 1.5, 1.8, 2.1], 0.25),  # accelerates: the mean is 1.05, a quarter of it 0.2625
        ([0.0] * 8, None),
    ],
)
def test_onset_of_known_motion(motion: list[float], seconds: float | None) -> None:
    assert onset_time(torch.tensor(motion, dtype=torch.float64), fps=4) == seconds


def test_motion_below_the_floor_is_none() -> None:
    motion = torch.tensor([0.05, 0.05, 0.3, 0.3])
    assert onset_time(motion, fps=2) == 0
    assert onset_time(motion, fps=2, floor=0.1) == 1
    assert onset_time(motion, fps=2, floor=0.5) is None
    assert onset_time(motion, fps=2, share=0.5) == 1
    with pytest.raises(UnstillError, match="frame rate"):
        onset_time(motion, fps=0)


def late_start(still: int, moving: int) -> torch.Tensor:
    video = drifting(2.0, seed=0, frames=moving)
    return torch.cat([video[:1].repeat(still, 1, 1, 1), video])


def test_onset_of_a_video() -> None:
    assert motion_onset(late_start(4, 4), fps=8, size=(48, 64)) == 0.5
    assert motion_onset(late_start(0, 4), fps=8, size=(48, 64)) == 0
    assert motion_onset(late_start(4, 4)[:4], fps=8, size=(48, 64)) is None


def test_evaluate_reports_seconds_of_the_videos_that_move(tmp_path) -> None:
    for name, video in {"late": late_start(4, 4), "soon": late_start(0, 8), "never": late_start(7, 1)}.items():
        write_video(tmp_path / "made" / f"{name}.mp4", video, fps=8)
    report = evaluate(tmp_path / "made", None, SETTINGS, cache=tmp_path / "cache")
    by_video = {name: values.get("motion_onset") for name, values in report.by_video.items()}
    assert by_video == {"late": 0.5, "soon": 0.0, "never": None}
    assert report.scores["motion_onset"].value == 0.25 and report.scores["motion_onset"].count == 2


def test_quick_scores_have_it_where_the_rate_is_known() -> None:
    late = late_start(4, 4)
    assert score_video(late, None, fps=8)["onset"] == 0.5
    assert "onset" not in score_video(late, None) and "onset" not in score_video(late[:4], None, fps=8)
    assert score_video(late, None)["motion"] == motion_score(late, "dis", (128, 192), "mean") / 4
