"""Pictures that do not fit in memory, read by Grain ahead of the training step."""

import contextlib
import functools
import multiprocessing
import os
import re
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from glow_jax.data.batch_order import BatchOrder
from glow_jax.data.dataset import InMemory, Pictures
from glow_jax.data.notes import note
from glow_jax.errors import GlowError

# Where Linux keeps the memory through which processes pass batches. Others have no such folder.
_SHARED = Path("/dev/shm")
# Batches of a reading process: two that wait, one that it reads, one that is taken from it.
_BATCHES_OF_A_PROCESS = 4


@dataclass(frozen=True)
class Streamed:
    """Pictures that other processes read, a few batches ahead of the training step.

    Attributes:
        pictures: the source, which is pickled and sent to the processes.
        n_workers: how many processes read; 0 reads in threads of this one.
        crop: side of the square that a batch cuts out of each image at random; 0 takes the whole
            image.
    """

    pictures: Pictures
    n_workers: int
    crop: int = 0

    def __len__(self) -> int:
        """The number of pictures."""
        return len(self.pictures)

    def __getitem__(self, indices: np.ndarray) -> InMemory:
        """The images at `indices`, and their labels, in memory."""
        part = self.pictures[indices]
        return InMemory(part.images, part.labels, self.crop)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of the images in a batch."""
        height, width, channels = self.pictures.image_shape
        return (self.crop or height, self.crop or width, channels)

    @property
    def multi_hot(self) -> bool:
        """Whether an image may belong to several classes."""
        return self.pictures.multi_hot

    def subset(self, indices: np.ndarray) -> "Streamed":
        """Only the pictures at `indices`, numbered from 0."""
        return Streamed(_Subset(self.pictures, indices), self.n_workers, self.crop)

    def batches(self, order: BatchOrder, first: int, stop: int) -> Iterator[InMemory]:
        """The whole images of batches `first` to `stop` of an order, one batch after the other.

        Grain sees each batch as one element. `order` decides which images it holds. The order is
        therefore the same as in memory, and the number of a batch is the only state. Where shared
        memory is too small for processes, threads read.

        Raises:
            GlowError: a process that reads was killed.
        """
        import grain  # a second or more, which data in memory should not pay
        from absl import flags

        # Grain passes absl's flags on to its processes, and only an absl program has parsed them.
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()
        if first >= stop:
            return
        size = len(order[first]) * int(np.prod(self.pictures.image_shape))
        workers = _with_memory(min(self.n_workers, os.cpu_count() or 1), size)
        elements = grain.MapDataset.range(first, stop).map(_BatchReader(self, order))
        threads = 1 if workers else 4
        stream = elements.to_iter_dataset(
            grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
        )
        if workers:
            stream = stream.mp_prefetch(
                grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=2)
            )
        # Closed at once: if this were left to the garbage collector, the processes would outlive
        # the program.
        with contextlib.closing(iter(stream)) as parts:
            while True:
                with _telling_of_killed_processes():
                    part = next(parts, None)
                if part is None:
                    return
                yield InMemory(*part, self.crop)


def _with_memory(workers: int, batch_size: int) -> int:
    """So many processes, or none where shared memory does not hold their batches of some bytes."""
    if not workers:
        return 0
    try:
        multiprocessing.get_context("spawn").BoundedSemaphore(1)  # lies there, too
        free = shutil.disk_usage(_SHARED).free if _SHARED.exists() else None
    except OSError:
        free = 0
    if free is None or free >= workers * _BATCHES_OF_A_PROCESS * batch_size:
        return workers
    _say_once(
        f"shared memory ({_SHARED}) is too small for {workers} processes that read images: threads "
        "read them instead, with the same result"
    )
    return 0


_say_once = functools.cache(note)


@contextlib.contextmanager
def _telling_of_killed_processes() -> Iterator[None]:
    """Replace Grain's error after the death of a reading process by a `GlowError`."""
    try:
        yield
    except RuntimeError as error:
        found = re.search(r"terminated unexpectedly with exit code -(\d+)", str(error))
        if found is None:
            raise
        raise GlowError(
            f"A process that reads images was ended by {signal.Signals(int(found[1])).name}, as "
            f"happens where shared memory ({_SHARED}) or main memory is full: free some, or give "
            "fewer --n_workers."
        ) from error


@dataclass(frozen=True)
class _BatchReader:
    """Reads one batch, as arrays: Grain passes those between processes without a copy."""

    split: Streamed
    order: BatchOrder

    def __call__(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        part = self.split[self.order[step]]
        return part.images, part.labels


@dataclass(frozen=True)
class _Subset:
    """Some of the pictures, numbered from 0."""

    pictures: Pictures
    indices: np.ndarray

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, indices: np.ndarray) -> InMemory:
        return self.pictures[self.indices[indices]]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.pictures.image_shape

    @property
    def multi_hot(self) -> bool:
        return self.pictures.multi_hot
