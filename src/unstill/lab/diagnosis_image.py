"""What a diagnosis reports about the image itself: the attention to it, and the motion that it takes away."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unstill.lab.diagnosis_plots import level_axis
from unstill.lab.html_report import Film, Page
from unstill.lab.image_gap import ImageGap
from unstill.lab.interval_text import between, number, signed
from unstill.lab.leakage import Diagnosis
from unstill.lab.plots import Series, curves, differences, heatmap


if TYPE_CHECKING:
    from unstill.lab.reference_attention import AttentionByLevel


def attention_sentence(attention: AttentionByLevel, diagnosis: Diagnosis) -> str:
    """How much attention the first frame gets at the highest level and at the lowest, and its even share."""
    first, last = diagnosis.levels[0], diagnosis.levels[-1]
    return (
        f"At {diagnosis.unit} {number(first.value)} the first frame gets {between(attention.mean[0])} of the "
        f"attention of the later ones, {attention.mean[0].value / attention.uniform:.2g} times its even share of "
        f"{number(attention.uniform)}; at {number(last.value)} it gets {between(attention.mean[-1])}."
    )


def gap_sentence(gap: ImageGap) -> str:
    """The motion with and without the image, and whether the difference is certain."""
    if gap.gap.known and gap.gap.high < 0:
        effect = "The image takes motion away"
    elif gap.gap.known and gap.gap.low > 0:
        effect = "The image adds motion"
    else:
        effect = "The image has no certain effect on the amount of motion"
    return (
        f"{effect}: videos of a text alone move {between(gap.without)}, those of the same texts with the former's "
        f"first frame {between(gap.with_image)}; the difference is {signed(gap.gap)}."
    )


def add_attention(page: Page, attention: AttentionByLevel, diagnosis: Diagnosis) -> None:
    """The section about attention, with two plots."""
    page.heading("How much does it look at the first frame?", attention_sentence(attention, diagnosis))
    page.plots(attention_plots(attention, diagnosis))


def attention_plots(attention: AttentionByLevel, diagnosis: Diagnosis) -> list[tuple[str, str, str]]:
    """Title, what to look at, and plot: by level, and by level and attention."""
    x = [level.value for level in diagnosis.levels]
    layers = range(len(attention.mass[0]))
    most = max(layers, key=lambda i: max(row[i].value for row in attention.mass))
    series = [Series("mean", x, attention.mean, 1)]
    if len(layers) > 1:
        series.append(Series(f"attention {most + 1}", x, [row[most] for row in attention.mass], 3))
    highest = max(share.value for row in attention.mass for share in row)
    backwards = range(len(x) - 1, -1, -1)  # as the axis of the plots beside it
    return [
        (
            "Attention to the first frame",
            f"The thin line is the even share, 1 / latent frames. Attention {most + 1} is the one with the most.",
            curves(series, y_label="share of attention", lines=(attention.uniform,), **level_axis(diagnosis)),
        ),
        (
            "By attention and noise level",
            f"Self-attentions in the order in which the network computes them; full colour is {number(highest)}.",
            heatmap(
                [(str(i + 1), [attention.mass[level][i] for level in backwards]) for i in layers],
                [number(x[level]) for level in backwards],
                x_label=level_axis(diagnosis)["x_label"],
            ),
        ),
    ]


def add_gap(page: Page, gap: ImageGap, films: dict[str, list[Film]]) -> None:
    """The section about the motion with and without an image, with a plot and a pair of videos."""
    page.heading(
        "What does it lose by its image?",
        "Each text is made into a video without an image, and into another with the first frame of that video.",
    )
    page.note(gap_sentence(gap))
    page.plots([gap_plot(gap)])
    if films:
        names = (("a text alone", "without"), ("with its first frame", "with"))
        page.films(3, [("the first pair", None), *((name, films[key][0]) for name, key in names)])


def gap_plot(gap: ImageGap) -> tuple[str, str, str]:
    """Title, what to look at, and the plot."""
    rows = [("a text alone", gap.without, 1), ("with its first frame", gap.with_image, 3), ("difference", gap.gap, 6)]
    about = "Optical flow in units of the embedded model's motion level. Left of zero, the image takes motion away."
    return "Motion with and without an image", about, differences(rows, x_label="motion")
