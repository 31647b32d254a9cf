"""What a data set is to the rest of the program, and the batches it is read in."""

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from glow_jax.data.batch_order import InOrder, Plan, Share, Shuffled
from glow_jax.data.crops import random_crops
from glow_jax.errors import GlowError


class Pictures(Protocol):
    """Images that can be counted and picked by number, wherever they lie.

    What a data set of one's own implements when it is too large for memory; it is pickled to the
    processes that read.

    Attributes:
        image_shape: (H, W, C).
        multi_hot: whether labels are multi-hot.
    """

    @property
    def image_shape(self) -> tuple[int, int, int]: ...  # noqa: D102

    @property
    def multi_hot(self) -> bool: ...  # noqa: D102

    def __len__(self) -> int: ...

    def __getitem__(self, indices: np.ndarray) -> "Split": ...


class Readable(Pictures, Protocol):
    """Pictures that can also be read by a plan, in memory or ahead of the training step."""

    def read(self, plan: Plan, first: int, stop: int) -> Iterator["Split"]:
        """The images of batches `first` to `stop` of a plan, whole, in order."""
        ...

    def subset(self, indices: np.ndarray) -> "Readable":
        """The pictures at `indices` only, numbered anew."""
        ...


@dataclass(frozen=True)
class Split:
    """Images that fit in memory, with their labels.

    Attributes:
        images: uint8, (N, H, W, C), 0..255.
        labels: class numbers, (N,), integers; or multi-hot, (N, classes), 0 and 1; (N, 0) where
            there are none.
        crop: side of the square that a batch takes out of each image at random; 0 takes it whole.
    """

    images: np.ndarray
    labels: np.ndarray
    crop: int = 0

    def __len__(self) -> int:
        """The number of images."""
        return len(self.images)

    def __getitem__(self, indices: np.ndarray) -> "Split":
        """The images at `indices`, and their labels."""
        return Split(self.images[indices], self.labels[indices], self.crop)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of the images in a batch."""
        height, width, channels = self.images.shape[1:]
        return (self.crop or height, self.crop or width, channels)

    @property
    def multi_hot(self) -> bool:
        """Whether several classes may hold for one image."""
        return self.labels.ndim == 2 and self.labels.shape[1] > 0

    def read(self, plan: Plan, first: int, stop: int) -> Iterator["Split"]:
        """The images of batches `first` to `stop` of a plan, in order."""
        return (self[plan[step]] for step in range(first, stop))

    def subset(self, indices: np.ndarray) -> "Split":
        """The images at `indices` only."""
        return self[indices]


@dataclass(frozen=True)
class Dataset:
    """Named images in two splits.

    Attributes:
        name: what it is called on the command line.
        classes: the number of classes; 0 where there are no labels.
        train: the training images.
        test: the test images.
        flips: whether a mirrored image is as likely as the image.
        shifts: whether an image shifted by up to 10 percent is.
    """

    name: str
    classes: int
    train: Readable
    test: Readable
    flips: bool = False
    shifts: bool = False

    def __post_init__(self) -> None:
        """Check sizes, shapes, and what is in memory: dtypes and the range of labels.

        Raises:
            GlowError: naming the split and what is wrong with it.
        """
        for name, split in (("train", self.train), ("test", self.test)):
            where = f"Data set {self.name}, split {name}"
            if isinstance(split, Split):
                _check_arrays(split, self.classes, where)
            if len(split) == 0:
                raise GlowError(f"{where} has no images.")
            if split.image_shape != self.image_shape:
                raise GlowError(
                    f"{where}: images of {split.image_shape} among others of {self.image_shape}."
                )
            if split.multi_hot != self.multi_hot:
                raise GlowError(f"{where}: labels are class numbers in one split, not in another.")

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C)."""
        return self.train.image_shape

    @property
    def multi_hot(self) -> bool:
        """Whether several classes may hold for one image."""
        return self.train.multi_hot


