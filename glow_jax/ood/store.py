"""Measuring every image of a split; what was interrupted goes on where it stopped."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from glow_jax.data.batching import Batch, batches_in_order
from glow_jax.data.dataset import Readable
from glow_jax.evaluation.likelihood import OnImages, ignore
from glow_jax.runs.measured import Columns, read_columns, write_columns

# How much work an interruption can cost.
_SECONDS_BETWEEN_SAVES = 10.0


def measure_all(
    split: Readable,
    measure: Callable[[Batch], Mapping[str, np.ndarray]],
    *,
    path: Path,
    origin: Mapping[str, object],
    batch_size: int,
    progress: OnImages = ignore,
) -> Columns:
    """Measure every image of a split, batch by batch, but for those that the file has already.

    Args:
        split: the images.
        measure: numbers of a batch's images by name, each (B, ...).
        path: the file to go on with.
        origin: what the numbers are functions of, as JSON has it; a file of another origin is
            replaced.
        batch_size: images at a time.
        progress: called with the number of images after each batch, and of those known already.
    """
    columns = read_columns(path, origin)
    known = _count(columns)
    progress(known)
    parts, saved_at = [columns] if known else [], time.monotonic()
    saved = known
    try:
        for batch in batches_in_order(split, batch_size=batch_size, classes=0, first=known):
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
