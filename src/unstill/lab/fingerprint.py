"""A hash of a model's weights, so that cached results are not reused after further training."""

from __future__ import annotations

import hashlib
from pathlib import Path

from unstill.models import registry


SAMPLE = 1 << 20


def model_fingerprint(model: str) -> str:
    """
    Identifies the weights of a model.

    Args:
        model: name, local folder or hub id.

    Returns:
        A hash of the sizes and of the first and last MB of the files of a local or the embedded model; the name of a
        model on a hub.
    """
    entry = registry.find(model)
    folder = registry.PICO if entry is not None and entry.weights is None else Path(model)
    if entry is not None and entry.weights is not None or not folder.is_dir():
        return model
    digest = hashlib.sha256()
    lora = f"{entry.lora}.safetensors" if entry is not None else None
    for file in sorted(path for path in folder.rglob("*") if path.suffix in (".json", ".safetensors", ".bin")):
        if file.parent == registry.PICO / "loras" and file.name != lora:  # of another of the embedded models
            continue
        size = file.stat().st_size
        digest.update(f"{file.relative_to(folder).as_posix()} {size} ".encode())
        with file.open("rb") as opened:
            digest.update(opened.read(SAMPLE))
            opened.seek(max(0, size - SAMPLE))
            digest.update(opened.read(SAMPLE))
    return digest.hexdigest()[:16]
