"""Identity of a model's weights, so that kept results are not reused after further training."""

from __future__ import annotations

import hashlib
from pathlib import Path

from unstill.models import registry


SAMPLE = 1 << 20


def fingerprint(model: str) -> str:
    """Of the files of a local model or the embedded one, by size and by the first and last MB of each; of others,
    which a hub keeps, the name."""
    entry = registry.find(model)
    folder = registry.PICO if entry is not None and entry.weights is None else Path(model)
    if entry is not None and entry.weights is not None or not folder.is_dir():
        return model
    found = hashlib.sha256()
    lora = f"{entry.lora}.safetensors" if entry is not None else None
    for file in sorted(path for path in folder.rglob("*") if path.suffix in (".json", ".safetensors", ".bin")):
        if file.parent == registry.PICO / "loras" and file.name != lora:  # additions to the embedded weights
            continue
        size = file.stat().st_size
        found.update(f"{file.relative_to(folder).as_posix()} {size} ".encode())
        with file.open("rb") as opened:
            found.update(opened.read(SAMPLE))
            opened.seek(max(0, size - SAMPLE))
            found.update(opened.read(SAMPLE))
    return found.hexdigest()[:16]
