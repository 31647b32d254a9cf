"""Measuring every image of a split; an interrupted measurement continues where it stopped."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from glow_jax.data.batching import Batch, batches_in_order
from glow_jax.data.dataset import Readable
from glow_jax.evaluation.likelihood import OnImages, ignore
from glow_jax.runs.measured import Columns, read_columns, write_columns

# The most work that an interruption can cost.
_SECONDS_BETWEEN_SAVES = 10.0


def measure_all(
    split: Readable,
    measure: Callable[[Batch], Mapping[str, np.ndarray]],
    *,
    path: Path,
    origin: Mapping[str, object],
    batch_size: int,
    classes: int = 0,
    progress: OnImages = ignore,
) -> Columns:
    """Measure every image of a split, in batches, except those that the file already has.

    Args:
        split: the images.
        measure: returns the numbers of a batch's images by name, each (B, ...).
        path: the file of the numbers; it is continued if it exists.
        origin: what the numbers depend on, as plain JSON values; a file of another origin is
            replaced.
        batch_size: images at a time.
        classes: the number of classes of the labels that are measured with; 0 leaves them out.
        progress: called first with the number of known images, then with that of each batch.
    """
    columns = read_columns(path, origin)
    known = _count(columns)
    if known > len(split):  # no whole file has more numbers than images
        columns, known = {}, 0
    progress(known)
    parts, saved_at = [columns] if known else [], time.monotonic()
    saved = known
    try:
        for batch in batches_in_order(split, batch_size=batch_size, classes=classes, first=known):
            parts.append({name: np.asarray(values) for name, values in measure(batch).items()})
            known += len(batch.indices)
            progress(len(batch.indices))
            if time.monotonic() - saved_at > _SECONDS_BETWEEN_SAVES:
                parts = [_joined(parts)]
                write_columns(path, origin, parts[0])
                saved, saved_at = known, time.monotonic()
    finally:
        columns = _joined(parts)
        if known > saved:
            write_columns(path, origin, columns)
    return columns


def _count(columns: Columns) -> int:
    return len(next(iter(columns.values()), ()))


def _joined(parts: list[Columns]) -> Columns:
    return {name: np.concatenate([part[name] for part in parts]) for name in (parts or [{}])[0]}
