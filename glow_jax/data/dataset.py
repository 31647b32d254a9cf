"""What a data set is to the rest of the program."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from glow_jax.data.batch_order import BatchOrder
from glow_jax.errors import GlowError

# How many images stand for all where hashing all would take too long.
_SAMPLED = 64


class Pictures(Protocol):
    """Images that are counted and picked by number, wherever they are stored.

    Implement it for a data set of your own that is too large for memory. It is pickled and sent to
    the processes that read.

    Attributes:
        image_shape: (H, W, C).
        multi_hot: whether labels are multi-hot.
    """

    @property
    def image_shape(self) -> tuple[int, int, int]: ...  # noqa: D102

    @property
    def multi_hot(self) -> bool: ...  # noqa: D102

    def __len__(self) -> int: ...

    def __getitem__(self, indices: np.ndarray) -> "InMemory": ...


class Readable(Pictures, Protocol):
    """Pictures that can also be read batch by batch."""

    def batches(self, order: BatchOrder, first: int, stop: int) -> Iterator["InMemory"]:
        """The whole images of batches `first` to `stop` of an order, one batch after the other."""
        ...

    def subset(self, indices: np.ndarray) -> "Readable":
        """Only the pictures at `indices`, numbered from 0."""
        ...


@dataclass(frozen=True)
class InMemory:
    """Images that fit in memory, with their labels.

    Attributes:
        images: uint8, (N, H, W, C), 0..255.
        labels: class numbers, (N,), integers; or multi-hot, (N, classes), 0 and 1; (N, 0) where
            there are none.
        crop: side of the square that a batch cuts out of each image at random; 0 takes the whole
            image.
    """

    images: np.ndarray
    labels: np.ndarray
    crop: int = 0

    def __len__(self) -> int:
        """The number of images."""
        return len(self.images)

    def __getitem__(self, indices: np.ndarray) -> "InMemory":
        """The images at `indices`, and their labels."""
        return InMemory(self.images[indices], self.labels[indices], self.crop)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of the images in a batch."""
        height, width, channels = self.images.shape[1:]
        return (self.crop or height, self.crop or width, channels)

    @property
    def multi_hot(self) -> bool:
        """Whether an image may belong to several classes."""
        return self.labels.ndim == 2 and self.labels.shape[1] > 0

    def batches(self, order: BatchOrder, first: int, stop: int) -> Iterator["InMemory"]:
        """The whole images of batches `first` to `stop` of an order, one batch after the other."""
        return (self[order[step]] for step in range(first, stop))

    def subset(self, indices: np.ndarray) -> "InMemory":
        """Only the images at `indices`."""
        return self[indices]


