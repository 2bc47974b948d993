"""Batches for training, from any source: shuffled anew in every epoch, endless, and a function of the step alone.

Clip n of a run is place n % len(source) of epoch n // len(source), in an order drawn from (seed, epoch). So a run goes
on exactly where it was from nothing but its step number, and the clips of a step are the same however many processes
and workers read them.
"""

import logging
import random
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from unstill.data.seeding import permutation
from unstill.errors import UnstillError


log = logging.getLogger(__name__)
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

TRIES = 32
"""How many other clips are tried for one that cannot be read."""


class Indexed(Protocol[T_co]):
    """What can be read by number."""

    def __getitem__(self, index: int, /) -> T_co: ...


class Readable(Protocol[T_co]):
    """What can be loaded: a `Source` of clips, or a cache of their latents."""

    def __len__(self) -> int: ...
    def read(self, index: int, epoch: int = 0) -> T_co: ...
    def name(self, index: int) -> str: ...


@dataclass(frozen=True)
class Loader(Generic[T]):
    """Batches of a source; `loader.batches(step)` is an endless iterator that begins at any step.

    A clip that cannot be read is reported, once by its name, and replaced by another one that depends on the place in
    the run alone.

    Attributes:
        source: of clips, or of cached latents.
        batch: clips per step, over all processes.
        seed: of the order.
        process: the number of this process, of `processes`; each gets its share of every batch.
        workers: processes that read ahead; 0 reads in this one, while the training waits.

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
        """This process's share of the batch of every step from `step` on, in lists of batch / processes clips.

        Raises:
            UnstillError: a clip could not be read, nor could any of the up to `TRIES` others that were tried.
        """
        loader = DataLoader(
            _Places(self.source, self.seed),
            batch_size=None,  # the sampler's items are whole batches
            sampler=_Shares(step, self.batch, self.process, self.processes),
            num_workers=self.workers,
            collate_fn=_unchanged,
            worker_init_fn=_undisturbed,
            generator=torch.Generator(),  # its own: the global one belongs to the training, and is restored with it
        )
        for read in loader:
            for name, reason in read.failures:
                if name not in self._reported:
                    self._reported.add(name)
                    log.warning("Replacing %s by another clip: %s", name, reason)
            if read.error is not None:
                raise UnstillError(read.error)
            yield read.clips


def read_ahead(source: Indexed[T], indices: Sequence[int], workers: int = 0) -> Iterator[tuple[T | None, str]]:
    """Clips in the order of `indices`, each once: (clip, ""), or (None, the reason) for one that cannot be read.

    With `workers` processes reading ahead, the caller works on one clip while the next ones are decoded.
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


def place(n: int, length: int, seed: int) -> tuple[int, int]:
    """(index, epoch) of clip n of a run over `length` clips."""
    epoch, position = divmod(n, length)
    return int(_order(length, seed, epoch)[position]), epoch


_order = lru_cache(maxsize=2)(permutation)  # a batch may lie across two epochs


@dataclass(frozen=True)
class _Read(Generic[T]):
    """What comes back from a worker. Errors travel as text: the DataLoader would bury them in a traceback."""

    clips: list[T]
    failures: list[tuple[str, str]]  # name, reason
    error: str | None = None


@dataclass(frozen=True)
class _Places(Dataset, Generic[T]):
    """Reads the clips at the given places of a run."""

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
        """The clip at place n, then others, each once."""
        length = len(self.source)
        index, epoch = place(n, length, self.seed)
        yield index, epoch
        others = random.Random(f"{self.seed}/{n}").sample(range(length), min(length, TRIES + 1))
        yield from ((other, epoch) for other in others[:TRIES] if other != index)


@dataclass(frozen=True)
class _Each(Dataset, Generic[T]):
    """One clip, or why there is none."""

    source: Indexed[T]

    def __getitem__(self, index: int) -> tuple[T | None, str]:
        try:
            return self.source[index], ""
        except UnstillError as error:
            return None, str(error)


@dataclass(frozen=True)
class _Shares:
    """The places of one process in every step."""

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
    """A Ctrl-C on the terminal reaches every process; when a worker ends is the reading process's to say."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _unchanged(read: Any) -> Any:
    return read
