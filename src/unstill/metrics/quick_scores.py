"""
Scores of one video against its picture, and a sentence that compares two videos.

Optical flow alone is no measure of success: it also rises when objects dissolve. A video counts as broken up where
colours x detail, which motion hardly changes, is below `KEPT`, or neighbouring frames hardly agree (`STEADY`).
`KEPT` was chosen on six scenes of the synthetic world with the embedded model at 12 steps, and checked on
six others with other seeds (`python benchmarks/verdict.py`):

| colours x detail | chosen on | checked on |
|---|---|---|
| true renderings, motion 0.3 to 1 | 0.77 to 0.96 | 0.80 to 1.00 |
| plain video, two seeds | 0.76 to 0.92 | 0.76 to 0.91 |
| started at sigma 20 | 0.76 to 0.88 | 0.75 to 0.86 |
| started at 10, where scenes begin to break up | 0.72 to 0.84 | 0.67 to 0.80 |
| started at 5, where most are dissolved | 0.57 to 0.71 | 0.42 to 0.60 |

Six real clips keep 0.93 to 1.00. Structure and coherence have no such threshold: they fall with any motion, down to
0.26 and 0.66 in a real clip of a moving camera. `STEADY` is below that, for frames that are unrelated.
"""

import math

import torch

from unstill.metrics.fidelity import (
    first_frame_error,
    proxy_coherence,
    proxy_colour_fidelity,
    proxy_edge_fidelity,
    proxy_structure_fidelity,
)
from unstill.metrics.motion import VISIBLE_SHARE, pair_motion
from unstill.metrics.onset import onset_time


FLOW_SIDE = 128  # optical flow of smaller frames is unreliable: they are enlarged, and the score is scaled back
SSIM_SIDE = 11  # pixels, the size of SSIM's window
KEPT = 0.72
"""Colour x detail below which a video counts as broken up."""
STEADY = 0.5
"""Coherence below which a video counts as broken up: its frames do not follow from each other."""
ALIKE = 1.25
"""Largest ratio of motion at which no difference is visible."""
SEEDS = 1.5
"""Ratio of motion that another seed also reaches: half of 12 pairs of seeds of one plain video differ by more."""
SLIGHT, CLEAR = 0.03, 0.1
"""Differences of colour x detail: below the first negligible, from the second on clear."""
WAIT = 0.5
"""Smallest difference between two onsets that the sentence mentions, in seconds."""
# Score, label, format.
ROWS = (
    ("reward", "its pictures score, by the reward", "{:.3g}"),  # of a video made from a prompt
    ("motion", "moves, in pixels per frame", "{:.2f}"),
    ("onset", "stands still before it moves for", "{:.1f} s"),  # of a video that moves
    ("first_frame_error", "first frame differs from the picture by", "{:.1%}"),
    ("colour", "keeps the picture's colours (proxy)", "{:.0%}"),
    ("detail", "keeps the picture's detail (proxy)", "{:.0%}"),
    ("structure", "things stay in their places (proxy; motion lowers it)", "{:.0%}"),
    ("coherence", "frames follow from each other (proxy; motion lowers it)", "{:.0%}"),
)


def score_video(video: torch.Tensor, picture: torch.Tensor | None, fps: float | None = None) -> dict[str, float]:
    """
    Scores one video without any network.

    Args:
        video: uint8 (F, 3, H, W).
        picture: uint8 (3, H, W) at the size of the video; `None` compares with frame 0.
        fps: frames per second; without it there is no `onset`.

    Returns:
        `onset`: seconds that a video stands still before it moves, see `motion_onset`; absent if it never moves;
        `motion`: mean optical flow (DIS) in pixels per frame; `motion_share`: the same as a share of the shorter side;
        `first_frame_error`: RMS difference of frame 0 and picture in [0, 1]; `colour`, `detail`, `structure`,
        `coherence`: the weight-free proxies of `unstill.metrics.fidelity` in [0, 1]. The last two need frames of at
        least 11 pixels and are left out below.
    """
    height, width = video.shape[-2:]
    scale = math.ceil(max(1, FLOW_SIDE / min(height, width)))
    pairs = pair_motion(video, flow="dis", size=(height * scale, width * scale)) / scale
    motion = float(pairs.mean())
    scores = {
        "motion": motion,
        "motion_share": motion / min(height, width),
        "colour": proxy_colour_fidelity(video, picture),
        "detail": proxy_edge_fidelity(video, picture),
    }
    if min(height, width) >= SSIM_SIDE:
        scores |= {"structure": proxy_structure_fidelity(video, picture), "coherence": proxy_coherence(video)}
    if picture is not None:
        scores["first_frame_error"] = first_frame_error(video, picture)
    if fps is not None and (onset := onset_time(pairs, fps, VISIBLE_SHARE * min(height, width))) is not None:
        scores["onset"] = onset
    return scores


def kept(scores: dict[str, float]) -> float:
    """Colour x detail, in [0, 1]: how much of the picture is left, regardless of motion."""
    return scores["colour"] * scores["detail"]


def breaks_up(scores: dict[str, float]) -> bool:
    """Whether objects dissolve or frames jump, so that motion means nothing; `scores` are those of `score_video`."""
    return kept(scores) < KEPT or scores.get("coherence", 1.0) < STEADY


def scores_verdict(plain: dict[str, float], improved: dict[str, float]) -> str:
    """One sentence: how much more the improved video moves and what it loses; no claim about broken-up videos."""
    ratio = improved["motion"] / max(plain["motion"], 1e-6)
    if breaks_up(plain) and breaks_up(improved):
        return f"Both videos break up ({_state(plain)}; {_state(improved)}), so their motion means nothing."
    if breaks_up(improved):
        if ratio > ALIKE:
            return f"The improved video moves more because it breaks up: {_state(improved)}."
        return f"The improved video breaks up and the plain one does not: {_state(improved)}."
    if breaks_up(plain):
        return f"The plain video breaks up and the improved one does not: {_state(plain)}."
    if max(plain["motion_share"], improved["motion_share"]) < VISIBLE_SHARE:
        return "Both videos stand nearly still."
    if plain["motion_share"] < VISIBLE_SHARE:
        return "The plain video stands nearly still, the improved one moves."
    lost = kept(plain) - kept(improved)
    if 1 / ALIKE < ratio < ALIKE:
        if abs(lost) < CLEAR:
            return "There is hardly a difference between the videos: another seed would change more."
        moved = "The improved video moves about as much as the plain one"
    elif ratio >= ALIKE:
        moved = f"The improved video moves {ratio:.1f} times as much as the plain one"
        moved += " (another seed can do that too)" if ratio < SEEDS else ""
    else:
        moved = f"The improved video moves less, {ratio:.0%} of the plain one"
    if lost >= CLEAR:
        moved += ", but keeps less of the picture."
    else:
        moved += " and stays as close to the picture." if lost < SLIGHT else ", a little off the picture."
    before, after = plain.get("onset"), improved.get("onset")  # none of videos that never move visibly
    if before is None or after is None or abs(before - after) < WAIT:
        return moved
    return f"{moved} It begins to move after {after:.1f} s, the plain one after {before:.1f} s."


def _state(scores: dict[str, float]) -> str:
    """Describes a broken-up video."""
    if kept(scores) < KEPT:
        return f"{scores['colour']:.0%} of the colours and {scores['detail']:.0%} of the detail are left"
    return "its frames do not follow from each other"
