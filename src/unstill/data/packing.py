"""
Objects with many tensors, as one tensor: for sending a batch to another process.

Each tensor that torch sends takes a file descriptor, of which a process may often have no more than 1,024: a batch of
a hundred clips of five tensors each would never arrive.
"""

from __future__ import annotations

import io
import pickle
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor


ALIGNMENT = 64  # bytes


@dataclass(frozen=True, slots=True)
class Packed:
    """
    Attributes:
        pickled: the object, with numbers in place of its tensors.
        places: offset in bytes, dtype and shape of every tensor.
        content: of all tensors, uint8, in shared memory.
    """

    pickled: bytes
    places: list[tuple[int, torch.dtype, torch.Size]]
    content: Tensor


class _Pickler(pickle.Pickler):
    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, pickle.HIGHEST_PROTOCOL)
        self.tensors: list[Tensor] = []

    def persistent_id(self, value: Any) -> int | None:
        if type(value) is not Tensor:
            return None
        self.tensors.append(value)
        return len(self.tensors) - 1


class _Unpickler(pickle.Unpickler):
    def __init__(self, packed: Packed) -> None:
        super().__init__(io.BytesIO(packed.pickled))
        self._packed = packed

    def persistent_load(self, number: int) -> Tensor:
        start, dtype, shape = self._packed.places[number]
        return self._packed.content[start : start + prod(shape) * dtype.itemsize].view(dtype).view(shape)


def pack(value: Any) -> Packed:
    """Packs an object that can be pickled; its tensors are on the CPU."""
    file = io.BytesIO()
    pickler = _Pickler(file)
    pickler.dump(value)
    places, end = [], 0
    for tensor in pickler.tensors:
        places.append((end, tensor.dtype, tensor.shape))
        end += -(-tensor.nbytes // ALIGNMENT) * ALIGNMENT
    content = torch.empty(end, dtype=torch.uint8).share_memory_()
    for (start, _, _), tensor in zip(places, pickler.tensors, strict=True):
        content[start : start + tensor.nbytes] = tensor.detach().reshape(-1).view(torch.uint8)
    return Packed(file.getvalue(), places, content)


def unpack(packed: Packed) -> Any:
    """The object, from another process of this program; its tensors are views of one piece of memory."""
    return _Unpickler(packed).load()