def _check_arrays(split: Split, classes: int, where: str) -> None:
    images, labels = split.images, split.labels
    if images.dtype != np.uint8 or images.ndim != 4:
        raise GlowError(
            f"{where}: images must be uint8 of shape (N, H, W, C), not {images.dtype} of shape "
            f"{images.shape}."
        )
    if labels.shape not in ((len(images),), (len(images), classes)):
        raise GlowError(
            f"{where}: labels must be of shape {(len(images),)} or {(len(images), classes)}, not "
            f"{labels.shape}."
        )
    if labels.dtype.kind not in "iub":
        raise GlowError(f"{where}: labels must be integers, not {labels.dtype}.")
    _check_range(labels, classes, where)


def _check_range(labels: np.ndarray, classes: int, where: str) -> None:
    top = 1 if labels.ndim == 2 else classes - 1
    if labels.size and (labels.min() < 0 or labels.max() > top):
        bad = labels.min() if labels.min() < 0 else labels.max()
        raise GlowError(f"{where}: a label is {bad}; labels must lie in 0..{top}.")


@dataclass(frozen=True)
class Batch:
    """Images on their way into a step.

    Attributes:
        images: uint8, (B, H, W, C).
        labels: one-hot or multi-hot, float32, (B, classes).
        indices: each image's place in its split, (B,): what its noise is drawn by.
    """

    images: np.ndarray
    labels: np.ndarray
    indices: np.ndarray


def to_batch(split: Pictures, indices: np.ndarray, classes: int) -> Batch:
    """The images of a split at `indices`, ready for a step; crops, if any, are always the same.

    With 0 classes, labels are left out.

    Raises:
        GlowError: a label is out of range.
    """
    return _assemble(split[indices], indices, classes, ())


def _assemble(part: Split, indices: np.ndarray, classes: int, draw: tuple[int, ...]) -> Batch:
    labels = part.labels if classes else np.empty((len(indices), 0), np.float32)
    if labels.ndim == 1:
        _check_range(labels, classes, "The images of a batch")
        labels = np.eye(classes)[labels.astype(np.int64)]
    images = random_crops(part.images, part.crop, indices, draw) if part.crop else part.images
    return Batch(images, labels.astype(np.float32), indices.astype(np.uint32))


def hold_out(split: Readable, fraction: float) -> tuple[Readable, Readable]:
    """Split off a validation set, always the same one: what remains, and what is held out."""
    held_out = round(fraction * len(split))
    if not held_out:  # the usual case, which should not copy gigabytes
        return split, split.subset(np.arange(0))
    order = np.random.default_rng(0).permutation(len(split))
    return split.subset(np.sort(order[held_out:])), split.subset(np.sort(order[:held_out]))


def training_batches(
    split: Readable,
    *,
    batch_size: int,
    classes: int,
    seed: int,
    first_step: int,
    share: tuple[int, int] = (0, 1),
) -> Generator[Batch, None, None]:
    """Batches without end, from step `first_step` on.

    The order of an epoch is a function of (seed, epoch) alone, whether images are in memory or
    streamed; its last, incomplete batch is dropped. With a share of (i, n), process i of n gets its
    part of each batch.
    """
    plan = Share(Shuffled(len(split), batch_size, seed), *share)
    parts = split.read(plan, first_step, len(plan))
    for step, part in enumerate(parts, start=first_step):
        yield _assemble(part, plan[step], classes, (seed, step))


def batches_in_order(
    split: Readable,
    *,
    batch_size: int,
    classes: int,
    share: tuple[int, int] = (0, 1),
    first: int = 0,
) -> Iterator[Batch]:
    """Every image once, in order, from the `first` on; the last batch may be smaller.

    A share is that of training.
    """
    plan = Share(InOrder(len(split), batch_size, first), *share)
    for step, part in enumerate(split.read(plan, 0, len(plan))):
        yield _assemble(part, plan[step], classes, ())
