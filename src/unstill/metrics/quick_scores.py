"""Scores of one video against its picture, and the sentence that says what they mean."""

import math

import torch

from unstill.metrics.fidelity import first_frame_error, proxy_colour_fidelity, proxy_edge_fidelity
from unstill.metrics.motion import pair_motion
from unstill.metrics.onset import onset_time


FLOW_SIDE = 128  # optical flow of smaller frames is unreliable: they are enlarged, and the score scaled back
# Share of the shorter side per frame below which nobody sees motion; estimators read this much from noise.
STILL = 0.0015
# Names of scores, what they are called, how they are written.
ROWS = (
    ("reward", "its pictures score, by the reward", "{:.3g}"),  # where it was made of words
    ("motion", "moves, in pixels per frame", "{:.2f}"),
    ("onset", "stands still before it moves for", "{:.1f} s"),  # of a video that moves
    ("first_frame_error", "first frame differs from the picture by", "{:.1%}"),
    ("colour", "keeps the picture's colours (proxy)", "{:.0%}"),
    ("detail", "keeps the picture's detail (proxy)", "{:.0%}"),
)


def measure(video: torch.Tensor, picture: torch.Tensor | None, fps: float | None = None) -> dict[str, float]:
    """
    Args:
        video: uint8 (F, 3, H, W).
        picture: uint8 (3, H, W) at the size of the video; `None` compares with frame 0.
        fps: frames per second; without it there is no `onset`.

    Returns:
        `onset`: seconds that a video stands still before it moves, see `motion_onset`; none for one that never moves;
        `motion`: mean optical flow (DIS) in pixels per frame; `motion_share`: the same as a share of the shorter side;
        `first_frame_error`: RMS difference of frame 0 and picture in [0, 1]; `colour`, `detail`: weight-free proxies
        of fidelity in [0, 1].
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
    if picture is not None:
        scores["first_frame_error"] = first_frame_error(video, picture)
    if fps is not None and (onset := onset_time(pairs, fps, STILL * min(height, width))) is not None:
        scores["onset"] = onset
    return scores


def verdict(plain: dict[str, float], improved: dict[str, float]) -> str:
    """One sentence: how much more, and at what price."""
    if max(plain["motion_share"], improved["motion_share"]) < STILL:
        return "Both videos stand nearly still."
    if plain["motion_share"] < STILL:
        return "The plain video stands nearly still, the improved one moves."
    ratio = improved["motion"] / max(plain["motion"], 1e-6)
    if ratio >= 1.05:
        moved = f"The improved video moves {ratio:.1f} times as much as the plain one"
    elif ratio > 0.95:
        moved = "The improved video moves as much as the plain one"
    else:
        moved = f"The improved video moves less, {ratio:.0%} of the plain one"
    lost = max(plain[key] - improved[key] for key in ("colour", "detail"))
    if lost > 0.1:
        return f"{moved}, and keeps less of the picture."
    return f"{moved} and stays as close to the picture." if lost < 0.02 else f"{moved}, a little off the picture."
