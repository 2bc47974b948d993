"""What each stage has made, as files from which the next one can go on."""

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
"""The entry of the safetensors header that says which stage this program has written there."""


class OtherCandidates(UnstillError):
    """The folder holds candidates that were made from something else."""


@dataclass(frozen=True, slots=True, eq=False)
class StageRecord:
    """
    The result of one stage.

    Attributes:
        name: of the stage, and of its file.
        key: a fingerprint of all it was made from.
        tensors: what it made.
        notes: more of it, as JSON can hold it.
    """

    name: str
    key: str
    tensors: dict[str, torch.Tensor]
    notes: dict[str, Any]

    def write(self, folder: Path) -> None:
        """
        `folder/name.safetensors`; nothing is left half-written.

        Raises:
            UnstillError: there is a file of that name which is no stage.
        """
        check_stage_file(folder, self.name)
        metadata = {_MARK: self.name, "key": self.key, "notes": json.dumps(self.notes)}
        tensors = {name: tensor.cpu().contiguous() for name, tensor in self.tensors.items()}
        with replacing(folder / f"{self.name}.safetensors") as path:
            save_file(tensors, path, metadata)

    @classmethod
    def read(cls, folder: Path, name: str) -> StageRecord | None:
        """What lies there; `None` if nothing does."""
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
        f"{path} is damaged, or unstill did not write it as a stage: it is not overwritten; move it away, and its "
        "stage is made again."
    )


def stage_key(parts: Mapping[str, Any]) -> str:
    """One word for values of any kind, the same whenever they are."""
    return hashlib.sha256(json.dumps(_plain(parts), sort_keys=True).encode()).hexdigest()[:16]


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(one) for one in value]
    if isinstance(value, torch.Tensor):
        content = value.detach().cpu().contiguous()
        return [str(content.dtype), list(content.shape), _sum(content.flatten().view(torch.uint8).numpy().tobytes())]
    if isinstance(value, Image.Image):
        return [value.mode, list(value.size), _sum(value.tobytes())]
    if callable(value):
        return getattr(value, "__qualname__", type(value).__name__)
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


def _sum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
