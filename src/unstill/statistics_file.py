"""Files of latent statistics: safetensors with a JSON description, and the files published with the paper."""

import json
import os
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from unstill.documents import parse_json
from unstill.errors import UnstillError, first_line


FILE_VERSION = 1
KEY = "unstill.statistics"
"""The entry of the safetensors header that holds the description as JSON."""
# Names of the entries in the files that the paper's authors published, and the order of dimensions of each.
_RELEASED = (("Expectation_X0", "Tr_Cov_d", "CFHW"), ("Expectation_x_0", "trCov_d", "FCHW"))


class Description(BaseModel):
    """The JSON description in a statistics file; the saved state of an estimation has further keys."""

    version: int = Field(ge=1)
    count: int | None = Field(ge=0, lt=2**53)
    meta: dict[str, Any]


LARGEST_VALUE = 1e6
"""Largest mean accepted from a file, and its square the largest variance; latents are of the order of 1 to 100."""
Moments = tuple[int | None, torch.Tensor | None, torch.Tensor | None, dict[str, Any]]
"""Count (`None` if unknown), mean (C, F, H, W), sums of squared deviations (or a scalar), and description."""


def read_statistics(path: str | os.PathLike[str]) -> Moments:
    """
    Reads a file that `write_statistics` or the paper's authors wrote.

    Raises:
        UnstillError: a missing or damaged file, or one of another format.
    """
    path = _existing(path)
    with path.open("rb") as stream:
        head = stream.read(2)
    if head == b"PK" or head[:1] == b"\x80":  # a zip file or a pickle: torch.save
        return read_released(path)
    try:
        with safe_open(path, "pt") as file:
            names = set(file.keys())
            if {"Expectation_X0", "Expectation_x_0"} & names:
                return read_released(path)
            described = (file.metadata() or {}).get(KEY)
            if described is None:
                raise UnstillError(f"{path} is a safetensors file, but not of latent statistics.")
            text = parse_json(described, Description, str(path), "create it again")
            if text.version > FILE_VERSION:
                raise UnstillError(f"{path} was written by a newer unstill; upgrade to read it.")
            if text.count == 0:
                return 0, None, None, text.meta
            mean, m2 = (file.get_tensor(name) for name in ("mean", "m2"))
            check_moments(text.count, mean, m2, str(path))
            return text.count, mean, m2, text.meta
    except (SafetensorError, OSError) as error:
        raise UnstillError(
            f"{path} is damaged or no statistics file ({first_line(error)}); create it again."
        ) from error


def read_released(path: str | os.PathLike[str]) -> Moments:
    """See `LatentStatistics.from_released`."""
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
    mean, variance = (_number_tensor(tensors[key], f"{path}: {key}") for key in (mean_key, variance_key))
    if mean.ndim == 5 and len(mean) == 1:
        mean = mean[0]
    if mean.ndim != 4 or variance.numel() != 1:
        raise UnstillError(
            f"{path} holds a mean {tuple(mean.shape)} and a variance {tuple(variance.shape)}; "
            "expected one video's latents and one number."
        )
    check_moments(None, mean, variance.reshape(()), str(path))
    mean = mean if layout == "CFHW" else mean.transpose(0, 1).contiguous()  # (F, C, H, W) -> (C, F, H, W)
    return None, mean, variance.reshape(()), {"source": path.name}


def write_statistics(path: Path, text: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Path:
    """
    Writes tensors and a description, and returns the path; `read_statistics` requires count and meta in the latter.
    """
    from unstill.data.files import replacing

    with replacing(path) as temporary:
        save_file(tensors, temporary, {KEY: json.dumps({"version": FILE_VERSION, **text})})
    return path


def check_moments(count: int | None, mean: torch.Tensor, m2: torch.Tensor, where: str) -> None:
    """
    Checks that tensors read from a file are moments of video latents.

    Args:
        count: of videos; `None` where the file does not record it.
        mean: E[X0], (C, F, H, W).
        m2: sums of squared deviations of the same shape, or a scalar where there is no count.
        where: the beginning of the error message.

    Raises:
        UnstillError: they are not.
    """
    if mean.ndim != 4 or 0 in mean.shape or (m2.shape != mean.shape and not (count is None and m2.ndim == 0)):
        fault = f"a mean {tuple(mean.shape)} and squares {tuple(m2.shape)} instead of two (C, F, H, W)"
    elif mean.dtype != torch.float64 or m2.dtype != torch.float64:
        fault = f"{mean.dtype} and {m2.dtype} instead of float64"
    elif not bool((mean.abs() <= LARGEST_VALUE).all()):  # false for NaN as well
        fault = f"a mean with NaN, infinity or numbers beyond {LARGEST_VALUE:g}"
    elif not bool(((m2 >= 0) & (m2 <= LARGEST_VALUE**2 * (count or 1))).all()):
        fault = f"a variance that is negative, NaN, infinite or beyond {LARGEST_VALUE**2:g}"
    else:
        return
    raise UnstillError(f"{where} holds no statistics of video latents ({fault}); create it again.")


def _number_tensor(value: Any, where: str) -> torch.Tensor:
    """A number or a dense tensor of real numbers as a float64 tensor."""
    if isinstance(value, torch.Tensor) and value.layout == torch.strided and not value.is_complex():
        return value.to(torch.float64)
    if isinstance(value, int | float) and abs(value) <= LARGEST_VALUE**2:
        return torch.tensor(value, dtype=torch.float64)
    raise UnstillError(f"{where} is not a tensor of real numbers; expected those of published statistics.")


def _existing(path: str | os.PathLike[str]) -> Path:
    path = Path(path)
    if not path.is_file():
        fault = "is a folder" if path.is_dir() else "does not exist"
        raise UnstillError(f"The statistics file {path} {fault}; make one with `unstill statistics`.")
    return path
