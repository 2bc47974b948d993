"""The sentence that compares two videos: no praise of a video that breaks up, no difference that is noise."""

import json
from pathlib import Path

import pytest
import torch

from unstill.data import synthetic_world
from unstill.metrics.quick_scores import breaks_up, score_video, scores_verdict


# What benchmarks/verdict.py scored: the embedded model, plain and started at sigma 20, 10 and 5, and true renderings.
SCORED = json.loads((Path(__file__).parents[1] / "golden/metrics/verdict.json").read_text())
SETS = list(SCORED)


def sound(**changes: float) -> dict[str, float]:
    scores = {"motion": 0.5, "motion_share": 0.005, "colour": 0.9, "detail": 0.97, "structure": 0.8, "coherence": 0.9}
    return scores | changes


@pytest.mark.parametrize("scenes", SETS)
def test_what_dissolves_is_not_praised(scenes: str) -> None:
    rows = SCORED[scenes]
    said = [scores_verdict(plain, dissolved) for plain, dissolved in zip(rows["200"], rows["5"], strict=True)]
    assert len(said) == 6
    assert all(words.startswith("The improved video moves more because it breaks up: ") for words in said), said
    assert all("of the colours and" in words for words in said)
    both = [scores_verdict(one, other) for one, other in zip(rows["5"], rows["5"], strict=True)]
    assert all(words.startswith("Both videos break up (") and "means nothing" in words for words in both)


@pytest.mark.parametrize("scenes", SETS)
def test_motion_that_breaks_nothing_up_is_not_blamed(scenes: str) -> None:
    rows = SCORED[scenes]
    for name in ("200", "200, another seed", "20", "true 0.3", "true 0.7", "true 1"):
        assert not any(breaks_up(scores) for scores in rows[name]), name
    true = [scores_verdict(still, moving) for still, moving in zip(rows["true 0.3"], rows["true 0.7"], strict=True)]
    assert sum("times as much" in words for words in true) >= 4, true


def test_every_sentence() -> None:
    plain, broken = sound(), sound(motion=1.4, motion_share=0.014, colour=0.66, detail=0.87)
    assert scores_verdict(plain, broken) == (
        "The improved video moves more because it breaks up: 66% of the colours and 87% of the detail are left."
    )
    assert scores_verdict(plain, sound(colour=0.6)) == (
        "The improved video breaks up and the plain one does not: 60% of the colours and 97% of the detail are left."
    )
    assert scores_verdict(broken, plain).startswith("The plain video breaks up and the improved one does not: 66% of")
    assert scores_verdict(broken, broken).endswith("so their motion means nothing.")
    assert scores_verdict(plain, sound(motion=2.0, coherence=0.3)) == (
        "The improved video moves more because it breaks up: its frames do not follow from each other."
    )
    still = sound(motion=0.01, motion_share=0.0001)
    assert scores_verdict(still, still) == "Both videos stand nearly still."
    assert scores_verdict(still, plain) == "The plain video stands nearly still, the improved one moves."
    for motion in (0.42, 0.5, 0.6):
        assert scores_verdict(plain, sound(motion=motion)).startswith(
            "There is hardly a difference between the videos"
        )
    assert scores_verdict(plain, sound(motion=0.7)) == (
        "The improved video moves 1.4 times as much as the plain one (another seed can do that too) and stays as "
        "close to the picture."
    )
    late, soon = {**plain, "onset": 1.25}, {**sound(motion=1.0), "onset": 0.25}
    assert scores_verdict(late, soon).endswith(
        "stays as close to the picture. It begins to move after 0.2 s, the plain one after 1.2 s."
    )
    assert "begin" not in scores_verdict(plain, soon) + scores_verdict({**late, "onset": 0.5}, soon)
    assert scores_verdict(plain, sound(motion=1.0, colour=0.85)) == (
        "The improved video moves 2.0 times as much as the plain one, a little off the picture."
    )
    assert scores_verdict(plain, sound(motion=1.0, colour=0.78)).endswith("but keeps less of the picture.")
    assert scores_verdict(plain, sound(motion=0.5, colour=0.78)).startswith("The improved video moves about as much")
    assert scores_verdict(plain, sound(motion=0.2)).startswith("The improved video moves less, 40% of the plain one")


def test_a_video_that_is_made_to_dissolve_breaks_up_and_one_that_moves_does_not() -> None:
    g = torch.Generator().manual_seed(8)
    scene = synthetic_world.sample_scene(2, g, collage=0.0)
    video = synthetic_world.render(scene, synthetic_world.sample_motion(scene, g, level=0.6), 8).video
    for clip in (video * 255).round().byte():
        assert not breaks_up(score_video(clip, clip[0]))
        grey = clip.float() * 0.35 + 0.65 * 128  # colours go, as at too low a start
        assert breaks_up(score_video(torch.cat([clip[:1], grey[1:].byte()]), clip[0]))
        tiles = clip.unflatten(3, (12, 8)).unflatten(2, (12, 8))  # (F, 3, 12, 8, 12, 8); colours stay, places do not
        tiles = tiles.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)
        mixed = torch.stack([frame[torch.randperm(144, generator=g)] for frame in tiles])
        confetti = mixed.unflatten(1, (12, 12)).permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)
        assert breaks_up(score_video(confetti, clip[0]))


def test_frames_too_small_for_ssim_are_scored_without() -> None:
    clip = torch.randint(0, 255, (3, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    scores = score_video(clip, None)
    assert "coherence" not in scores and scores_verdict(scores, scores)
