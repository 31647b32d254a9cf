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
    found, columns = _read(path)
    return columns if found == _text(origin) else {}


def columns_of_any_images(
    folder: Path, meter: str, origin: Mapping[str, object], *, besides: str
) -> dict[str, Columns]:
    """What a meter measured on all images of a run, whichever they are.

    Args:
        folder: the run folder.
        meter: the meter's name.
        origin: what its numbers depend on, without the images.
        besides: the key of the images in the origin of a file.

    Returns:
        The numbers by the name of the images, as `measured_file` has it.
    """
    found: dict[str, Columns] = {}
    for path in sorted((folder / "ood" / "measured").glob(f"*/{meter}.npz")):
        of, columns = _read(path)
        try:
            about = json.loads(of)
        except (ValueError, RecursionError):
            continue
        is_of_images = isinstance(about, dict) and about.pop(besides, None) is not None
        if is_of_images and _text(about) == _text(origin):
            found[path.parent.name] = columns
    return found


def _read(path: Path) -> tuple[str, Columns]:
    """The origin of a file as text, and its columns; nothing if it is missing or damaged."""
    try:
        columns = read_stored(path)
    except Exception:  # whatever NumPy and zipfile raise for a damaged file
        return "", {}
    about = columns.pop(_ORIGIN, None)
    if about is None or not columns or about.dtype.kind != "U":
        return "", {}
    # The first files had no list of their columns.
    origin, *names = about.tolist() if about.ndim else [about.item()]
    if names not in ([], [_text(sorted(columns))]):
        return "", {}
    # A file that was written whole has a number for each image in every column.
    fits = all(column.ndim and column.dtype.kind in "fiub" for column in columns.values())
    whole = fits and len(set(map(len, columns.values()))) == 1
    return (origin, columns) if whole else ("", {})


def read_stored(path: Path) -> Columns:
    """The arrays of an `.npz` that is not compressed; none if there is no file.

    Raises:
        Exception: whatever NumPy and zipfile raise for a damaged file.
    """
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
