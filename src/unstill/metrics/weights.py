"""Reads published weight files of the networks that metrics use."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from unstill.errors import UnstillError


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors or .npz file or a torch checkpoint; nothing in the file is executed."""
    path = _existing(path)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                return {name: torch.from_numpy(arrays[name]) for name in arrays.files}
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UnstillError(f"{path} cannot be read as network weights: {type(error).__name__}.") from error
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise UnstillError(f"{path} does not hold a table of named tensors; expected a state dict.")
    return content


def is_torchscript(path: str | Path) -> bool:
    """Whether a file holds a scripted module, which is code, rather than a table of tensors."""
    path = _existing(path)
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name for name in archive.namelist())


def read_torchscript(path: str | Path) -> torch.jit.ScriptModule:
    """The scripted module of a file. Its code runs in the TorchScript interpreter, not in Python."""
    try:
        return torch.jit.load(str(_existing(path)), map_location="cpu").eval()
    except RuntimeError as error:
        raise UnstillError(f"{path} cannot be read as a TorchScript module; download it again.") from error


def file_hash(path: str | Path) -> str:
    """The first 12 digits of the SHA-256 of a file."""
    with _existing(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]


def _existing(path: str | Path) -> Path:
    path = Path(path)
    if not path.is_file():
        raise UnstillError(f"There is no weights file {path}.")
    return path
