"""The results of the stages as files, from which later runs resume."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from unstill.data.files import replacing
from unstill.errors import UnstillError


_MARK = "unstill.stage"
"""The entry of the safetensors header that names the stage; only files with it were written by this program."""


class OtherCandidates(UnstillError):
    """The folder holds candidates of other settings."""


@dataclass(frozen=True, slots=True, eq=False)
class StageRecord:
    """
    The result of one stage.

    Attributes:
        name: of the stage, and of its file.
        key: a fingerprint of everything that the result depends on.
        tensors: of the result.
        notes: further values, as JSON.
    """

    name: str
    key: str
    tensors: dict[str, torch.Tensor]
    notes: dict[str, Any]

    def write(self, folder: Path) -> None:
        """
        Writes `folder/name.safetensors` atomically.

        Raises:
            UnstillError: a file of that name exists and is not a stage.
        """
        check_stage_file(folder, self.name)
        metadata = {_MARK: self.name, "key": self.key, "notes": json.dumps(self.notes)}
        tensors = {name: tensor.cpu().contiguous() for name, tensor in self.tensors.items()}
        with replacing(folder / f"{self.name}.safetensors") as path:
            save_file(tensors, path, metadata)

    @classmethod
    def read(cls, folder: Path, name: str) -> StageRecord | None:
        """The stored stage; `None` if there is none. Raises `UnstillError` for any other file of that name."""
        path = folder / f"{name}.safetensors"
        if not os.path.lexists(path):
            return None
        try:
            with safe_open(path, "pt") as file:
                metadata = file.metadata()
                if metadata.get(_MARK) != name:
                    raise ValueError("another program wrote it")
                tensors = {name: file.get_tensor(name) for name in file.keys()}
            return cls(name, metadata["key"], tensors, json.loads(metadata["notes"]))
        except (SafetensorError, OSError, AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise _not_a_stage(path) from error


def check_stage_file(folder: Path, name: str) -> None:
    """Raises `UnstillError` if `folder/name.safetensors` exists and this program did not write it as that stage."""
    path = folder / f"{name}.safetensors"
    if not os.path.lexists(path):
        return
    try:
        with safe_open(path, "pt") as file:
            written = not path.is_symlink() and (file.metadata() or {}).get(_MARK) == name
    except (SafetensorError, OSError) as error:
        raise _not_a_stage(path) from error
    if not written:
        raise _not_a_stage(path)


def _not_a_stage(path: Path) -> UnstillError:
    return UnstillError(
        f"{path} is damaged, or unstill did not write it as a stage: it is not overwritten; move it away, and the "
        "stage is computed again."
    )


def stage_key(parts: Mapping[str, Any]) -> str:
    """A fingerprint of values of any kind, equal for equal values."""
    return hashlib.sha256(json.dumps(_plain(parts), sort_keys=True).encode()).hexdigest()[:16]


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item) for item in value]
    if isinstance(value, torch.Tensor):
        content = value.detach().cpu().contiguous()
        return [
            str(content.dtype),
            list(content.shape),
            _digest(content.flatten().view(torch.uint8).numpy().tobytes()),
        ]
    if isinstance(value, Image.Image):
        return [value.mode, list(value.size), _digest(value.tobytes())]
    if callable(value):
        return getattr(value, "__qualname__", type(value).__name__)
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
