"""All that `unstill evaluate` measures on one video, and with which networks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from unstill.errors import UnstillError
from unstill.metrics.affinity import motion_affinity
from unstill.metrics.c3d import C3D
from unstill.metrics.camera import motion_parts
from unstill.metrics.consistency import (
    frame_consistency,
    image_consistency,
    image_fidelity,
    temporal_coherence,
    temporal_flickering,
    text_alignment,
)
from unstill.metrics.encoders import FrameEncoder, aesthetic_quality
from unstill.metrics.features import ProxyFeatures, VideoFeatures
from unstill.metrics.fidelity import (
    first_frame_error,
    proxy_coherence,
    proxy_colour_fidelity,
    proxy_edge_fidelity,
    proxy_structure_fidelity,
)
from unstill.metrics.flow import flow_engine
from unstill.metrics.i3d import I3D
from unstill.metrics.motion import PAPER_SIZE, is_dynamic
from unstill.metrics.weights import fingerprint


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What is measured, and with which networks. Without any of the files and names, only what needs no weights is.

    frames, fps: read this many frames at this rate; None: all, as they are.
    flow, flow_weights, size: see `motion_score`.
    clip, dino, aesthetic: names or folders for transformers, and LAION's linear head.
    i3d, preprocessing, unbiased: for FVD. c3d, c3d_mean, splits: for the inception score.
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
class Sample:
    """One video with its conditional image and prompt, where there are any."""

    video: Tensor  # uint8 (F, 3, H, W)
    fps: float
    image: Tensor | None  # uint8 (3, H, W) at the size of the video
    prompt: str | None

    @property
    def picture(self) -> Tensor:
        """What fidelity is measured against: the image, or else frame 0."""
        return self.video[0] if self.image is None else self.image


Values = dict[str, float | Tensor]
"""A number, or several: a mean over videos counts each of them."""


class Measure:
    """Functions from a sample to named values, in groups; the name of a group says all that its values depend on."""

    def __init__(self, settings: Settings) -> None:
        self.settings = s = settings
        # Networks are loaded here, so that a mistake shows before the first video is read.
        self.flow = flow_engine(s.flow, s.flow_weights, device=s.device)
        weights = s.flow_weights
        if weights and Path(weights).is_file():
            weights = fingerprint(weights)
        if s.aesthetic and not s.clip:
            raise UnstillError(
                "The aesthetic head reads CLIP features; choose clip='openai/clip-vit-large-patch14' too."
            )
        self.groups: dict[str, Callable[[Sample], Values]] = {
            f"motion {s.flow} {weights} {s.size}": self._motion,
            "pixels": self._pixels,
        }
        self.features: VideoFeatures = I3D.load(s.i3d, s.preprocessing, s.device) if s.i3d else ProxyFeatures()
        self.groups[self.features.name] = lambda sample: {"features": self.features(sample.video)}
        if s.c3d:
            classifier = C3D.load(s.c3d, s.c3d_mean, s.device)
            self.groups[classifier.name] = lambda sample: {"probabilities": classifier(sample.video)}
        if s.clip:
            self.clip = FrameEncoder.load_clip(s.clip, s.device)
            self.clip_raw = FrameEncoder(self.clip.model, s.clip, clip=True, antialias=False)
            self.groups[f"clip {s.clip} {s.aesthetic}"] = self._clip
        if s.dino:
            self.dino = FrameEncoder.load_dino(s.dino, s.device)
            self.groups[f"dino {s.dino}"] = self._dino

    def _motion(self, sample: Sample) -> Values:
        parts = motion_parts(sample.video, self.flow, self.settings.size)
        values: Values = {
            "motion_score": parts.total * (len(sample.video) - 1),
            "motion_per_pair": parts.total,
            "camera_motion": parts.camera,
            "object_motion": parts.objects,
            "zoom": parts.zoom,
        }
        if self.settings.flow == "raft":
            values["dynamic_degree"] = float(is_dynamic(sample.video, sample.fps, self.flow))
        return values

    def _pixels(self, sample: Sample) -> Values:
        video, picture = sample.video, sample.picture
        values: Values = {} if sample.image is None else {"first_frame_error": first_frame_error(video, sample.image)}
        return values | {
            "frames": float(len(video)),
            "motion_affinity": motion_affinity(video).mean(),
            "proxy_colour_fidelity": proxy_colour_fidelity(video, picture),
            "proxy_structure_fidelity": proxy_structure_fidelity(video, picture),
            "proxy_edge_fidelity": proxy_edge_fidelity(video, picture),
            "proxy_coherence": proxy_coherence(video),
            "temporal_flickering": temporal_flickering(video),
        }

    def _clip(self, sample: Sample) -> Values:
        frames, image = self.clip.images(sample.video), self.clip.images(sample.picture[None])[0]
        raw = self.clip_raw.images(sample.video)
        values: Values = {
            "clip_image_fidelity": image_fidelity(frames, image),
            "clip_temporal_coherence": temporal_coherence(frames),
            "background_consistency": frame_consistency(raw),
        }
        if sample.prompt:
            values["clip_text_alignment"] = text_alignment(frames, self.clip.text(sample.prompt))
        if self.settings.aesthetic:
            values["aesthetic_quality"] = aesthetic_quality(raw, self.settings.aesthetic)
        return values

    def _dino(self, sample: Sample) -> Values:
        frames, image = self.dino.images(sample.video), self.dino.images(sample.picture[None])[0]
        return {
            "subject_consistency": frame_consistency(frames),
            "i2v_subject": image_consistency(frames, image),
        }
