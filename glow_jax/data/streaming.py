"""Pictures that do not fit in memory, read by Grain ahead of the training step."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from glow_jax.data.batch_order import Plan
from glow_jax.data.dataset import Pictures, Split


@dataclass(frozen=True)
class Streamed:
    """Pictures read batch by batch, by processes that work ahead.

    Attributes:
        pictures: where they come from; pickled to the processes.
        n_workers: processes that read; 0 reads in threads of this one.
        crop: side of the square that a batch takes out of each image at random; 0 takes it whole.
    """

    pictures: Pictures
    n_workers: int
    crop: int = 0

    def __len__(self) -> int:
        """The number of pictures."""
        return len(self.pictures)

    def __getitem__(self, indices: np.ndarray) -> Split:
        """The images at `indices`, and their labels, in memory."""
        part = self.pictures[indices]
        return Split(part.images, part.labels, self.crop)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of the images in a batch."""
        height, width, channels = self.pictures.image_shape
        return (self.crop or height, self.crop or width, channels)

    @property
    def multi_hot(self) -> bool:
        """Whether several classes may hold for one image."""
        return self.pictures.multi_hot

    def subset(self, indices: np.ndarray) -> "Streamed":
        """The pictures at `indices` only, numbered anew."""
        return Streamed(_Subset(self.pictures, indices), self.n_workers, self.crop)

    def read(self, plan: Plan, first: int, stop: int) -> Iterator[Split]:
        """The images of batches `first` to `stop` of a plan, in order, read ahead.

        A batch is one element to Grain: which images it holds is the plan's to say, so that the
        order is the one in memory and a batch's number is all the state there is.
        """
        import grain  # a second or more, which data in memory should not pay
        from absl import flags

        # Grain's processes are handed absl's flags, which only an absl program has parsed.
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()
        workers = min(self.n_workers, os.cpu_count() or 1)
        batches = grain.MapDataset.range(first, stop).map(_Reader(self, plan))
        threads = 1 if workers else 4
        stream = batches.to_iter_dataset(
            grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
        )
        if workers:
            stream = stream.mp_prefetch(
                grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=2)
            )
        # Closed here and now: left to the garbage collector, the processes outlive the program.
        with contextlib.closing(iter(stream)) as parts:
            for images, labels in parts:
                yield Split(images, labels, self.crop)


@dataclass(frozen=True)
class _Reader:
    """Reads one batch; arrays, because Grain passes those between processes without a copy."""

    split: Streamed
    plan: Plan

    def __call__(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        part = self.split[self.plan[step]]
        return part.images, part.labels


@dataclass(frozen=True)
class _Subset:
    """Some of the pictures, numbered anew."""

    pictures: Pictures
    indices: np.ndarray

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, indices: np.ndarray) -> Split:
        return self.pictures[self.indices[indices]]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.pictures.image_shape

    @property
    def multi_hot(self) -> bool:
        return self.pictures.multi_hot
