"""Data sets of your own arrays."""

import numpy as np

from glow_jax.config import DataConfig
from glow_jax.data.dataset import Dataset, InMemory, hold_out
from glow_jax.errors import GlowError

_CLASS_LIMIT = DataConfig.class_limit
# A model may be conditioned on so many; a greater number is a key or a hash.
_MOST_CLASSES = 1_000_000
# The width of no picture: a last axis of so many holds channels.
_MOST_CHANNELS = 4


def from_arrays(
    name: str,
    images: np.ndarray,
    labels: np.ndarray | None = None,
    *,
    test_images: np.ndarray | None = None,
    test_labels: np.ndarray | None = None,
    flips: bool = False,
    shifts: bool = False,
    class_limit: int = _CLASS_LIMIT,
) -> Dataset:
    """A data set of arrays in memory.

    Args:
        name: its name in messages.
        images: uint8, (N, H, W, C), or (N, H, W) where there is one channel.
        labels: class numbers from 0, (N,), or multi-hot, (N, classes); None where there are none.
        test_images: the test images; None holds out a tenth of `images`, always the same tenth.
        test_labels: the labels of the test images, as `labels`.
        flips: whether a mirrored image is as likely as the original.
        shifts: whether an image shifted by up to 10 percent is.
        class_limit: classes that labels may have.

    Raises:
        GlowError: a dtype, a shape or a label is wrong.
    """
    if labels is None and test_labels is not None:
        raise GlowError("There are test_labels and no labels: give both, or neither.")
    whole = _split(images, labels, class_limit)
    if test_images is None:
        train, test = hold_out(whole, 0.1)
    else:
        train, test = whole, _split(test_images, test_labels, class_limit)
    return Dataset(name, _classes(whole.labels), train, test, flips=flips, shifts=shifts)


def _split(images: np.ndarray, labels: np.ndarray | None, class_limit: int) -> InMemory:
    images = np.asarray(images)
    check_images(images.shape)
    images = images[..., None] if images.ndim == 3 else images
    if labels is None:
        return InMemory(images, np.empty((len(images), 0), np.int32))
    labels = np.asarray(labels)
    whole = np.issubdtype(labels.dtype, np.integer) or labels.dtype == bool
    if not whole or labels.ndim not in (1, 2) or len(labels) != len(images):
        raise GlowError(
            f"Labels must be whole numbers of shape ({len(images)},) or ({len(images)}, classes), "
            f"not {labels.dtype} of shape {labels.shape}."
        )
    if labels.ndim == 2 and labels.shape[1] == 1:  # as Keras gives them
        labels = labels[:, 0]
    classes = _classes(labels)
    if classes > class_limit:
        what = f"a label is {classes - 1}" if labels.ndim == 1 else f"labels have {classes} columns"
        limit = f", or give --class_limit {classes}, which is {class_limit} now"
        raise GlowError(
            f"Labels are class numbers from 0, and {what}: number the classes anew"
            f"{limit if classes <= _MOST_CLASSES else ''}."
        )
    if labels.dtype.kind == "u" and labels.ndim == 1:
        labels = labels.astype(np.int64)  # all are small now
    return InMemory(images, labels)


def _classes(labels: np.ndarray) -> int:
    if labels.ndim == 2:
        return labels.shape[1]
    return int(labels.max()) + 1 if labels.size else 0


def check_images(shape: tuple[int, ...]) -> None:
    """Check the shape of images; say so where it is that of one, or channels come first.

    Raises:
        GlowError: it is none of (N, H, W, C) or (N, H, W).
    """
    if len(shape) not in (3, 4):
        raise GlowError(f"Images must be of shape (N, H, W, C), not {shape}.")
    if 0 in shape[1:]:
        raise GlowError(f"Images must have pixels, and theirs are of shape {shape[1:]}.")
    if len(shape) == 3 and shape[2] <= _MOST_CHANNELS < shape[1]:
        raise GlowError(
            f"Images must be of shape (N, H, W, C), and {shape} is that of one picture, (H, W, C): "
            "stack several, or save images[..., None] if they are as narrow as that."
        )
    if len(shape) == 4 and shape[1] <= _MOST_CHANNELS < min(shape[2:]):
        raise GlowError(
            f"Images must be of shape (N, H, W, C), and {shape} has its channels first: save "
            "images.transpose(0, 2, 3, 1)."
        )


def check_pixels(kind: np.dtype) -> None:
    """Check the type of images, and say how another one becomes that.

    Raises:
        GlowError: it is not uint8.
    """
    if kind == np.uint8:
        return
    ways = {
        "f": "; scale them to 0..255 first, and save images.astype(np.uint8)",
        "b": "; save images.astype(np.uint8) * 255",
        "i": "; save images.astype(np.uint8) if they lie in 0..255",
        "u": "; save images.astype(np.uint8) if they lie in 0..255",
    }
    if kind == np.uint16:
        ways["u"] = "; save (images >> 8).astype(np.uint8) if they lie in 0..65535"
    raise GlowError(
        f"images must be uint8 of shape (N, H, W, C), not {kind}{ways.get(kind.kind, '')}"
    )
