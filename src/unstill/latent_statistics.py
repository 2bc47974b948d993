"""
Latent statistics: E[X0] per element and mean Var[X0] of a data set's video latents, for Analytic-Init.

Proposition 1 of "Identifying and Solving Conditional Image Leakage in Image-to-Video Diffusion Model" (arXiv
2406.15735) needs these two moments. They are accumulated in a stream, merged exactly, and stored in one safetensors
file.
"""

import os
from pathlib import Path
from typing import Any, Self

import torch
from torch.nn.functional import interpolate

from unstill.errors import UnstillError
from unstill.statistics_file import read_released, read_statistics, write_statistics


class LatentStatistics:
    """
    Streaming moments of video latents, in float64 (Welford's method; merging by Chan, Golub and LeVeque).

    Args:
        meta: describes the videos (model, fps, size ...) by JSON values; saved in the file.
    """

    def __init__(self, meta: dict[str, Any] | None = None) -> None:
        self.meta: dict[str, Any] = dict(meta or {})
        self._count: int | None = 0
        self._mean: torch.Tensor | None = None  # (C, F, H, W)
        self._m2: torch.Tensor | None = None  # sums of squared deviations, (C, F, H, W)

    @classmethod
    def of(
        cls,
        count: int | None,
        mean: torch.Tensor | None = None,
        m2: torch.Tensor | None = None,
        meta: dict[str, Any] | None = None,
    ) -> Self:
        """
        Statistics from known moments.

        Args:
            count: of videos; `None` if unknown, 0 without moments.
            mean: float64 (C, F, H, W).
            m2: sums of squared deviations from the mean, float64 (C, F, H, W).
            meta: see the class.
        """
        new = cls(meta)
        new._count, new._mean, new._m2 = count, mean, m2
        return new

    @property
    def moments(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The mean and the sums of squared deviations from it, float64 (C, F, H, W)."""
        return self._state()

    @property
    def count(self) -> int | None:
        """The number of videos; None for published files, which do not record it."""
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
        """
        Adds a batch of video latents.

        Args:
            latents: (B, C, F, H, W), floating point, any device.

        Returns:
            The same instance.

        Raises:
            UnstillError: not five dimensions, an empty batch, another video shape than before, NaN or infinity.
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
        """
        Adds the videos of another instance; the result is that of one stream over both.

        Returns:
            The same instance.

        Raises:
            UnstillError: different shapes, or statistics without a count (published files).
        """
        if other._count != 0:
            mean, m2 = other._state()
            self._add(other._count, mean, m2)
        return self

    def resized(self, shape: tuple[int, int, int]) -> "LatentStatistics":
        """
        The statistics for another number of frames or size, by linear interpolation.

        The first and last frames keep their positions, and the scalar variance does not change. This is an
        approximation: for the best results estimate statistics at the size that you sample.

        Args:
            shape: (F, H, W) of the latents.

        Raises:
            UnstillError: a shape with sides below 1.
        """
        if len(shape) != 3 or any(int(side) != side or side < 1 for side in shape):
            raise UnstillError(f"A latent shape is (frames, height, width), each at least 1, but got {tuple(shape)}.")
        mean, m2 = self._state()
        if tuple(mean.shape[1:]) == tuple(shape):
            return self
        if m2.ndim:  # published files hold one number
            spread = _resize(m2, shape)
            m2 = spread * (m2.mean() / spread.mean().clamp_min(torch.finfo(torch.float64).tiny))
        meta = {**self.meta, "resized_from": list(mean.shape)}
        return LatentStatistics.of(self._count, _resize(mean, shape), m2, meta)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """
        Writes one safetensors file: mean, m2 (sums of squared deviations, per element) and a JSON description.

        Returns:
            The path of the file.

        Raises:
            UnstillError: no videos were added yet, or the file cannot be written.
        """
        self._state()
        return self.write(Path(path), {}, {})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "LatentStatistics":
        """
        Reads a file written by `save`, or one that the paper's authors published (see `from_released`).

        Raises:
            UnstillError: a missing or damaged file, or one of another format.
        """
        return cls.of(*read_statistics(path))

    def save_pretrained(self, folder: str | os.PathLike[str], *, data: str = "") -> Path:
        """
        Writes `statistics.safetensors` and a card, `README.md`, that describes them.

        Args:
            folder: created if missing.
            data: a description of the videos, with their licence.

        Returns:
            The folder.

        Raises:
            UnstillError: no videos were added yet, or the folder holds other files of these names.
        """
        from unstill.statistics_hub import save_pretrained

        return save_pretrained(self, folder, data)

    @classmethod
    def from_pretrained(cls, source: str | os.PathLike[str]) -> "LatentStatistics":
        """
        Reads what `save_pretrained` or `push_to_hub` wrote.

        Args:
            source: a folder, a name on the hub (`owner/name`), or a file that `load` reads.

        Raises:
            UnstillError: a missing folder or file, a hub that cannot be reached, or a file of another kind.
        """
        from unstill.statistics_hub import find_statistics

        return cls.load(find_statistics(source))

    def push_to_hub(self, repository: str, *, data: str = "", private: bool = False, token: str | None = None) -> str:
        """
        Writes the statistics and their card into a repository of the hub, which is created if missing.

        Args:
            repository: `owner/name`.
            data: see `save_pretrained`.
            private: of a new repository.
            token: of the hub; by default that of `hf auth login`.

        Returns:
            The address of the repository.

        Raises:
            UnstillError: not a valid name, or an error of the hub.
        """
        from unstill.statistics_hub import push_to_hub

        return push_to_hub(self, repository, data, private, token)

    @classmethod
    def from_released(cls, path: str | os.PathLike[str]) -> "LatentStatistics":
        """
        Reads the authors' files: `torch.save` dictionaries (or safetensors) with a mean and a scalar variance.

        `Expectation_X0`/`Tr_Cov_d` (DynamiCrafter, VideoCrafter) hold (1, C, F, H, W), and `Expectation_x_0`/`trCov_d`
        (SVD) hold (1, F, C, H, W); the leading 1 may be missing. They record no count, so no videos can be added.

        Raises:
            UnstillError: a missing file, or one of another format.
        """
        return cls.of(*read_released(path))

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
            raise UnstillError("Published statistics record no count, so they can neither be updated nor merged.")
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

    def write(self, path: Path, extra: dict[str, Any], more: dict[str, torch.Tensor]) -> Path:
        """`save` with more entries in the description (`extra`) and more tensors (`more`); `load` ignores both."""
        text, tensors = {"count": self._count, "meta": self.meta, **extra}, dict(more)
        if self._count != 0:
            mean, m2 = self._state()
            text["variance"] = float(self.variance)
            tensors |= {"mean": mean.contiguous(), "m2": m2.contiguous()}
        return write_statistics(path, text, tensors)


def _resize(x: torch.Tensor, shape: tuple[int, int, int]) -> torch.Tensor:
    """(C, F, H, W) to (C, *shape): antialiased bilinear in space, linear in time with fixed first and last frames."""
    channels, frames, height, width = x.shape
    if (height, width) != tuple(shape[1:]):
        x = interpolate(x, size=shape[1:], mode="bilinear", antialias=True)
    if frames != shape[0]:
        flat = x.permute(0, 2, 3, 1).reshape(1, -1, frames)  # (C, F, H, W) -> (1, C*H*W, F)
        flat = interpolate(flat, size=shape[0], mode="linear", align_corners=True)
        x = flat.reshape(channels, *shape[1:], shape[0]).permute(0, 3, 1, 2).contiguous()
    return x
