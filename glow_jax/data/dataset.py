"""What a data set is to the rest of the program."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from glow_jax.errors import GlowError


@dataclass(frozen=True)
class Split:
    """Images that fit in memory, with their labels.

    Attributes:
        images: uint8, (N, H, W, C), 0..255.
        labels: class numbers, (N,), integers; or multi-hot, (N, classes), 0 and 1.
    """

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        """The number of images."""
        return len(self.images)

    def __getitem__(self, indices: np.ndarray) -> "Split":
        """The images at `indices`, and their labels."""
        return Split(self.images[indices], self.labels[indices])


@dataclass(frozen=True)
class Dataset:
    """Named images in two splits.

    Attributes:
        name: what it is called on the command line.
        classes: the number of classes.
        train: the training images.
        test: the test images.
        flips: whether a mirrored image is still one of its class.
    """

    name: str
    classes: int
    train: Split
    test: Split
    flips: bool = False

    def __post_init__(self) -> None:
        """Check dtypes, shapes and the range of labels.

        Raises:
            GlowError: naming the split and what is wrong with it.
        """
        for name, split in (("train", self.train), ("test", self.test)):
            where = f"Data set {self.name}, split {name}"
            images, labels = split.images, split.labels
            if images.dtype != np.uint8 or images.ndim != 4:
                raise GlowError(
                    f"{where}: images must be uint8 of shape (N, H, W, C), not {images.dtype} of "
                    f"shape {images.shape}."
                )
            if images.shape[1:] != self.image_shape:
                raise GlowError(
                    f"{where}: images of {images.shape[1:]} among others of {self.image_shape}."
                )
            if len(images) == 0:
                raise GlowError(f"{where} has no images.")
            if labels.shape not in ((len(images),), (len(images), self.classes)):
                raise GlowError(
                    f"{where}: labels must be of shape {(len(images),)} or "
                    f"{(len(images), self.classes)}, not {labels.shape}."
                )
            top = 1 if self.multi_hot else self.classes - 1
            if labels.min() < 0 or labels.max() > top:
                bad = labels.min() if labels.min() < 0 else labels.max()
                raise GlowError(f"{where}: a label is {bad}; labels must lie in 0..{top}.")

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C)."""
        height, width, channels = self.train.images.shape[1:]
        return height, width, channels

    @property
    def multi_hot(self) -> bool:
        """Whether several classes may hold for one image."""
        return self.train.labels.ndim == 2


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


def to_batch(split: Split, indices: np.ndarray, classes: int) -> Batch:
    """The images of a split at `indices`, ready for a step."""
    part = split[indices]
    labels = part.labels if part.labels.ndim == 2 else np.eye(classes)[part.labels]
    return Batch(part.images, labels.astype(np.float32), indices.astype(np.uint32))


def hold_out(split: Split, fraction: float) -> tuple[Split, Split]:
    """Split off a validation set, always the same one: what remains, and what is held out."""
    order = np.random.default_rng(0).permutation(len(split))
    held_out = round(fraction * len(split))
    return split[np.sort(order[held_out:])], split[np.sort(order[:held_out])]


def training_batches(
    split: Split, *, batch_size: int, classes: int, seed: int, first_step: int
) -> Iterator[Batch]:
    """Batches without end, from step `first_step` on.

    The order of an epoch is a function of (seed, epoch) alone; its last, incomplete batch is
    dropped.
    """
    per_epoch = len(split) // batch_size
    epoch, skip = divmod(first_step, per_epoch)
    while True:
        order = np.random.default_rng((seed, epoch)).permutation(len(split))
        for start in range(skip * batch_size, per_epoch * batch_size, batch_size):
            yield to_batch(split, order[start : start + batch_size], classes)
        epoch, skip = epoch + 1, 0


def batches_in_order(split: Split, *, batch_size: int, classes: int) -> Iterator[Batch]:
    """Every image once, in order; the last batch may be smaller."""
    for start in range(0, len(split), batch_size):
        stop = min(start + batch_size, len(split))
        yield to_batch(split, np.arange(start, stop), classes)
