"""`python -m glow_jax.data.sources.tfds_child NAME DATAROOT` downloads and prepares a data set.

No other module causes TensorFlow to be imported.
"""

import contextlib
import errno
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import requests

from glow_jax.data.sources.tfds_builder import open_builder
from glow_jax.data.sources.tfds_prepare import manual_folder
from glow_jax.errors import GlowError

if TYPE_CHECKING:
    from tensorflow_datasets.core.dataset_builder import DatasetBuilder


def prepare(builder: "DatasetBuilder", dataroot: str) -> None:
    """Download and prepare one data set, whole or not at all.

    Args:
        builder: the data set's builder of tensorflow-datasets.
        dataroot: the folder of data sets.

    Raises:
        GlowError: something went wrong. The files left behind do not disturb the next run.
    """
    from tensorflow_datasets.core.download import DownloadConfig

    root = Path(dataroot)
    settings = DownloadConfig(manual_dir=manual_folder(dataroot), try_download_gcs=False)
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _alone(root / f".{builder.name}.lock"):
            if builder.is_prepared():
                return
            _remove_leftovers(builder, root)
            builder.download_and_prepare(download_dir=root / "downloads", download_config=settings)
    except Exception as error:  # whatever a builder, an archive or TensorFlow raises
        raise GlowError(_sentence(error, builder.name, root)) from error


def _sentence(error: Exception, name: str, root: Path) -> str:
    text = " ".join(str(error).split())
    full = "No space left" in text or "Not enough disk space" in text
    if full or (isinstance(error, OSError) and error.errno == errno.ENOSPC):
        return f"The disk of {root} is full: make room to prepare {name}, and run again."
    if isinstance(error, PermissionError):
        return f"{error.filename or root} may not be written: give another --dataroot."
    if isinstance(error, requests.RequestException):
        return f"The download of {name} broke off ({type(error).__name__}): run again."
    if type(error).__name__ == "NonMatchingChecksumError":
        path = Path(text.partition("downloaded to ")[2].partition(", has wrong")[0])
        mend = "replace or remove it" if path.parent == manual_folder(str(root)) else "run again"
        return f"{path} is not the file that {name} is published as: {mend}."
    # The remaining case is an archive that cannot be read. The next run would fail on it as well.
    removed = _remove(root / "downloads" / name)
    again = "; what was downloaded is removed: run again to download it anew" if removed else ""
    return f"Preparing {name} failed: {type(error).__name__}: {text[:300].rstrip('.')}{again}."


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Make other processes wait before they prepare the same data set."""
    import fcntl  # absent on Windows, where array_record is too

    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _remove_leftovers(builder: "DatasetBuilder", root: Path) -> None:
    """Remove the files of earlier preparations that were interrupted."""
    for folder in Path(builder.data_dir).parent.glob("incomplete.*"):
        _remove(folder)
    for folder in (root / "downloads" / builder.name).glob("*.tmp.*"):
        _remove(folder)


def _remove(folder: Path) -> bool:
    there = folder.exists()
    shutil.rmtree(folder, ignore_errors=True)
    return there


def main(name: str, dataroot: str) -> None:
    """Prepare a data set by its name, and print an error as one line of standard output."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    builder = open_builder(name, dataroot)
    with contextlib.redirect_stdout(sys.stderr):
        problem = _attempt(builder, dataroot)
    if problem:
        print(problem)
        sys.exit(2)


def _attempt(builder: "DatasetBuilder", dataroot: str) -> str:
    try:
        prepare(builder, dataroot)
    except GlowError as error:
        return str(error)
    return ""


if __name__ == "__main__":
    main(*sys.argv[1:])
