"""Randomness by name: what is drawn for a key depends on nothing but the key."""

import hashlib

import torch


def generator_for(*key: str | int) -> torch.Generator:
    """A generator of its own for every key, such as ("world", seed, epoch, index)."""
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:4], "big"))  # torch takes 32 bits on the CPU


def permutation(length: int, *key: str | int) -> torch.Tensor:
    """(length,) int64: the numbers from 0 on in an order of the key's own."""
    return torch.randperm(length, generator=generator_for("order", *key))
