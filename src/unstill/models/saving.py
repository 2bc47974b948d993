"""A pipeline as a diffusers folder, which appears when it is whole."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from unstill.data.files import beside, move, told


def save(pipe: Any, out: Path, add: Callable[[Path], None] = lambda folder: None) -> Path:
    """`pipe.save_pretrained(out)`, but whole or not at all; a folder that is there is replaced.

    Args:
        add: writes more files into the folder before it appears.

    Raises:
        UnstillError: the place cannot be written.
    """
    with told(out), beside(out.parent) as around:
        new = around / out.name
        pipe.save_pretrained(new)
        mode = (new / "model_index.json").stat().st_mode
        for weights in new.rglob("*.safetensors"):
            weights.chmod(mode)  # safetensors writes files for their owner alone
        add(new)
        move(new, out)
    return out
