"""Splits that fit in memory are decoded once and kept in files; larger ones are streamed.

The files are under DATAROOT/decoded. They are copies, which may be removed at any time.
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
from glow_jax.data.dataset import InMemory, Pictures, Readable
from glow_jax.data.streaming import Streamed

_CHUNK = 256


def load_splits(
    config: DataConfig, splits: dict[str, Pictures], folder: str, origin: str, *, crop: int = 0
) -> dict[str, Readable]:
    """Read the splits that fit into memory, smallest first, and stream the others.

    Args:
        config: `memory_limit`, `n_workers` and `dataroot` are used.
        splits: pictures by the name of their split.
        folder: name of the folder of decoded images, under DATAROOT/decoded.
        origin: says what the images are decoded from. Kept images of another origin are not used.
        crop: side of the random crops that batches take; 0 takes whole images.

    Returns:
        The splits by name.
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
            loaded[name] = InMemory(part.images, part.labels, crop)
        else:
            loaded[name] = Streamed(pictures, config.n_workers, crop)
    return loaded


def _decoded(pictures: Pictures, place: Path, origin: str) -> InMemory:
    kept = _kept(place, origin, len(pictures))
    if kept is not None:
        return kept
    split = _decode(pictures, place.parent.name)
    try:
        _keep(split, place, origin)
    except OSError as error:
        warnings.warn(
            f"Decoded images cannot be kept in {place} ({error.strerror}): they are in memory now, "
            "and will be decoded again at the next start.",
            stacklevel=2,
        )
    return split


def _decode(pictures: Pictures, name: str) -> InMemory:
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
    return InMemory(images, np.concatenate(labels))


def _kept(place: Path, origin: str, count: int) -> InMemory | None:
    try:
        if (place / "origin.txt").read_text() != origin:
            return None
        split = InMemory(np.load(place / "images.npy"), np.load(place / "labels.npy"))
    except (OSError, ValueError, EOFError):  # absent or damaged: decoded anew
        return None
    return split if len(split.images) == len(split.labels) == count else None


def _keep(split: InMemory, place: Path, origin: str) -> None:
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
