"""Plots are valid, deterministic SVG with text, tooltips and colours for light and dark."""

import math
import re
import xml.etree.ElementTree as ElementTree

import pytest
import torch

from unstill.lab.bootstrap import Interval
from unstill.lab.plots import Point, Series, curves, curves_picture, differences, heatmap, scatter


SVG = "{http://www.w3.org/2000/svg}"
HERE = Interval(0.5, 0.4, 0.6)
UNKNOWN = Interval(math.nan, math.nan, math.nan)


def draw(kind, name="a <name> $x_1$"):
    if kind == "curves":
        two = [Series(name, [1, 10, 100], [HERE, HERE, UNKNOWN], 0), Series("b", [1, 100], [HERE, HERE], 6, True)]
        return curves(two, x_label="noise", y_label="motion", log_x=True, y_range=(0, 0.45), lines=(0.2,), mark=10)
    if kind == "scatter":
        points = [Point(name, HERE, HERE, 1, True, group="one"), Point("b", HERE, UNKNOWN, 2, group="two")]
        return scatter(points, x_label="noise", y_label="motion")
    if kind == "heatmap":
        return heatmap([(name, [HERE, UNKNOWN]), ("b", [Interval(0, 0, 0), HERE])], ["1", "10"], x_label="noise")
    return differences([(name, HERE, 2), ("b", Interval(0.1, math.nan, math.nan), 3)], x_label="noise")


@pytest.mark.parametrize("kind", ["curves", "scatter", "differences", "heatmap"])
def test_a_plot_is_self_contained(kind):
    svg = draw(kind)
    root = ElementTree.fromstring(svg)
    texts = ["".join(text.itertext()) for text in root.iter(f"{SVG}text")]
    assert "noise" in texts  # text, not outlines
    titles = [title.text for title in root.iter(f"{SVG}title")]
    assert any(title.startswith("a <name> $x_1$") and "0.5 (0.4 to 0.6)" in title for title in titles)
    assert "prefers-color-scheme:dark" in next(root.iter(f"{SVG}style")).text
    assert root.get("aria-label") and "nan" not in " ".join(texts + titles).lower()
    links = [value for part in root.iter() for key, value in part.attrib.items() if key.endswith("href")]
    assert all(link.startswith("#") for link in links)  # nothing from elsewhere


@pytest.mark.parametrize("kind", ["curves", "scatter", "differences", "heatmap"])
def test_a_plot_is_the_same_each_time_whatever_the_style_of_the_caller(kind):
    import matplotlib

    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red"}):
        other = draw(kind)
    assert draw(kind) == other


@pytest.mark.parametrize("kind", ["curves", "scatter", "differences", "heatmap"])
def test_every_colour_has_one_for_dark(kind):
    svg = draw(kind)
    body = svg[svg.index("</style>") :]
    for piece in body.split("#")[1:]:
        if len(piece) > 6 and all(c in "0123456789abcdef" for c in piece[:6]):
            assert piece[6] == ")", piece[:20]  # the fallback of a variable


def test_a_field_of_a_heatmap_is_as_full_as_its_value():
    rows = [("a", [Interval(x, x, x) for x in (0.0, 0.1, 0.4)])]
    svg = heatmap(rows, ["1", "2", "3"], x_label="noise")
    assert re.findall(r"<title>a, (\d): ([\d.]+) ", svg) == [("1", "0"), ("2", "0.1"), ("3", "0.4")]
    fields = svg[svg.index("<title>a, 1") : svg.index("<title>a, 3") + 600]
    assert re.findall(r"opacity: ([\d.]+)", fields)[:2] == ["0", "0.25"]


def test_points_beyond_the_range_are_drawn_at_its_edge():
    high = curves([Series("a", [1, 2], [HERE, Interval(9, 8, 10)], 0)], x_label="x", y_label="y", y_range=(0, 1))
    edge = curves([Series("a", [1, 2], [HERE, Interval(1, 1, 1)], 0)], x_label="x", y_label="y", y_range=(0, 1))

    def heights(svg):
        return [
            use.get("y")
            for use in ElementTree.fromstring(svg).iter(f"{SVG}use")
            if "fill: var(--plot-0" in use.get("style", "")
        ]

    assert heights(high)[-2:] == heights(edge)[-2:]  # the dots, drawn last
    assert float(heights(high)[-1]) > 0


def test_a_plot_without_any_figure_is_drawn_empty():
    svg = curves([Series("a", [1, 2], [UNKNOWN, UNKNOWN], 0)], x_label="x", y_label="y")
    assert ElementTree.fromstring(svg).tag == f"{SVG}svg"


def test_a_plot_as_pixels_shows_its_curves():
    two = [Series("a", [1, 10], [HERE, Interval(0.9, 0.8, 1.0)], 0), Series("b", [1, 10], [HERE, HERE], 1)]
    picture = curves_picture(two, x_label="noise", y_label="motion", log_x=True, y_range=(0, 1.05), dpi=72)
    assert picture.dtype == torch.uint8 and picture.shape == (3, 252, 388)
    for colour in ("#1b6ca8", "#d1571b"):
        wanted = torch.tensor([int(colour[i : i + 2], 16) for i in (1, 3, 5)])[:, None, None]
        assert int((picture.int() - wanted).abs().sum(0).min()) < 12
