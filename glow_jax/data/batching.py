"""Batches of a split, in the order of training or of evaluation."""

from collections.abc import Generator, Iterator
from dataclasses import dataclass

import numpy as np

from glow_jax.data.batch_order import ONLY_PROCESS, InOrder, Process, ProcessPart, Shuffled
from glow_jax.data.dataset import InMemory, Pictures, Readable, check_label_range


@dataclass(frozen=True)
class Batch:
    """The images of one step.

    Attributes:
        images: uint8, (B, H, W, C).
        labels: one-hot or multi-hot, float32, (B, classes).
        indices: each image's number in its split, (B,), uint32. Random numbers for an image are
            functions of it.
    """

    images: np.ndarray
    labels: np.ndarray
    indices: np.ndarray


def to_batch(split: Pictures, indices: np.ndarray, classes: int) -> Batch:
    """A batch of the images at `indices`.

    Where the split takes random crops, they are the same ones at every call.

    Args:
        split: the images.
        indices: which ones, (B,).
        classes: the number of classes; 0 leaves labels out.

    Raises:
        GlowError: a label is out of range.
    """
    return _assemble(split[indices], indices, classes, ())


def _assemble(part: InMemory, indices: np.ndarray, classes: int, draw: tuple[int, ...]) -> Batch:
    labels = part.labels if classes else np.empty((len(indices), 0), np.float32)
    if labels.ndim == 1:
        check_label_range(labels, classes, "The images of a batch")
        numbers, labels = labels.astype(np.int64), np.zeros((len(labels), classes), np.float32)
        labels[np.arange(len(numbers)), numbers] = 1
    images = random_crops(part.images, part.crop, indices, draw) if part.crop else part.images
    return Batch(images, labels.astype(np.float32), indices.astype(np.uint32))


def random_crops(
    images: np.ndarray, size: int, indices: np.ndarray, draw: tuple[int, ...]
) -> np.ndarray:
    """Cut a square out of each image; its place is uniform, and drawn by (draw, the image's index).

    The published figures on LSUN come from training on such crops.

    Args:
        images: uint8, (B, H, W, C).
        size: side of the square, at most H and W.
        indices: each image's number in its split, (B,).
        draw: (seed, step) in training; () gives the same crops each time.

    Returns:
        uint8, (B, size, size, C).
    """
    reach = np.array(images.shape[1:3]) - size + 1
    crops = np.empty((len(images), size, size, images.shape[3]), np.uint8)
    for crop, image, index in zip(crops, images, indices, strict=True):
        top, left = np.random.default_rng((*draw, int(index))).integers(reach)
        crop[:] = image[top : top + size, left : left + size]
    return crops


def training_batches(
    split: Readable,
    *,
    batch_size: int,
    classes: int,
    seed: int,
    first_step: int,
    process: Process = ONLY_PROCESS,
) -> Generator[Batch, None, None]:
    """Endless batches for training.

    The order of an epoch is a function of (seed, epoch) alone, whether images are in memory or
    streamed. An incomplete last batch of an epoch is dropped.

    Args:
        split: the training images.
        batch_size: images in a batch, over all processes.
        classes: the number of classes; 0 leaves labels out.
        seed: decides the order and the crops.
        first_step: the step of the first batch.
        process: the process whose part of each batch is read.
    """
    order = ProcessPart(Shuffled(len(split), batch_size, seed), process)
    parts = split.batches(order, first_step, len(order))
    for step, part in enumerate(parts, start=first_step):
        yield _assemble(part, order[step], classes, (seed, step))


def batches_in_order(
    split: Readable,
    *,
    batch_size: int,
    classes: int,
    process: Process = ONLY_PROCESS,
    first: int = 0,
) -> Iterator[Batch]:
    """Batches that hold every image once, in order; the last one may be smaller.

    Args:
        split: the images.
        batch_size: images in a batch, over all processes.
        classes: the number of classes; 0 leaves labels out.
        process: the process whose part of each batch is read.
        first: the image to begin with.
    """
    order = ProcessPart(InOrder(len(split), batch_size, first), process)
    for step, part in enumerate(split.batches(order, 0, len(order))):
        yield _assemble(part, order[step], classes, ())
