"""
Batches for training from any source: reshuffled in every epoch, endless, and a function of the step alone.

Clip n of a run is at position n % len(source) of epoch n // len(source), in an order drawn from (seed, epoch). A run
therefore resumes exactly from its step number, and the clips of a step do not depend on the number of processes or
workers.
"""

import logging
import random
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from unstill.data.packing import pack, unpack
from unstill.data.seeding import permutation
from unstill.errors import UnstillError


log = logging.getLogger(__name__)
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

TRIES = 32
"""Maximal number of replacements tried for a clip that cannot be read."""


class Indexed(Protocol[T_co]):
    """Anything with items by index."""

    def __getitem__(self, index: int, /) -> T_co: ...


class Readable(Protocol[T_co]):
    """A data set that `Loader` can read: a `Source` of clips, or a cache of their latents."""

    def __len__(self) -> int: ...
    def read(self, index: int, epoch: int = 0) -> T_co: ...
    def name(self, index: int) -> str: ...


@dataclass(frozen=True)
class Loader(Generic[T]):
    """
    Batches of a source; `loader.batches(step)` is an endless iterator that can begin at any step.

    A clip that cannot be read is reported once and replaced by another one, which depends only on the position in the
    run.

    Attributes:
        source: of clips, or of cached latents.
        batch: clips per step, over all processes.
        seed: of the order.
        process: index of this process; each process gets its share of every batch.
        processes: number of processes.
        workers: processes that read ahead; 0 reads in this process, while the training waits.

    Raises:
        UnstillError: a batch that the processes cannot share.
    """

    source: Readable[T]
    batch: int
    seed: int = 0
    process: int = 0
    processes: int = 1
    workers: int = 0
    _reported: set[str] = field(default_factory=set, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.batch < 1 or self.batch % self.processes:
            raise UnstillError(
                f"A batch of {self.batch} cannot be shared by {self.processes} processes; choose a multiple of that."
            )

    def batches(self, step: int = 0) -> Iterator[list[T]]:
        """
        Yields this process's share, batch / processes clips, of the batch of every step from `step` on.

        Raises:
            UnstillError: neither a clip nor any of up to `TRIES` replacements could be read.
        """
        loader = DataLoader(
            _Places(self.source, self.seed),
            batch_size=None,  # the sampler's items are whole batches
            sampler=_Shares(step, self.batch, self.process, self.processes),
            num_workers=self.workers,
            collate_fn=pack if self.workers else _unchanged,
            worker_init_fn=_undisturbed,
            generator=torch.Generator(),  # keeps the global generator, which checkpoints restore, untouched
            multiprocessing_context="fork" if self.workers and can_fork() else None,
        )
        for item in loader:
            read: _Read[T] = unpack(item) if self.workers else item
            for name, reason in read.failures:
                if name not in self._reported:
                    self._reported.add(name)
                    log.warning("Replacing %s by another clip: %s", name, reason)
            if read.error is not None:
                raise UnstillError(read.error)
            yield read.clips


def read_ahead(source: Indexed[T], indices: Sequence[int], workers: int = 0) -> Iterator[tuple[T | None, str]]:
    """
    Yields the clips in the order of `indices`: (clip, ""), or (None, reason) for one that cannot be read.

    Args:
        source: anything with items by index.
        indices: of the clips.
        workers: processes that decode the next clips while the caller works on one.
    """
    yield from DataLoader(
        _Each(source),
        batch_size=None,
        sampler=indices,
        num_workers=min(workers, len(indices)),
        collate_fn=_unchanged,
        worker_init_fn=_undisturbed,
        generator=torch.Generator(),
    )


def can_fork() -> bool:
    """Whether workers are forked, and so may read a source that cannot be pickled. On macOS a fork is not safe."""
    return sys.platform == "linux"


def index_and_epoch(n: int, length: int, seed: int) -> tuple[int, int]:
    """(index, epoch) of clip n of a run over `length` clips."""
    epoch, position = divmod(n, length)
    return int(_order(length, seed, epoch)[position]), epoch


_order = lru_cache(maxsize=2)(permutation)  # a batch may lie across two epochs


@dataclass(frozen=True)
class _Read(Generic[T]):
    """The result of a worker. Errors are passed as text, since the DataLoader would wrap them in a traceback."""

    clips: list[T]
    failures: list[tuple[str, str]]  # name, reason
    error: str | None = None


@dataclass(frozen=True)
class _Places(Dataset[Any], Generic[T]):
    """Reads the clips at given positions of a run."""

    source: Readable[T]
    seed: int

    def __getitem__(self, places: range) -> _Read[T]:
        clips, failures = list[T](), list[tuple[str, str]]()
        for n in places:
            tried = 0
            for index, epoch in self._candidates(n):
                try:
                    clips.append(self.source.read(index, epoch))
                    break
                except UnstillError as error:
                    tried += 1
                    failures.append((self.source.name(index), str(error)))
            else:
                reason = failures[-tried][1]
                return _Read([], failures, f"None of {tried} clips could be read; the first: {reason}")
        return _Read(clips, failures)

    def _candidates(self, n: int) -> Iterator[tuple[int, int]]:
        """The clip at position n, then replacements, each once."""
        length = len(self.source)
        index, epoch = index_and_epoch(n, length, self.seed)
        yield index, epoch
        others = random.Random(f"{self.seed}/{n}").sample(range(length), min(length, TRIES + 1))
        yield from ((other, epoch) for other in others[:TRIES] if other != index)


@dataclass(frozen=True)
class _Each(Dataset[Any], Generic[T]):
    """Returns a clip, or the reason why it cannot be read."""

    source: Indexed[T]

    def __getitem__(self, index: int) -> tuple[T | None, str]:
        try:
            return self.source[index], ""
        except UnstillError as error:
            return None, str(error)


@dataclass(frozen=True)
class _Shares:
    """The positions of one process in every step."""

    step: int
    batch: int
    process: int
    processes: int

    def __iter__(self) -> Iterator[range]:
        share = self.batch // self.processes
        first = self.step * self.batch + self.process * share
        while True:
            yield range(first, first + share)
            first += self.batch


def _undisturbed(worker: int) -> None:
    """
    Ignores Ctrl-C, which a terminal sends to every process, and the first SIGTERM, which a cluster sends to all
    processes of a job: the reading process finishes its step and ends its workers. A second SIGTERM ends the worker.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: signal.signal(number, signal.SIG_DFL))


def _unchanged(read: Any) -> Any:
    return read
