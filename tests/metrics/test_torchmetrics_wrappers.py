"""Torchmetrics objects: the same numbers as the functions, and shards that merge to the whole."""

import copy
import pickle

import pytest
import torch
from torch import Tensor

from unstill.errors import UnstillError
from unstill.metrics import (
    FrechetVideoDistance,
    ProxyFeatures,
    VideoInceptionScore,
    VideoMean,
    frame_consistency,
    frechet_distance,
    inception_score,
    motion_score,
)


def videos(n: int, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(3, 3, 24, 32, generator=generator) for _ in range(n)]


class Softmax:
    name = "softmax-of-means"

    def __call__(self, video: Tensor) -> Tensor:
        return (video.flatten(0, 1).mean((1, 2)) * 40).softmax(0)


def test_mean_is_the_mean_of_the_function() -> None:
    score = VideoMean(motion_score, flow="dis", size=None)
    expected = [motion_score(video, "dis", None) for video in videos(4)]
    for video in videos(4):
        score.update(video)
    values = torch.tensor(expected, dtype=torch.float64)
    assert score.compute().item() == pytest.approx(values.mean().item(), rel=1e-12)


def test_vbench_consistency_counts_frames_not_videos() -> None:
    score = VideoMean(frame_consistency)
    generator = torch.Generator().manual_seed(0)
    parts = [torch.randn(frames, 5, generator=generator) for frames in (2, 9)]
    for part in parts:
        score.update(part)
    assert score.compute().item() == pytest.approx(torch.cat([frame_consistency(p) for p in parts]).mean().item())


def test_shards_merge_to_the_whole_in_any_order() -> None:
    real, generated = videos(9, 1), videos(9, 2)
    whole, shards = FrechetVideoDistance(ProxyFeatures()), [FrechetVideoDistance(ProxyFeatures()) for _ in range(3)]
    mean, means = VideoMean(torch.mean), [VideoMean(torch.mean) for _ in range(3)]
    for index in range(9):
        for metric in (whole, shards[index % 3]):
            metric.update(real[index], real=True)
            metric.update(generated[index], real=False)
        mean.update(real[index])
        means[index % 3].update(real[index])
    for order in ([0, 1, 2], [2, 0, 1]):
        merged, merged_mean = copy.deepcopy(shards[order[0]]), copy.deepcopy(means[order[0]])
        for number in order[1:]:
            merged.merge_state(shards[number])
            merged_mean.merge_state(means[number])
        assert torch.equal(merged.compute(), whole.compute())
        assert torch.equal(merged_mean.compute(), mean.compute())


def test_distance_and_inception_score_are_the_functions() -> None:
    distance, score = FrechetVideoDistance(ProxyFeatures(), unbiased=False), VideoInceptionScore(Softmax(), splits=2)
    extract = ProxyFeatures()
    x, y = videos(6, 1), videos(5, 2)
    for video in x:
        distance.update(video, real=True)
        score.update(video)
    for video in y:
        distance.update(video, real=False)
    features = [torch.stack([extract(video) for video in part]) for part in (x, y)]
    assert distance.compute().item() == pytest.approx(frechet_distance(*features, unbiased=False), rel=1e-9)
    expected = inception_score(torch.stack([Softmax()(video) for video in x]), 2)
    assert tuple(float(part) for part in score.compute()) == pytest.approx(expected)


@pytest.mark.filterwarnings("ignore:The ``compute`` method:UserWarning")
def test_reset_and_pickle() -> None:
    score = VideoMean(torch.mean)
    score.update(torch.tensor([1.0, 3.0]))
    again = pickle.loads(pickle.dumps(score))
    assert again.compute() == 2
    again.update(torch.tensor([8.0]))
    assert again.compute() == 5 and score.compute() == 2
    score.reset()
    with pytest.raises(UnstillError, match="nothing to average"):
        score.compute()
    with pytest.raises(UnstillError, match="No real video"):
        FrechetVideoDistance(ProxyFeatures()).compute()
