"""Latent statistics in a folder or on the Hugging Face hub, with a card that describes them."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path
from typing import Any, Protocol

import torch

from unstill.data.ownership import together
from unstill.errors import UnstillError, first_line


FILE, CARD, RECORD = "statistics.safetensors", "README.md", "statistics.json"
SIMILAR = 0.05  # relative tolerance of a weight's standard deviation; half precision differs less, another VAE more
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")


class Statistics(Protocol):
    """What this module needs of `LatentStatistics`, which imports it."""

    meta: dict[str, Any]

    @property
    def count(self) -> int | None: ...
    @property
    def moments(self) -> tuple[torch.Tensor, torch.Tensor]: ...
    @property
    def mean(self) -> torch.Tensor: ...
    @property
    def variance(self) -> torch.Tensor: ...
    def save(self, path: str | os.PathLike[str], /) -> Path: ...


def describe_vae(vae: Any) -> dict[str, Any]:
    """
    Properties by which VAEs can be told apart, as JSON values, for `meta["vae"]` of statistics.

    Args:
        vae: of a diffusers pipeline.

    Returns:
        `class`, the `scaling` of its latents, and `encoder`: standard deviations of some weights of its encoder, which
        hardly depend on their precision. Weights that are not in memory (offloaded ones) are left out.
    """
    weights = [
        tensor.detach().float().std().item()
        for name, tensor in vae.named_parameters()
        if "encoder" in name and tensor.ndim > 1 and tensor.numel() > 1 and tensor.device.type != "meta"
    ]
    step = max(len(weights) // 8, 1)
    return {
        "class": type(vae).__name__,
        "scaling": vae.config.get("scaling_factor"),
        "encoder": [round(value, 6) for value in weights[::step][:8]],
    }


def check_vae(statistics: Statistics, vae: dict[str, Any] | None) -> None:
    """
    Raises `UnstillError` if `statistics` record another VAE than `vae`, a result of `describe_vae`. Passes if either
    is unknown.
    """
    recorded = statistics.meta.get("vae")
    if not isinstance(recorded, dict) or vae is None:
        return
    weights, recorded_weights = vae["encoder"], recorded.get("encoder")
    same = recorded.get("class") == vae["class"] and recorded.get("scaling") == vae["scaling"]
    if (
        same
        and weights
        and isinstance(recorded_weights, list)
        and recorded_weights
        and all(isinstance(value, float) for value in recorded_weights)
    ):
        same = len(recorded_weights) == len(weights) and all(
            abs(a - b) <= SIMILAR * abs(b) for a, b in zip(recorded_weights, weights, strict=True)
        )
    if not same:
        model = statistics.meta.get("model")
        name = f" (of {model.get('name')})" if isinstance(model, dict) else ""
        raise UnstillError(
            f"These statistics are of latents of another VAE{name} than this pipeline's {vae['class']}; take "
            "statistics of this model, or compute them with unstill statistics."
        )


def save_pretrained(statistics: Statistics, folder: str | os.PathLike[str], data: str = "") -> Path:
    """See `LatentStatistics.save_pretrained`."""
    statistics.moments  # noqa: B018  (raises where there are no videos yet)
    target = Path(folder)
    with together(target / RECORD, (FILE, CARD), option="the folder") as results:
        statistics.save(results.folder / FILE)
        (results.folder / CARD).write_text(card(statistics, data), encoding="utf-8")
        results.record = {"data": data, "count": statistics.count, "meta": statistics.meta}
    return target


def find_statistics(source: str | os.PathLike[str]) -> Path:
    """The file of `LatentStatistics.from_pretrained(source)`, which is fetched from the hub if it is there."""
    path = Path(source)
    if path.is_dir():
        if not (path / FILE).is_file():
            raise UnstillError(f"{path} holds no {FILE}; name a folder that save_pretrained of statistics wrote.")
        return path / FILE
    if path.exists() or not is_repository(str(source)):
        return path
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(str(source), FILE))
    except (OSError, ValueError) as error:
        raise UnstillError(
            f"{source} is no file here, and {FILE} of a repository of that name could not be fetched from the Hugging "
            "Face hub (no connection, or no such repository) and is not in the local cache."
        ) from error


def is_repository(text: str) -> bool:
    """Whether a text is a name on the hub, `owner/name`."""
    return bool(_REPOSITORY.fullmatch(text))


def push_to_hub(statistics: Statistics, repository: str, data: str, private: bool, token: str | None) -> str:
    """See `LatentStatistics.push_to_hub`."""
    from huggingface_hub import HfApi

    if not is_repository(repository):
        raise UnstillError(f"{repository!r} is no name on the hub; give owner/name.")
    api = HfApi(token=token)
    with tempfile.TemporaryDirectory() as folder:
        save_pretrained(statistics, folder, data)
        Path(folder, RECORD).unlink()
        try:
            url = api.create_repo(repository, private=private, exist_ok=True)
            api.upload_folder(repo_id=repository, folder_path=folder, commit_message="Latent statistics")
        except (OSError, ValueError) as error:
            raise UnstillError(f"{repository} could not be written on the hub: {first_line(error)}.") from error
    return str(url)


def card(statistics: Statistics, data: str = "") -> str:
    """The README: data set, number of clips, model, VAE and sizes."""
    meta, (channels, frames, height, width) = statistics.meta, statistics.mean.shape
    model, size, vae = (value if isinstance(value, dict) else {} for value in map(meta.get, ("model", "size", "vae")))
    rows = {
        "data set": data or "not stated",
        "clips": statistics.count if statistics.count is not None else "not recorded",
        "model": model.get("name") or "not stated",
        "VAE": vae.get("class") or "not stated",
        "latents": f"{channels} channels, {frames} frames, {height} x {width}",
        "video": f"{meta.get('frames', '?')} frames of {size.get('width', '?')} x {size.get('height', '?')}",
        "frames per second": meta.get("fps") or "as in the videos",
        "mean variance": f"{float(statistics.variance):.4f}",
    }
    cells = "\n".join(f"| {name} | {' '.join(str(value).split()).replace('|', '/')} |" for name, value in rows.items())
    return f"""---
tags: [unstill, latent-statistics]
---
# Latent statistics

Mean and variance of video latents, for Analytic-Init (arXiv 2406.15735, Proposition 1).

| | |
|---|---|
{cells}

```py
statistics = unstill.LatentStatistics.from_pretrained("this/repository")
with unstill.apply(pipe, unstill.AnalyticInit(statistics=statistics, start=0.96, resize=True)):
    ...
```
"""
