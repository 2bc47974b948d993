"""Random generators derived from keys: equal keys give equal numbers, in any process and order."""

import hashlib

import torch


def generator_for(*key: str | int) -> torch.Generator:
    """A generator seeded by a hash of the key, such as ("world", seed, epoch, index)."""
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:4], "big"))  # torch takes 32 bits on the CPU


def permutation(length: int, *key: str | int) -> torch.Tensor:
    """(length,) int64: a random permutation determined by the key."""
    return torch.randperm(length, generator=generator_for("order", *key))
