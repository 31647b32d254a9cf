"""Which images make up which batch: pure functions of a batch's number, apart from any reading."""

import functools
from dataclasses import dataclass
from typing import Protocol

import numpy as np

# More steps than any training takes; Grain counts in signed 64 bits.
_ENDLESS = 2**48


@dataclass(frozen=True)
class Process:
    """One of the processes that share every batch.

    Attributes:
        index: which one, from 0.
        count: how many there are.
    """

    index: int
    count: int


ONLY_PROCESS = Process(0, 1)


class BatchOrder(Protocol):
    """The indices of every batch."""

    def __len__(self) -> int: ...

    def __getitem__(self, step: int) -> np.ndarray: ...


@dataclass(frozen=True)
class Shuffled:
    """Endless epochs, each in an order of its own. An incomplete last batch is dropped.

    Attributes:
        images: the number of images in the split.
        batch_size: images in a batch, at most `images`.
        seed: decides the order, together with the epoch.
    """

    images: int
    batch_size: int
    seed: int

    def __len__(self) -> int:
        """A number of batches that no training reaches."""
        return _ENDLESS

    def __getitem__(self, step: int) -> np.ndarray:
        """The indices of the batch of step `step`, (batch_size,)."""
        epoch, place = divmod(step, self.images // self.batch_size)
        order = _epoch_order(self.images, self.seed, epoch)
        return order[place * self.batch_size : (place + 1) * self.batch_size]


# Two epochs, because reading runs ahead of training across an epoch's end.
@functools.lru_cache(maxsize=2)
def _epoch_order(images: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch)).permutation(images)


@dataclass(frozen=True)
class InOrder:
    """Every image once; the last batch may be smaller.

    Attributes:
        images: the number of images in the split.
        batch_size: images in a batch.
        first: the image to begin with.
    """

    images: int
    batch_size: int
    first: int = 0

    def __len__(self) -> int:
        """The number of batches."""
        return -(-(self.images - self.first) // self.batch_size)

    def __getitem__(self, step: int) -> np.ndarray:
        """The indices of batch `step`, (batch_size,) or fewer."""
        start = self.first + step * self.batch_size
        return np.arange(start, min(start + self.batch_size, self.images))


@dataclass(frozen=True)
class ProcessPart:
    """The part of each batch that one process reads.

    The parts are contiguous, and their sizes differ by one image at most.

    Attributes:
        order: the whole batches.
        process: the process that reads.
    """

    order: BatchOrder
    process: Process

    def __len__(self) -> int:
        """The number of batches."""
        return len(self.order)

    def __getitem__(self, step: int) -> np.ndarray:
        """The indices of this process's part of batch `step`; the last batch's may be empty."""
        return np.array_split(self.order[step], self.process.count)[self.process.index]
