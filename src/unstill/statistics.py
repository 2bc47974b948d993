"""Latent statistics: E[X0] per element and mean Var[X0] of a data set's video latents, for Analytic-Init.

Proposition 1 of "Identifying and Solving Conditional Image Leakage in Image-to-Video Diffusion Model" (arXiv
2406.15735) needs these two moments. They are accumulated as a stream, merge exactly, and live in one safetensors file.
"""

import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch.nn.functional import interpolate

from unstill.errors import UnstillError


if TYPE_CHECKING:
    from unstill.data.video import Clip

log = logging.getLogger(__name__)

VERSION = 1
_KEY = "unstill.statistics"
# The names in the files that the paper's authors published, and the order of dimensions that goes with each.
_RELEASED = (("Expectation_X0", "Tr_Cov_d", "CFHW"), ("Expectation_x_0", "trCov_d", "FCHW"))

Encode = Callable[[torch.Tensor, torch.Generator], torch.Tensor]
"""From a clip (F, 3, H, W), float32 in [0, 1], and a generator for posterior samples to latents (1, C, F', h, w)."""


class Clips(Protocol):
    """A sequence of clips, by length and index."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> "Clip": ...


class LatentStatistics:
    """Streaming moments of video latents, in float64 (Welford's method; merging by Chan, Golub and LeVeque).

    Args:
        meta: what the statistics are of (model, fps, size ...); JSON values, kept in the file.
    """

    def __init__(self, meta: dict[str, Any] | None = None) -> None:
        self.meta: dict[str, Any] = dict(meta or {})
        self._count: int | None = 0
        self._mean: torch.Tensor | None = None  # (C, F, H, W)
        self._m2: torch.Tensor | None = None  # sums of squared deviations, (C, F, H, W)

    @property
    def count(self) -> int | None:
        """The number of videos; None for published files, which do not tell."""
        return self._count

    @property
    def mean(self) -> torch.Tensor:
        """E[X0], float64 (C, F, H, W)."""
        return self._state()[0]

    @property
    def variance(self) -> torch.Tensor:
        """Tr(Cov[X0]) / d: the mean over all elements of the biased variance, a float64 scalar."""
        return self._state()[1].mean() / (self._count or 1)

    def update(self, latents: torch.Tensor) -> Self:
        """Add a batch of video latents (B, C, F, H, W).

        Raises:
            UnstillError: not five dimensions, an empty batch, other video shapes than before, NaN or infinity.
        """
        if latents.ndim != 5 or 0 in latents.shape:
            raise UnstillError(
                f"Video latents are a batch (B, C, F, H, W), not empty, but got {tuple(latents.shape)}."
            )
        if not latents.is_floating_point():
            raise UnstillError(f"Video latents are float tensors, but got {latents.dtype}.")
        x = latents.detach().cpu().to(torch.float64)  # on the CPU: not every accelerator has float64
        if not bool(x.isfinite().all()):
            raise UnstillError(
                "The video latents hold NaN or infinity; encode in float32 or bfloat16, not in float16."
            )
        mean = x.mean(0)
        self._add(len(x), mean, (x - mean).square_().sum(0))
        return self

    def merge(self, other: "LatentStatistics") -> Self:
        """Add what another instance has seen: the same result as one stream over both.

        Raises:
            UnstillError: other shapes, or statistics without a count (published files).
        """
        if other._count != 0:
            mean, m2 = other._state()
            self._add(other._count, mean, m2)
        return self

    def resized(self, shape: tuple[int, int, int]) -> "LatentStatistics":
        """The statistics for another number of frames or size, (F, H, W), by linear interpolation.

        The first and the last frame keep their places. The scalar variance does not change. It is an approximation:
        for the best start make statistics at the size you sample.
        """
        if len(shape) != 3 or any(int(side) != side or side < 1 for side in shape):
            raise UnstillError(f"A latent shape is (frames, height, width), each at least 1, but got {tuple(shape)}.")
        mean, m2 = self._state()
        if tuple(mean.shape[1:]) == tuple(shape):
            return self
        new = LatentStatistics({**self.meta, "resized_from": list(mean.shape)})
        new._count, new._mean, new._m2 = self._count, _resize(mean, shape), m2
        if m2.ndim:  # published files hold one number
            spread = _resize(m2, shape)
            new._m2 = spread * (m2.mean() / spread.mean().clamp_min(torch.finfo(torch.float64).tiny))
        return new

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write one safetensors file: mean, m2 (sums of squared deviations, per element) and a JSON description.

        Raises:
            UnstillError: nothing counted yet, or the file cannot be written.
        """
        self._state()
        return self._write(Path(path), {})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "LatentStatistics":
        """Read a file written by `save`, or one that the paper's authors published (see `from_released`).

        Raises:
            UnstillError: no such file, damaged, or of another kind.
        """
        path = _existing(path)
        with path.open("rb") as file:
            head = file.read(2)
        if head == b"PK" or head[:1] == b"\x80":  # a zip file or a pickle: torch.save
            return cls.from_released(path)
        return _read(path)[0]

    @classmethod
    def from_released(cls, path: str | os.PathLike[str]) -> "LatentStatistics":
        """Read the authors' files: `torch.save` dictionaries (or safetensors) with a mean and a scalar variance.

        `Expectation_X0`/`Tr_Cov_d` (DynamiCrafter, VideoCrafter) hold (1, C, F, H, W), and `Expectation_x_0`/`trCov_d`
        (SVD) hold (1, F, C, H, W); the leading 1 may be missing. They tell no count, so they take no more videos.

        Raises:
            UnstillError: no such file, or not of this kind.
        """
        path = _existing(path)
        tensors: Any
        try:
            if path.suffix == ".safetensors":
                with safe_open(path, "pt") as file:
                    tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            else:
                tensors = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch.load raises almost anything on a damaged file
            raise UnstillError(f"{path} cannot be read safely as statistics ({type(error).__name__}).") from error
        for mean_key, variance_key, layout in _RELEASED:  # noqa: B007
            if isinstance(tensors, dict) and mean_key in tensors and variance_key in tensors:
                break
        else:
            names = " or ".join(f"{mean} and {variance}" for mean, variance, _ in _RELEASED)
            raise UnstillError(f"{path} holds no published statistics; expected the entries {names}.")
        mean = torch.as_tensor(tensors[mean_key]).to(torch.float64)
        variance = torch.as_tensor(tensors[variance_key]).to(torch.float64)
        if mean.ndim == 5 and len(mean) == 1:
            mean = mean[0]
        if mean.ndim != 4 or variance.numel() != 1 or not variance >= 0 or not bool(mean.isfinite().all()):
            raise UnstillError(
                f"{path} holds a mean {tuple(mean.shape)} and a variance {tuple(variance.shape)}; "
                "expected one video's latents and one number, all finite."
            )
        new = cls({"source": path.name})
        new._count, new._m2 = None, variance.reshape(())
        new._mean = mean if layout == "CFHW" else mean.transpose(0, 1).contiguous()  # (F, C, H, W) -> (C, F, H, W)
        return new

    def __repr__(self) -> str:
        if self._mean is None:
            return "LatentStatistics(count=0)"
        return f"LatentStatistics(count={self._count}, shape={tuple(self._mean.shape)}, variance={self.variance:.6g})"

    def _state(self) -> tuple[torch.Tensor, torch.Tensor]:
        if self._mean is None or self._m2 is None:
            raise UnstillError("These latent statistics are empty; update() them with video latents first.")
        return self._mean, self._m2

    def _add(self, count: int | None, mean: torch.Tensor, m2: torch.Tensor) -> None:
        if self._count is None or count is None:
            raise UnstillError("Published statistics tell no count, so they can neither be updated nor merged.")
        if self._mean is None or self._m2 is None:
            self._count, self._mean, self._m2 = count, mean.clone(), m2.clone()
            return
        if self._mean.shape != mean.shape:
            raise UnstillError(
                f"These statistics are of (C, F, H, W) = {tuple(self._mean.shape)}, but the new ones are of "
                f"{tuple(mean.shape)}; keep frames and size the same."
            )
        total = self._count + count
        delta = mean - self._mean
        self._m2 += m2 + delta.square() * (self._count * count / total)
        self._mean += delta * (count / total)
        self._count = total

    def _write(self, path: Path, extra: dict[str, Any]) -> Path:
        from unstill.data.atomic import replacing

        text = {"version": VERSION, "count": self._count, "meta": self.meta, **extra}
        tensors = {}
        if self._count != 0:
            mean, m2 = self._state()
            text["variance"] = float(self.variance)
            tensors = {"mean": mean.contiguous(), "m2": m2.contiguous()}
        with replacing(path) as temporary:
            save_file(tensors, temporary, {_KEY: json.dumps(text)})
        return path


def estimate(
    encode: Encode,
    clips: Clips,
    *,
    out: str | os.PathLike[str] | None = None,
    meta: dict[str, Any] | None = None,
    seed: int = 0,
    shard: tuple[int, int] = (0, 1),
    save_every: int = 50,
    progress: Callable[[int, int], None] | None = None,
) -> LatentStatistics:
    """The statistics of a data set, one clip in memory at a time, resumable and divisible.

    Clip i is encoded with a generator seeded by (seed, i), whoever does it and when: an interrupted run that is
    started again gives bit for bit the uninterrupted result, and the merged shards of any number give the whole.

    Args:
        encode: clip to video latents, for example `functools.partial(adapter.encode_video, pipe)`.
        clips: `unstill.data.ClipFolder`, or anything with a length whose items are `Clip`s. An item that raises
            UnstillError (damaged, too short) is named in a warning and left out.
        out: where to save. Until it is done, the state lies next to it (`.partial`); the same call goes on from there.
        meta: see `LatentStatistics`.
        seed: of the generators for `encode`.
        shard: (index, count) takes every count-th clip; merge the results.
        save_every: clips between two saves of the state.
        progress: called with (clips done, clips in all) after each clip.

    Raises:
        UnstillError: no clip could be read, the clips' latents differ in shape, or the state is of another data set.
    """
    index, shards = shard
    if not 0 <= index < shards:
        raise UnstillError(f"shard is (index, count) with 0 <= index < count, but got {shard}.")
    mine = range(index, len(clips), shards)
    settings = {"clips": len(clips), "of": getattr(clips, "fingerprint", None), "seed": seed, "shard": list(shard)}
    settings["meta"] = json.loads(json.dumps(meta or {}))
    statistics, done = LatentStatistics(meta), 0
    partial = None if out is None else Path(out).with_name(Path(out).name + ".partial")
    if partial is not None and partial.exists():
        statistics, text = _read(partial)
        done = text["done"]
        if text["settings"] != settings:
            raise UnstillError(f"{partial} is the state of another run; delete it or save to another name.")
    saved = done
    try:
        for position in mine[done:]:
            try:
                pixels = clips[position].pixels
            except UnstillError as error:
                log.warning("Leaving out clip %d: %s", position, error)
            else:
                # One number per (seed, clip): generators for neighbouring seeds are independent.
                generator = torch.Generator().manual_seed(seed * 1_000_003 + position)
                statistics.update(encode(pixels, generator))
            done += 1
            if partial is not None and done - saved >= save_every:
                statistics._write(partial, {"done": done, "settings": settings})
                saved = done
            if progress is not None:
                progress(done, len(mine))
    except BaseException:  # Ctrl-C included: what was computed is kept
        if partial is not None and done > saved:
            statistics._write(partial, {"done": done, "settings": settings})
        raise
    if not statistics.count and shards == 1:  # one share of a small data set may well be empty
        raise UnstillError(f"None of the {len(mine)} clips could be used; see the warnings.")
    if out is not None:
        statistics._write(Path(out), {})
    if partial is not None:
        partial.unlink(missing_ok=True)
    return statistics


def _existing(path: str | os.PathLike[str]) -> Path:
    path = Path(path)
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise UnstillError(f"The statistics file {path} {what}; make one with `unstill statistics`.")
    return path


def _read(path: Path) -> tuple[LatentStatistics, dict[str, Any]]:
    try:
        with safe_open(path, "pt") as file:
            names = set(file.keys())
            if {"Expectation_X0", "Expectation_x_0"} & names:
                return LatentStatistics.from_released(path), {}
            text = json.loads((file.metadata() or {}).get(_KEY, "null"))
            if text is None or (text["count"] != 0 and not {"mean", "m2"} <= names):
                raise UnstillError(f"{path} is a safetensors file, but not of latent statistics.")
            if text["version"] > VERSION:
                raise UnstillError(f"{path} was written by a newer unstill; upgrade to read it.")
            new = LatentStatistics(text["meta"])
            if text["count"] != 0:
                new._count, new._mean, new._m2 = text["count"], file.get_tensor("mean"), file.get_tensor("m2")
    except (SafetensorError, OSError, KeyError, json.JSONDecodeError) as error:
        raise UnstillError(f"{path} is damaged or no statistics file ({error}); make it again.") from error
    return new, text


def _resize(x: torch.Tensor, shape: tuple[int, int, int]) -> torch.Tensor:
    """(C, F, H, W) to (C, *shape): antialiased bilinear in space, linear in time with the end frames in place."""
    channels, frames, height, width = x.shape
    if (height, width) != tuple(shape[1:]):
        x = interpolate(x, size=shape[1:], mode="bilinear", antialias=True)
    if frames != shape[0]:
        flat = x.permute(0, 2, 3, 1).reshape(1, -1, frames)  # (C, F, H, W) -> (1, C*H*W, F)
        flat = interpolate(flat, size=shape[0], mode="linear", align_corners=True)
        x = flat.reshape(channels, *shape[1:], shape[0]).permute(0, 3, 1, 2).contiguous()
    return x
