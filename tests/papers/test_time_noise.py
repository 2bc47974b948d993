"""The distribution of TimeNoise that is drawn is the one that training draws from."""

import numpy as np
import pytest
import torch

from benchmarks.papers.time_noise import (
    TRAININGS,
    centre_plot,
    density,
    density_plot,
    training_findings,
    trainings_plot,
    trainings_table,
)
from unstill.methods.time_noise import center, sample_level


@pytest.mark.parametrize("t", [0.0, 0.8, 1.0])
def test_the_density_is_that_of_the_draws(t):
    draws = sample_level(t, 1.0, 5.0, torch.randn(200_000, generator=torch.Generator().manual_seed(0))).numpy()
    grid = np.linspace(0.001, 0.999, 2001)
    values = np.array([density(x, center(t, 5.0)) for x in grid])
    cumulated = np.cumsum(values) * (grid[1] - grid[0])
    assert cumulated[-1] == pytest.approx(1, abs=2e-3)
    for share in (0.1, 0.5, 0.9):
        assert (draws < grid[np.searchsorted(cumulated, share)]).mean() == pytest.approx(share, abs=5e-3)


def test_the_released_noise_for_svd_does_not_depend_on_the_noise_of_the_video():
    """t = sigma / 700 with ln sigma ~ N(-1.2, 1.2): the highest of a thousand is t = 0.018."""
    svd = next(one for one in TRAININGS if one.name == "released, SVD")
    paper = TRAININGS[0]
    assert paper.time_at(0.999) == 0.999 and 0.01 < svd.time_at(0.999) < 0.03
    rows = {row[0]: row[2:5] for row in trainings_table()[1]}
    assert len(set(rows["released, SVD"])) == 1 and len(set(rows[paper.name])) == 3


def test_more_flow_without_more_travel_is_half_a_success():
    def about(value):
        return {"value": value, "low": value - 0.01, "high": value + 0.01}

    gained = {"explained": [about(0.1), about(0.2)], "travel": about(0.0), "flow": about(0.3)}
    others = {"constant noise": {"travel": about(-0.1)}, "conditioning augmentation": {"travel": about(0.1)}}
    naive = {"TimeNoise": gained}
    measured = {"sigmas": [16.0, 64.0], "differences": {"clean image (naive)": naive, "TimeNoise": others}}
    found = training_findings(measured)
    assert [one.verdict for one in found] == ["reproduced", "in part", "in part", *["not testable here"] * 2]
    assert "flow +0.3 (0.29 to 0.31)" in found[1].evidence and found[1].needed
    assert (
        len(training_findings(measured | {"differences": {"clean image (naive)": naive, "TimeNoise": {}}})) == 4
    )  # arms that were not trained


def test_every_plot_names_its_curves():
    for svg, names in (
        (density_plot(), ["t = 0", "t = 1"]),
        (centre_plot(), ["a = 1", "a = 5"]),
        (trainings_plot(), ["released, SVD"]),
    ):
        assert all(f">{name}</text>" in svg for name in names) and "nan" not in svg
