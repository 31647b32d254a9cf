"""What fits in memory is decoded once, kept in a file, and sliced from then on; the rest streams.

The files lie under DATAROOT/decoded, and are only ever a copy: to remove them is safe.
"""

import concurrent.futures
import os
import shutil
import tempfile
import warnings
from pathlib import Path

import numpy as np
from tqdm import tqdm

from glow_jax.config import DataConfig
from glow_jax.data.dataset import Dataset, Pictures, Readable, Split, hold_out
from glow_jax.data.streaming import Streamed

_CHUNK = 256


def load_splits(
    config: DataConfig, splits: dict[str, Pictures], folder: str, origin: str, *, crop: int = 0
) -> dict[str, Readable]:
    """Read into memory what fits, smallest first; stream the rest.

    Args:
        config: `memory_limit`, `n_workers` and `dataroot` are used.
        splits: pictures by the name of their split.
        folder: name of the folder of decoded images, under DATAROOT/decoded.
        origin: what the images are decoded from; decoded images of another origin are not used.
        crop: side of the random crops that batches take; 0 takes whole images.
    """
    left = config.memory_limit * 1e9
    loaded: dict[str, Readable] = {}
    for name in sorted(splits, key=lambda name: len(splits[name])):
        pictures = splits[name]
        size = len(pictures) * int(np.prod(pictures.image_shape))
        if size <= left:
            left -= size
            place = Path(config.dataroot) / "decoded" / folder / name
            part = _decoded(pictures, place, origin)
            loaded[name] = Split(part.images, part.labels, crop)
        else:
            loaded[name] = Streamed(pictures, config.n_workers, crop)
    return loaded


def _decoded(pictures: Pictures, place: Path, origin: str) -> Split:
    kept = _read(place, origin, len(pictures))
    if kept is not None:
        return kept
    split = _decode(pictures, place.parent.name)
    try:
        _write(split, place, origin)
    except OSError as error:
        warnings.warn(
            f"Decoded images cannot be kept in {place} ({error.strerror}): they are in memory now, "
            "and will be decoded again at the next start.",
            stacklevel=2,
        )
    return split


def _decode(pictures: Pictures, name: str) -> Split:
    chunks = [
        np.arange(start, min(start + _CHUNK, len(pictures)))
        for start in range(0, len(pictures), _CHUNK)
    ]
    images = np.empty((len(pictures), *pictures.image_shape), np.uint8)
    labels = []
    with (
        concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool,
        tqdm(total=len(pictures), desc=f"decoding {name}", unit="image", leave=False) as bar,
    ):
        for chunk, part in zip(chunks, pool.map(pictures.__getitem__, chunks), strict=True):
            images[chunk] = part.images
            labels.append(part.labels)
            bar.update(len(chunk))
    return Split(images, np.concatenate(labels))


def _read(place: Path, origin: str, count: int) -> Split | None:
    try:
        if (place / "origin.txt").read_text() != origin:
            return None
        split = Split(np.load(place / "images.npy"), np.load(place / "labels.npy"))
    except (OSError, ValueError, EOFError):  # absent or damaged: decoded anew
        return None
    return split if len(split.images) == len(split.labels) == count else None


def _write(split: Split, place: Path, origin: str) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(dir=place.parent, prefix=f".{place.name}."))
    try:
        np.save(aside / "images.npy", split.images)
        np.save(aside / "labels.npy", split.labels)
        (aside / "origin.txt").write_text(origin)
        shutil.rmtree(place, ignore_errors=True)
        aside.rename(place)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def with_test_split(
    name: str, classes: int, splits: dict[str, Readable], *, flips: bool, shifts: bool
) -> Dataset:
    """A data set of splits `train` and `test`; where there is no `test`, a tenth of `train`."""
    train, test = splits["train"], splits.get("test")
    if test is None:
        train, test = hold_out(train, 0.1)
    return Dataset(name, classes, train, test, flips=flips, shifts=shifts)
