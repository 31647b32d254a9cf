"""Numbers of each image, in files that grow.

    RUN/ood/measured/DATASET-PART/METER.npz

A file says what its numbers are functions of: its origin.
"""

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from glow_jax.files import write_whole

Columns = dict[str, np.ndarray]
"""Numbers of images by name: each (N, ...)."""

_ORIGIN = "origin"


def measured_file(folder: Path, images: str, meter: str) -> Path:
    """Where a run folder keeps what a meter measured of images."""
    return folder / "ood" / "measured" / images / f"{meter}.npz"


def read_columns(path: Path, origin: Mapping[str, object]) -> Columns:
    """The numbers in a file of that origin; none where there is no such file, or it is damaged."""
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            columns = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return {}
    found = columns.pop(_ORIGIN, None)
    return columns if found is not None and str(found) == _text(origin) else {}


def _text(origin: Mapping[str, object]) -> str:
    return json.dumps(origin, sort_keys=True)


def write_columns(path: Path, origin: Mapping[str, object], columns: Columns) -> None:
    """Write the numbers of images, and their origin, whole or not at all."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **{_ORIGIN: np.array(_text(origin)), **columns})
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, buffer.getvalue())
