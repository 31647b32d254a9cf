"""Measured numbers of each image, in files that grow.

    RUN/ood/measured/DATASET-PART/METER.npz

Each file records its origin, which is everything that its numbers depend on, and its columns.
"""

import errno
import io
import json
import os
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from glow_jax.files import write_whole
from glow_jax.runs.inside import open_inside

Columns = dict[str, np.ndarray]
"""Numbers of images, by name, each (N, ...)."""

_ORIGIN = "origin"


def measured_file(folder: Path, images: str, meter: str) -> Path:
    """The file in a run folder for what a meter measured on images."""
    return folder / "ood" / "measured" / images / f"{meter}.npz"


def read_columns(path: Path, origin: Mapping[str, object]) -> Columns:
    """Read the numbers in a file; none if it is missing, damaged or of another origin."""
    try:
        columns = _read(path)
    except Exception:  # whatever NumPy and zipfile raise for a damaged file
        return {}
    found = columns.pop(_ORIGIN, None)
    if found is None or not columns:
        return {}
    # The first files had no list of their columns.
    expected = [_text(origin), _text(sorted(columns))] if found.ndim else _text(origin)
    if found.tolist() != expected:
        return {}
    # A file that was written whole has a number for each image in every column.
    fits = all(column.ndim and column.dtype.kind in "fiub" for column in columns.values())
    return columns if fits and len(set(map(len, columns.values()))) == 1 else {}


def _read(path: Path) -> Columns:
    if not path.exists():
        return {}
    with open_inside(path, os.O_RDONLY) as stream:
        size = os.fstat(stream.fileno()).st_size
        with zipfile.ZipFile(stream) as file:
            entries = file.infolist()
        # They are written without compression, so they cannot hold more than the file is long.
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            return {}
        if sum(entry.file_size for entry in entries) > size:
            return {}
        stream.seek(0)
        with np.load(stream, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}


def _text(values: object) -> str:
    return json.dumps(values, sort_keys=True)


def write_columns(path: Path, origin: Mapping[str, object], columns: Columns) -> None:
    """Write the numbers of images and their origin, completely or not at all.

    Where nobody may write they are not kept, which a later measurement costs time and nothing else.
    """
    buffer = io.BytesIO()
    about = np.array([_text(origin), _text(sorted(columns))])
    np.savez(buffer, allow_pickle=False, **{_ORIGIN: about, **columns})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, buffer.getvalue())
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        print(f"warning: {path} cannot be written: {error.strerror}.", file=sys.stderr)
