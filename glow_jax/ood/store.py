"""Numbers of each image, kept in a file that grows: what was interrupted goes on where it stopped.

    RUN/ood/measured/DATASET-PART/METER.npz

A file says what its numbers are functions of, and is only gone on with where that is the same.
"""

import io
import json
import time
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from glow_jax.data.batching import Batch, batches_in_order
from glow_jax.data.dataset import Readable
from glow_jax.files import write_whole

Columns = dict[str, np.ndarray]
"""Numbers of images by name: each (N, ...)."""

# How much work an interruption can cost.
_SECONDS_BETWEEN_SAVES = 10.0
_ORIGIN = "origin"


def measure_all(
    split: Readable,
    measure: Callable[[Batch], Mapping[str, np.ndarray]],
    *,
    path: Path,
    origin: Mapping[str, Any],
    batch_size: int,
    progress: Callable[[int], Any] = lambda _: None,
) -> Columns:
    """Measure every image of a split, batch by batch, but for those that the file has already.

    Args:
        split: the images.
        measure: numbers of a batch's images by name, each (B, ...).
        path: the file to go on with.
        origin: what the numbers are functions of, as JSON has it; a file of another origin is
            replaced.
        batch_size: images at a time.
        progress: called with the number of images that have come to be known.
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
                _write(path, origin, parts[0])
                saved, saved_at = known, time.monotonic()
    finally:
        columns = _joined(parts)
        if known > saved:
            _write(path, origin, columns)
    return columns


def read_columns(path: Path, origin: Mapping[str, Any]) -> Columns:
    """The numbers in a file of that origin; none where there is no such file, or it is damaged."""
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            columns = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return {}
    found = columns.pop(_ORIGIN, None)
    return columns if found is not None and str(found) == _text(origin) else {}


def _text(origin: Mapping[str, Any]) -> str:
    return json.dumps(origin, sort_keys=True)


def _count(columns: Columns) -> int:
    return len(next(iter(columns.values()), ()))


def _joined(parts: list[Columns]) -> Columns:
    return {name: np.concatenate([part[name] for part in parts]) for name in (parts or [{}])[0]}


def _write(path: Path, origin: Mapping[str, Any], columns: Columns) -> None:
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {_ORIGIN: np.array(_text(origin)), **columns}
    np.savez(buffer, **arrays)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, buffer.getvalue())
