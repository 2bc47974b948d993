"""Settings of an evaluation, and the networks and options that they provide to its metrics."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unstill.errors import UnstillError
from unstill.metrics.c3d import C3D
from unstill.metrics.encoders import FrameEncoder
from unstill.metrics.features import ProxyFeatures
from unstill.metrics.flow import flow_engine
from unstill.metrics.i3d import I3D
from unstill.metrics.motion import PAPER_SIZE
from unstill.metrics.weights import file_hash


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationSettings:
    """
    How videos are read, and which networks measure them.

    The defaults need no downloads; a metric is computed only if the network that it needs is given.

    Attributes:
        frames: read this many frames of every video; None reads all.
        fps: read the videos at this many frames per second; None reads every frame.
        flow: optical flow, "dis", "farneback" or "raft".
        flow_weights: of RAFT, see `unstill.metrics.flow_engine`.
        size: (height, width) that the flow is computed at; None leaves the size of the videos.
        clip: name or folder of a CLIP for transformers.
        dino: name or folder of a DINO for transformers.
        aesthetic: file of LAION's linear head for CLIP ViT-L/14 (`sa_0_4_vit_l_14_linear.pth`).
        i3d: file of I3D's weights, for FVD.
        preprocessing: of I3D, "tats", "videogpt" or "stylegan-v".
        unbiased: FVD with covariances over n - 1 (True) or n (False).
        c3d: file of C3D's weights, for the inception score.
        c3d_mean: its mean clip, if the weights are the .npz.
        splits: of the inception score.
        device: where networks run, such as "cpu" or "cuda:0".
    """

    frames: int | None = None
    fps: float | None = None
    flow: str = "dis"
    flow_weights: str | None = None
    size: tuple[int, int] | None = PAPER_SIZE
    clip: str | None = None
    dino: str | None = None
    aesthetic: str | None = None
    i3d: str | None = None
    preprocessing: str = "tats"
    unbiased: bool = True
    c3d: str | None = None
    c3d_mean: str | None = None
    splits: int = 10
    device: str = "cpu"


@dataclass(frozen=True, slots=True)
class Input:
    """An argument for metrics; its `identity` is part of the cache keys, and equal only if results are equal."""

    value: Any
    identity: str


def load_inputs(settings: EvaluationSettings) -> dict[str, Input]:
    """
    The inputs that are the same for all videos, by their names in `unstill.metrics.registry.INPUTS`.

    Networks are loaded here, so that errors are raised before the first video is read.

    Raises:
        UnstillError: weights that cannot be read, or settings that do not fit together.
    """
    s = settings
    weights = s.flow_weights
    flow = flow_engine(s.flow, weights, device=s.device)
    if weights and Path(weights).is_file():
        weights = file_hash(weights)
    inputs = {
        "flow": Input(flow, f"{s.flow} {weights}"),
        "size": Input(s.size, str(s.size)),
        "unbiased": Input(s.unbiased, str(s.unbiased)),
        "splits": Input(s.splits, str(s.splits)),
    }
    if s.flow == "raft":
        inputs["raft"] = inputs["flow"]
    if s.i3d:
        i3d = I3D.load(s.i3d, s.preprocessing, s.device)
        inputs["i3d"] = Input(i3d, i3d.name)
    else:
        proxy = ProxyFeatures()
        inputs["proxy_features"] = Input(proxy, proxy.name)
    if s.c3d:
        c3d = C3D.load(s.c3d, s.c3d_mean, s.device)
        inputs["c3d"] = Input(c3d, c3d.name)
    if s.aesthetic:
        if not s.clip:
            raise UnstillError(
                "The aesthetic head reads CLIP features; choose clip='openai/clip-vit-large-patch14' too."
            )
        inputs["aesthetic"] = Input(s.aesthetic, file_hash(s.aesthetic))
    if s.clip:
        inputs["clip"] = Input(FrameEncoder.load_clip(s.clip, s.device), s.clip)
    if s.dino:
        inputs["dino"] = Input(FrameEncoder.load_dino(s.dino, s.device), s.dino)
    return inputs
