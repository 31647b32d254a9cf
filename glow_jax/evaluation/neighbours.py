"""The nearest images of a split: is a sample a copy of a training image?"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from glow_jax.data.batching import batches_in_order
from glow_jax.data.dataset import Readable


class Neighbours(NamedTuple):
    """The nearest images of a split, nearest first.

    Attributes:
        indices: their places in the split, (Q, count).
        distances: Euclidean distances in grey levels (0 to 255), (Q, count).
    """

    indices: np.ndarray
    distances: np.ndarray


def nearest(
    queries: np.ndarray,
    split: Readable,
    *,
    count: int = 1,
    batch_size: int = 1000,
    progress: Callable[[int], object] = lambda _: None,
) -> Neighbours:
    """Find the images of a split with the smallest Euclidean distance, a batch at a time.

    |q - x|^2 = |q|^2 - 2 q.x + |x|^2 is computed in float64, which is exact for 8-bit pixels.

    Args:
        queries: uint8, (Q, H, W, C).
        split: the images to search: at least `count`, of the same shape.
        count: the number of neighbours.
        batch_size: images of the split at a time; the result does not depend on it.
        progress: called after each batch with the number of its images.

    Returns:
        The neighbours; of equally near images, the earlier one comes first.
    """
    wanted = _rows(queries)  # (Q, D)
    indices, squares = np.empty((len(wanted), 0), np.int64), np.empty((len(wanted), 0))
    for batch in batches_in_order(split, batch_size=batch_size, classes=0):
        there = _rows(batch.images)  # (B, D)
        found = _norms(wanted)[:, None] - 2 * wanted @ there.T + _norms(there)
        squares = np.concatenate([squares, found], axis=1)
        indices = np.concatenate(
            [indices, np.broadcast_to(batch.indices.astype(np.int64), found.shape)], axis=1
        )
        best = np.argsort(squares, axis=1, kind="stable")[:, :count]
        squares, indices = (np.take_along_axis(part, best, 1) for part in (squares, indices))
        progress(len(there))
    return Neighbours(indices, np.sqrt(squares))


def _rows(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1).astype(np.float64)


def _norms(rows: np.ndarray) -> np.ndarray:
    return np.einsum("nd,nd->n", rows, rows)
