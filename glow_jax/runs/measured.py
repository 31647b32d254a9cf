"""Measured numbers of each image, in files that grow.

    RUN/ood/measured/DATASET-PART/METER.npz

Each file records its origin: everything that its numbers depend on.
"""

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from glow_jax.files import write_whole

Columns = dict[str, np.ndarray]
"""Numbers of images, by name, each (N, ...)."""

_ORIGIN = "origin"


def measured_file(folder: Path, images: str, meter: str) -> Path:
    """The file in a run folder for what a meter measured on images."""
    return folder / "ood" / "measured" / images / f"{meter}.npz"


def read_columns(path: Path, origin: Mapping[str, object]) -> Columns:
    """Read the numbers in a file; none if it is missing, damaged or of another origin."""
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
    """Write the numbers of images and their origin, completely or not at all."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **{_ORIGIN: np.array(_text(origin)), **columns})
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, buffer.getvalue())
