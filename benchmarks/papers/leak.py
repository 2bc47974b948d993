"""The leakage paper's own measurements (Fig. 1 and 2, Sec. 3), judged by a diagnosis."""

from __future__ import annotations

from benchmarks.papers.verdicts import Finding, Judged, sign, together
from unstill.lab.comparison_plots import Plot
from unstill.lab.diagnosis_plots import SOURCES, plots, response_plot
from unstill.lab.diagnosis_report import FEW
from unstill.lab.interval_text import between, number, signed
from unstill.lab.leakage import Diagnosis
from unstill.lab.motion_response import ResponseCurve


PAPER = "leakage paper"


def findings(found: Diagnosis, response: ResponseCurve | None) -> list[Finding]:
    """Claims about one-step predictions, and, with a response, about sampled videos."""
    made = [
        Finding(
            "At high noise one-step predictions move less than the clips.",
            f"{PAPER}, Fig. 2",
            *_less_motion(found),
            "The paper reads motion by optical flow, which also rises with flicker; explained motion does not, but "
            "even the best possible model explains less than all.",
        ),
        Finding(
            "The noisier the clip, the less its prediction moves.",
            f"{PAPER}, Fig. 2",
            *_falling(found),
        ),
        Finding(
            "The reason is the image: the model copies it, where the clip still tells of motion.",
            f"{PAPER}, Sec. 3",
            *_leakage(found),
            "A model that is no smaller than its task: this one also loses motion because it is not good enough, "
            "and that counts here as far as its image changes the prediction. The best possible is known on rendered "
            "clips only, and optimistic at middle levels.",
        ),
    ]
    if response is not None:
        made.append(
            Finding(
                "Videos move less than is asked for, and more so the more is asked for.",
                f"{PAPER}, Fig. 1",
                *_following(response),
                "A model without guidance on the motion level, which the embedded pipeline has: it makes videos "
                "follow the level. What is asked for is the motion of a rendered scene, what is measured its optical "
                "flow.",
            )
        )
    return made


def figures(found: Diagnosis, response: ResponseCurve | None) -> list[Plot]:
    present = [source for source in SOURCES if source in found.curves]
    names = ("explained", *(["leakage"] if found.leak else []), "flow", "first-frame")
    made = [Plot(name, *plot) for name, plot in zip(names, plots(found, present), strict=True)]
    return made if response is None else [*made, Plot("response", *response_plot(response))]


def _at(found: Diagnosis, index: int) -> str:
    return f"{found.unit} {number(found.levels[index].value)}"


def _less_motion(found: Diagnosis) -> Judged:
    flow, explained = found.curves["image"]["flow"][0], found.curves["image"]["explained"][0]
    said = f"at {_at(found, 0)} flow is {between(flow)} of the clips', explained motion {between(explained)}"
    if "reference" in found.curves:
        said += f", of the best possible model {between(found.curves['reference']['explained'][0])}"
    return ("reproduced" if flow.high < 1 else "not reproduced" if flow.low >= 1 else "undecided"), said


def _falling(found: Diagnosis) -> Judged:
    parts: list[Judged] = []
    for words, quantity in (("flow", "flow"), ("explained motion", "explained")):
        high, low = (found.curves["image"][quantity][i].value for i in (0, -1))
        ends = f"{words} {number(high)} at {_at(found, 0)}, {number(low)} at {_at(found, -1)}"
        parts.append((sign(found.falls[quantity]), f"{ends}: {signed(found.falls[quantity])}"))
    return together(parts)


def _leakage(found: Diagnosis) -> Judged:
    if not found.leak:
        return "not testable here", "this model sees no image"
    exact = "reference" in found.curves
    worst = max(range(len(found.leak)), key=lambda i: found.leak[i].value)
    sure = [i for i, one in enumerate(found.leak) if one.low > FEW] if exact else []
    said = (
        f"leakage {between(found.leak[0])} at {_at(found, 0)}, at most {between(found.leak[worst])} at "
        f"{_at(found, worst)}" + ("" if exact else ", as upper bounds")
    )
    gained = [_at(found, i) for i, one in enumerate(found.certain) if one.low > 0]
    said += f"; with less of its image it certainly explains more at {', '.join(gained) or 'no level'}"
    if exact and 0 in sure:
        return "reproduced", said
    if sure:
        return "in part", said
    return ("not reproduced" if exact and found.leak[worst].high < FEW else "undecided"), said


def _following(response: ResponseCurve) -> Judged:
    ends = [
        f"{number(asked)} asked: {between(one)}"
        for asked, one in ((response.requested[i], response.measured[i]) for i in (0, -1))
    ]
    said = f"{'; '.join(ends)}; slope {between(response.slope)}"
    lazy, short = response.slope.high < 1, response.measured[-1].high < response.requested[-1]
    if lazy and short:
        return "reproduced", said
    return ("in part" if lazy or short else "not reproduced"), said