@dataclass(frozen=True)
class Dataset:
    """Named images in two splits.

    Attributes:
        name: its name on the command line.
        classes: the number of classes; 0 where there are no labels.
        train: the training images.
        test: the test images.
        flips: whether a mirrored image is as likely as the original.
        shifts: whether an image shifted by up to 10 percent is.
        class_names: in the order of the class numbers; none where they are not known.
        fingerprint: the same for the same images, wherever they are; empty if the source has none.
    """

    name: str
    classes: int
    train: Readable
    test: Readable
    flips: bool = False
    shifts: bool = False
    class_names: tuple[str, ...] = ()
    fingerprint: str = ""

    def __post_init__(self) -> None:
        """Check sizes and shapes; of images in memory, also dtypes and the range of labels.

        Raises:
            GlowError: something is wrong with a split, which the message names.
        """
        for name, split in (("train", self.train), ("test", self.test)):
            where = f"Data set {self.name}, split {name}"
            if isinstance(split, InMemory):
                _check_arrays(split, self.classes, where)
            if len(split) == 0:
                raise GlowError(f"{where} has no images.")
            if split.image_shape != self.image_shape:
                raise GlowError(
                    f"{where}: images of {split.image_shape} among others of {self.image_shape}."
                )
            if split.multi_hot != self.multi_hot and has_labels(split):
                raise GlowError(f"{where}: labels are class numbers in one split, not in another.")

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C)."""
        return self.train.image_shape

    @property
    def multi_hot(self) -> bool:
        """Whether an image may belong to several classes."""
        return self.train.multi_hot


def _check_arrays(split: InMemory, classes: int, where: str) -> None:
    images, labels = split.images, split.labels
    if images.dtype != np.uint8 or images.ndim != 4:
        raise GlowError(
            f"{where}: images must be uint8 of shape (N, H, W, C), not {images.dtype} of shape "
            f"{images.shape}."
        )
    # Test images may all be without labels, where no label is needed.
    unlabelled = where.endswith("test") and labels.shape == (len(images), 0)
    if labels.shape not in ((len(images),), (len(images), classes)) and not unlabelled:
        raise GlowError(
            f"{where}: labels must be of shape {(len(images),)} or {(len(images), classes)}, not "
            f"{labels.shape}."
        )
    if labels.dtype.kind not in "iub":
        raise GlowError(f"{where}: labels must be integers, not {labels.dtype}.")
    check_label_range(labels, classes, where)


def has_labels(split: Readable) -> bool:
    """Whether the images of a split have labels."""
    if isinstance(split, InMemory):
        return split.labels.ndim == 1 or split.labels.shape[1] > 0
    return not len(split) or split[np.arange(1)].labels.shape != (1, 0)


def check_label_range(labels: np.ndarray, classes: int, where: str) -> None:
    """Check that class numbers, (N,), lie in 0..classes - 1, and multi-hot labels in 0..1.

    Raises:
        GlowError: one does not; the message begins with `where`.
    """
    top = 1 if labels.ndim == 2 else classes - 1
    if labels.size and (labels.min() < 0 or labels.max() > top):
        if labels.min() < 0:
            kind = "class numbers from 0" if labels.ndim == 1 else "0 or 1 for each class"
            raise GlowError(f"{where}: a label is {labels.min()}; labels are {kind}.")
        raise GlowError(f"{where}: a label is {labels.max()}; labels must lie in 0..{top}.")


def sample_of(split: Readable) -> InMemory:
    """The images that identify a split: all that are in memory, or 64 spread over it."""
    if isinstance(split, InMemory) and not split.crop:
        return split
    places = np.linspace(0, len(split) - 1, min(_SAMPLED, len(split)))
    return split[places.astype(int)]


def hold_out(split: Readable, fraction: float) -> tuple[Readable, Readable]:
    """Divide a split into training and validation images, always in the same way.

    Args:
        split: the images.
        fraction: the part that is held out, from 0 to 1.

    Returns:
        What remains, and what is held out.
    """
    held_out = round(fraction * len(split))
    if not held_out:  # the usual case, which should not copy gigabytes
        return split, split.subset(np.arange(0))
    order = np.random.default_rng(0).permutation(len(split))
    return split.subset(np.sort(order[held_out:])), split.subset(np.sort(order[:held_out]))


def with_test_split(
    name: str,
    classes: int,
    splits: dict[str, Readable],
    *,
    flips: bool,
    shifts: bool,
    class_names: tuple[str, ...] = (),
    fingerprint: str = "",
) -> Dataset:
    """A data set of the splits `train` and `test`. Without `test`, a tenth of `train` is held out.

    Args:
        name: as in `Dataset`.
        classes: as in `Dataset`.
        splits: `train`, and `test` where there is one.
        flips: as in `Dataset`.
        shifts: as in `Dataset`.
        class_names: as in `Dataset`.
        fingerprint: as in `Dataset`.
    """
    train, test = splits["train"], splits.get("test")
    if test is None:
        train, test = hold_out(train, 0.1)
    return Dataset(
        name,
        classes,
        train,
        test,
        flips=flips,
        shifts=shifts,
        class_names=class_names,
        fingerprint=fingerprint,
    )
