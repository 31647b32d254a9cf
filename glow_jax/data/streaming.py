"""Pictures that do not fit in memory, read by Grain ahead of the training step."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from glow_jax.data.batch_order import BatchOrder
from glow_jax.data.dataset import InMemory, Pictures


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
        therefore the same as in memory, and the number of a batch is the only state.
        """
        import grain  # a second or more, which data in memory should not pay
        from absl import flags

        # Grain passes absl's flags on to its processes, and only an absl program has parsed them.
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()
        workers = min(self.n_workers, os.cpu_count() or 1)
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
            for images, labels in parts:
                yield InMemory(images, labels, self.crop)


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
