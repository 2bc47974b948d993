"""
Conditional image leakage of a model by noise level, and the level to start sampling from.

Clips are noised and predicted in one step, as in Fig. 2 and Eq. 4 of "Identifying and Solving Conditional Image
Leakage in Image-to-Video Diffusion Model", and the prediction's motion is compared with the clip's. That alone cannot
separate leakage from uncertainty: even the optimal prediction moves less than the truth at high noise, because it
averages over all possible continuations. Therefore three more quantities are measured:

- explained motion, R2 against a static clip, so that noise and wrong motion do not count as motion;
- sensitivity to the image (`pull`): the energy by which removing the image changes the prediction, divided by the
  energy of the image. It is 1 for a model that copies its image and 0 for one that ignores it;
- a reference: the motion that the Bayes-optimal prediction explains on the synthetic world; on other clips 1.

Leakage is the lost share of the motion, 1 - explained / reference, limited by the energy by which the image changes
the prediction, divided by the energy of the motion. With a reference of 1 this is an upper bound. The lower bound
`certain` needs no reference: an optimal prediction never gets worse by seeing the image, so the motion that a model
explains only without it, or with a weakened one, is leaked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unstill.errors import UnstillError
from unstill.forward_process import ForwardProcess
from unstill.lab.bootstrap import Interval, weights
from unstill.lab.html_report import Film, film
from unstill.lab.leakage_measures import Measurements, best_prediction, measure_latents
from unstill.lab.probe_clips import ProbeClip, flow_of, picture_of
from unstill.lab.probe_conditions import ImageCondition, NoiseLevel, Unit
from unstill.methods.base import Method


if TYPE_CHECKING:
    from unstill.lab.reference_attention import ReferenceMass


SHARE = 0.5
"""Share of the clips' motion that predictions at the recommended start and at all lower levels must explain."""

