"""
Metrics as torchmetrics objects: `update` with one video at a time, `compute`, and merging across processes.

Every object keeps one number (or feature vector) per video and computes the result from all of them at the end, with
sums that are rounded once: shards merged in any order give bit for bit the result of a single run.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from unstill.errors import UnstillError
from unstill.metrics.features import VideoFeatures
from unstill.metrics.frechet import frechet_distance, inception_score
from unstill.metrics.video_checks import check_video


try:
    from torchmetrics import Metric
    from torchmetrics.utilities import dim_zero_cat
except ImportError as error:
    raise UnstillError("Metric objects need torchmetrics: pip install 'unstill[metrics]'.") from error


class VideoMean(Metric):
    """
    Mean over videos of any function of a video, such as `motion_score` or `proxy_colour_fidelity`.

    Of a function that returns several values, such as `frame_consistency`, each value counts, as in VBench.

    Args:
        function: called with the arguments of `update`; returns a number, a bool, or a tensor of values.
        **settings: passed to `function` with every call.

    Example:
        >>> score = VideoMean(motion_score, flow="dis")
        >>> for video in videos:
        ...     score.update(video)
        >>> score.compute()
    """

    full_state_update = False
    values: list[Tensor]

    def __init__(self, function: Callable[..., float | Tensor], **settings: Any) -> None:
        super().__init__()
        self.function, self.settings = function, settings
        self.add_state("values", default=[], dist_reduce_fx="cat")

    def update(self, *arguments: Any) -> None:
        """Adds one video: the arguments are those of the function."""
        value = self.function(*arguments, **self.settings)
        self.values.append(torch.as_tensor(value, dtype=torch.float64).reshape(-1).to(self.device))

    def compute(self) -> Tensor:
        """The mean, float64."""
        if isinstance(self.values, list) and not self.values:
            raise UnstillError("There is nothing to average yet; call update with a video first.")
        values = dim_zero_cat(self.values).tolist()
        return torch.tensor(math.fsum(values) / len(values), dtype=torch.float64)


class FrechetVideoDistance(Metric):
    """
    Frechet distance between the features of real and generated videos.

    With `I3D` as extractor this is FVD; with `ProxyFeatures` it is a proxy that only shows trends.

    Args:
        extractor: `unstill.metrics.I3D`, `ProxyFeatures`, or any other.
        unbiased: see `frechet_distance`.
    """

    full_state_update = False
    higher_is_better = False
    real: list[Tensor]
    generated: list[Tensor]

    def __init__(self, extractor: VideoFeatures, unbiased: bool = True) -> None:
        super().__init__()
        self.extractor, self.unbiased = extractor, unbiased
        self.add_state("real", default=[], dist_reduce_fx="cat")
        self.add_state("generated", default=[], dist_reduce_fx="cat")

    def update(self, video: Tensor, real: bool) -> None:
        """Adds one video, uint8 or float in [0, 1], (F, 3, H, W)."""
        check_video(video)
        features = self.real if real else self.generated
        features.append(self.extractor(video)[None].to(self.device))

    def compute(self) -> Tensor:
        """The distance, float64."""
        sides = []
        for name, features in (("real", self.real), ("generated", self.generated)):
            if isinstance(features, list) and not features:
                raise UnstillError(f"No {name} video was counted; call update with some first.")
            sides.append(_in_order(dim_zero_cat(features)))
        return torch.tensor(frechet_distance(sides[0], sides[1], self.unbiased), dtype=torch.float64)


class VideoInceptionScore(Metric):
    """
    Inception score of generated videos: (mean, std) over `splits`. With `C3D` on UCF101 it is the usual one.

    Args:
        classifier: maps a video to class probabilities, such as `unstill.metrics.C3D`.
        splits, shuffle_seed: see `inception_score`. The value depends on the order of the videos if there is more than
            one split, and processes merge in the order of their ranks.
    """

    full_state_update = False
    higher_is_better = True
    probabilities: list[Tensor]

    def __init__(self, classifier: VideoFeatures, splits: int = 10, shuffle_seed: int | None = None) -> None:
        super().__init__()
        self.classifier, self.splits, self.shuffle_seed = classifier, splits, shuffle_seed
        self.add_state("probabilities", default=[], dist_reduce_fx="cat")

    def update(self, video: Tensor) -> None:
        """Adds one video, uint8 or float in [0, 1], (F, 3, H, W)."""
        check_video(video)
        self.probabilities.append(self.classifier(video)[None].to(self.device))

    def compute(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation over the splits, float64."""
        if isinstance(self.probabilities, list) and not self.probabilities:
            raise UnstillError("No video was counted; call update with some first.")
        rows = dim_zero_cat(self.probabilities)
        mean, deviation = inception_score(rows, self.splits, self.shuffle_seed)
        return torch.tensor(mean, dtype=torch.float64), torch.tensor(deviation, dtype=torch.float64)


def _in_order(rows: Tensor) -> Tensor:
    """Sorts rows (n, d), so that the rounding does not depend on the order in which shards are merged."""
    rows = rows.cpu()
    for column in reversed(range(min(rows.shape[1], 4))):  # enough to distinguish real features
        rows = rows[rows[:, column].sort(stable=True).indices]
    return rows