HIDDEN = 2.0
"""sigma / alpha below which no start is recommended, since the first latents would contain most of the video."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """
    The measurements of a model at every noise level, from the highest.

    Attributes:
        model: its name.
        unit: of the levels' values.
        levels: noise levels, descending.
        clips: number of clips.
        share: of the motion that must be explained at the recommended start.
        curves: by source (`image`, `weakened`, `removed`, `reference`) and quantity, one interval per level:
            `explained` motion, `flow` divided by that of the clip, and `first_frame` (RMS error in [0, 1]); for the
            reference also `truth`, the posterior probability of the true clip, see `unstill.lab.bayes_optimal`.
        leak, pull, certain: one interval per level; empty without an image condition.
        falls: differences of `flow` and `explained` between the last level and the first.
        start: the recommended level; `None` if no level qualifies.
    """

    model: str
    unit: Unit
    levels: tuple[NoiseLevel, ...]
    clips: int
    share: float
    curves: dict[str, dict[str, list[Interval]]]
    leak: list[Interval]
    pull: list[Interval]
    certain: list[Interval]
    falls: dict[str, Interval]
    start: float | None
    shown: dict[str, list[Film]] = field(default_factory=dict, repr=False)
    """Films of one clip and its predictions: source -> one film for each of `shown_levels`; `"truth"` has one."""

    def as_dict(self) -> dict[str, Any]:
        def plain(intervals: Sequence[Interval]) -> list[dict[str, Any]]:
            return [interval.as_dict() for interval in intervals]

        return {
            "model": self.model,
            "clips": self.clips,
            "levels": [{self.unit: x.value, "alpha": x.alpha, "sigma": x.sigma} for x in self.levels],
            "curves": {s: {q: plain(curve) for q, curve in by.items()} for s, by in self.curves.items()},
            "leak": plain(self.leak),
            "pull": plain(self.pull),
            "certain": plain(self.certain),
            "falls": {q: interval.as_dict() for q, interval in self.falls.items()},
            "leak_is": "against the best possible model" if "reference" in self.curves else "an upper bound",
            "share": self.share,
            "recommended_start": None if self.start is None else {self.unit: self.start},
        }


class Probed(NamedTuple):
    """
    The measurements of one clip.

    Attributes:
        levels: noise levels.
        records: what was measured.
        videos: by source, the decoded prediction (F, 3, H, W) of each level.
        attention: what the first latent frame gets, with the image; `None` where that cannot be measured.
    """

    levels: tuple[NoiseLevel, ...]
    records: Measurements
    videos: dict[str, list[Tensor]]
    attention: ReferenceMass | None


def measure_leakage(
    pipe: Any,
    subjects: Iterable[ProbeClip],
    call: Callable[[ProbeClip, Image.Image], dict[str, Any]],
    levels: Sequence[float],
    *,
    name: str = "",
    conditions: Sequence[ImageCondition] = ("image", "weakened", "removed"),
    methods: Sequence[Method] = (),
    share: float = SHARE,
    seed: int = 0,
    fps: float = 8.0,
    progress: Callable[[int], None] | None = None,
) -> Diagnosis:
    """
    Measures all clips in one call; `unstill.lab.diagnosis_run` is the resumable version for several processes.

    Args:
        pipe: a pipeline that `apply` supports.
        subjects: clips of equal size and length.
        call: maps a clip and its first frame to the arguments of the pipeline's call.
        levels: noise levels, descending, in the unit of `unit_of`.
        name: of the model, for the report.
        conditions: of the image; those that the pipeline does not support are left out.
        methods: applied in the predictions.
        share: of the motion that must be explained at the recommended start.
        seed: of the noise; clip i uses `seed + i`.
        fps: of the videos in the report.
        progress: called with the number of finished clips.

    Raises:
        UnstillError: as `one_step`, and without any clip.
    """
    from unstill.lab.one_step import unit_of

    rows: list[Measurements] = []
    visited: tuple[NoiseLevel, ...] = ()
    shown: dict[str, list[Film]] = {}
    for index, subject in enumerate(subjects):
        probed = probe_clip(pipe, subject, call, levels, conditions, methods, seed + index)
        visited = probed.levels
        rows.append(probed.records)
        shown = shown or films_of(probed.videos, fps)
        if progress is not None:
            progress(index + 1)
    unit = unit_of(ForwardProcess.of(pipe.scheduler))
    return summarise_leakage(gathered(rows), visited, unit, name=name or type(pipe).__name__, share=share, shown=shown)


def gathered(rows: Sequence[Measurements]) -> Measurements:
    """Stacks the measurements of single clips; raises `UnstillError` if there are none."""
    if not rows:
        raise UnstillError("There is no clip to probe with; give a folder of videos that can be read.")
    return {s: {q: np.stack([row[s][q] for row in rows]) for q in by} for s, by in rows[0].items()}


def shown_levels(count: int) -> list[int]:
    """Indices of about five of `count` levels to show as films, from the first to the last."""
    return sorted({round(i * (count - 1) / 4) for i in range(5)})


def films_of(videos: dict[str, list[Tensor]], fps: float) -> dict[str, list[Film]]:
    """The decoded predictions of one clip as small films."""

    def chosen(source: str) -> list[Tensor]:
        decoded = videos[source]
        return decoded if source == "truth" else [decoded[i] for i in shown_levels(len(decoded))]

    return {source: [film(video, fps, height=128) for video in chosen(source)] for source in videos}


def probe_clip(
    pipe: Any,
    subject: ProbeClip,
    call: Callable[[ProbeClip, Image.Image], dict[str, Any]],
    levels: Sequence[float],
    conditions: Sequence[ImageCondition],
    methods: Sequence[Method],
    seed: int,
) -> Probed:
    """Predicts one clip at all levels and measures it; arguments as of `measure_leakage`."""
    # Here, because they import diffusers; what a model's predictions mean needs no pipeline (ComfyUI nodes).
    from unstill.hooks import adapter_for
    from unstill.lab.one_step import has_image, one_step
    from unstill.lab.reference_attention import AttentionRecorder, has_reference_attention

    adapter = adapter_for(pipe)
    usable = [c for c in conditions if c == "image" or (has_image(pipe) and (c == "removed" or adapter.denoisers))]
    clean = adapter.encode_video(pipe, subject.video)
    still = adapter.encode_video(pipe, subject.video[:1].expand_as(subject.video))
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(len(levels), *clean.shape[1:], generator=generator)
    arguments = call(subject, picture_of(subject))
    recorder = AttentionRecorder() if has_reference_attention(pipe) else None
    predictions = {}
    for c in usable:
        acting = [*methods, recorder] if recorder is not None and c == "image" else methods
        predictions[c] = one_step(pipe, arguments, clean, noise, levels, methods=acting, condition=c)
    with_image = predictions["image"]
    predicted: dict[str, Tensor] = {name: result.x0 for name, result in predictions.items()}
    conditioning = clean.shape[2] - with_image.x0.shape[2]
    head = clean[:, :, :conditioning].cpu()
    clean, still = clean[:, :, conditioning:].cpu(), still[:, :, conditioning:].cpu()
    if subject.others is not None:
        others = torch.cat([adapter.encode_video(pipe, video) for video in subject.others])[:, :, conditioning:].cpu()
        best = [
            best_prediction(noisy, others, level)
            for noisy, level in zip(with_image.noisy, with_image.levels, strict=True)
        ]
        predicted["reference"] = torch.stack([mean for mean, _ in best])

    def decode(x0: Tensor) -> Tensor:
        return adapter.decode_video(pipe, torch.cat([head, x0[None]], 2)).cpu()

    # The clip after the autoencoder, whose losses are not the denoiser's.
    truth = decode(clean[0])
    records = measure_latents(clean, still, predicted, with_image.levels)
    records["truth"]["flow"] = np.array([flow_of(truth)])
    videos: dict[str, list[Tensor]] = {"truth": [truth]}
    for source, x0 in predicted.items():
        videos[source] = [decode(prediction) for prediction in x0]
        records[source] |= {
            "flow": np.array([flow_of(video) for video in videos[source]]),
            "first": np.array([float((video[0] - truth[0]).square().mean()) for video in videos[source]]),
        }
    if subject.others is not None:
        records["reference"]["truth"] = np.array([share for _, share in best])
    # A network may compute attention in a way of its own, which is not seen, or twice in some steps.
    attention = recorder.result() if recorder is not None and recorder.complete else None
    return Probed(with_image.levels, records, videos, attention)


def summarise_leakage(
    records: Measurements,
    levels: Sequence[NoiseLevel],
    unit: Unit,
    *,
    name: str,
    share: float = SHARE,
    shown: dict[str, list[Film]] | None = None,
) -> Diagnosis:
    """
    Computes the quantities of a `Diagnosis` with bootstrap intervals over clips.

    They are ratios of sums over clips: clips with much motion weigh more, and no clip is divided by its own motion,
    which may be small. `flow` and `first_frame` are left out where predictions were not decoded (`measure_latents`).
    """
    truth = records["truth"]
    clips = len(truth["moved"])
    w = weights(clips)  # (1 + R, clips)
    moved = w @ truth["moved"]
    explained, flows, curves = {}, {}, {}
    for source, measured in records.items():
        if source == "truth":
            continue
        explained[source] = 1 - (w @ measured["error"]) / moved
        curves[source] = {"explained": _intervals(explained[source], clips, (-np.inf, 1))}
        if "flow" in measured:
            flows[source] = w @ measured["flow"] / (w @ truth["flow"])
            curves[source]["flow"] = _intervals(flows[source], clips, (0, np.inf))
            curves[source]["first_frame"] = _intervals(np.sqrt(w @ measured["first"] / clips), clips, (0, np.inf))
    falls = {
        name: Interval.of(draws["image"][:, -1] - draws["image"][:, 0], clips)
        for name, draws in (("flow", flows), ("explained", explained))
        if draws
    }
    if "reference" in records:
        curves["reference"]["truth"] = _intervals(w @ records["reference"]["truth"] / clips, clips, (0, 1))
    leak, pull, certain = [], [], []
    if "removed" in records:
        change = w @ records["removed"]["change"]
        image_pull = change / (w @ truth["image"])
        reference = explained.get("reference", np.ones_like(explained["image"]))
        lost = np.clip(1 - explained["image"] / np.maximum(reference, 1e-6), 0, 1)
        leak = _intervals(np.minimum(lost, change / moved), clips, (0, 1))
        pull = _intervals(image_pull, clips, (0, np.inf))
        weaker = [explained[c] for c in ("weakened", "removed") if c in explained]
        certain = [
            max((Interval.of((other - explained["image"])[:, i], clips) for other in weaker), key=lambda x: x.low)
            for i in range(len(levels))
        ]
    enough = [interval.value >= share for interval in curves["image"]["explained"]]
    hidden = [level.sigma >= HIDDEN * level.alpha for level in levels]
    good = next((i for i in range(len(levels)) if all(enough[i:]) and hidden[i]), None)
    return Diagnosis(
        model=name,
        unit=unit,
        levels=tuple(levels),
        clips=clips,
        share=share,
        curves=curves,
        leak=leak,
        pull=pull,
        certain=certain,
        falls=falls,
        start=None if good is None else levels[good].value,
        shown=shown or {},
    )


def _intervals(draws: np.ndarray, clips: int, bounds: tuple[float, float]) -> list[Interval]:
    """(1 + R, levels) to one interval per level."""
    return [Interval.of(column, clips, bounds) for column in draws.T]
