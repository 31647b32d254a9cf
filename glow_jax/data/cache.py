"""Splits that fit in memory are decoded once and kept in files; larger ones are streamed.

The files are under DATAROOT/decoded, or in the user's own cache where DATAROOT is only read. They
are copies, which may be removed at any time.
"""

import concurrent.futures
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
from tqdm import tqdm

from glow_jax.config import DataConfig
from glow_jax.data.dataset import InMemory, Pictures, Readable
from glow_jax.data.notes import note
from glow_jax.data.places import Places
from glow_jax.data.streaming import Streamed
from glow_jax.errors import shown

_CHUNK = 256


def load_splits(
    config: DataConfig,
    splits: dict[str, Pictures],
    folder: str,
    origin: str,
    *,
    crop: int = 0,
    places: Places | None = None,
) -> dict[str, Readable]:
    """Read the splits that fit into memory, smallest first, and stream the others.

    Args:
        config: `memory_limit`, `n_workers` and `dataroot` are used.
        splits: pictures by the name of their split.
        folder: name of the folder of decoded images.
        origin: says what the images are decoded from. Kept images of another origin are not used.
        crop: side of the random crops that batches take; 0 takes whole images.
        places: where decoded images are; DATAROOT/decoded if left out.

    Returns:
        The splits by name.
    """
    places = places or Places(config.dataroot)
    left = config.memory_limit * 1e9
    loaded: dict[str, Readable] = {}
    for name in sorted(splits, key=lambda name: len(splits[name])):
        pictures = splits[name]
        size = len(pictures) * int(np.prod(pictures.image_shape))
        if size <= left:
            left -= size
            part = _decoded(pictures, places, Path(folder, name), origin)
            loaded[name] = InMemory(part.images, part.labels, crop)
        else:
            loaded[name] = Streamed(pictures, config.n_workers, crop)
    return loaded


def _decoded(pictures: Pictures, places: Places, name: Path, origin: str) -> InMemory:
    shape = (len(pictures), *pictures.image_shape)
    for folder in places.decoded_to_read:
        kept = _kept(folder / name, origin, shape)
        if kept is not None:
            return kept
    split = _decode(pictures, shown(name.parent.name))
    if places.decoded is None:
        return split
    place = places.decoded / name
    try:
        _keep(split, place, origin)
    except OSError as error:
        note(
            f"decoded images cannot be kept in {shown(place)} ({error.strerror}): they are in "
            "memory now, and will be decoded again at the next start"
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


def _kept(place: Path, origin: str, shape: tuple[int, ...]) -> InMemory | None:
    files = ("origin.txt", "images.npy", "labels.npy")
    try:
        if not all((place / name).is_file() for name in files):  # a pipe would be waited for
            return None
        if (place / "origin.txt").read_text() != origin:
            return None
        # Mapped first, because a header may promise anything.
        if np.load(place / "images.npy", mmap_mode="r").shape != shape:
            return None
        if len(np.load(place / "labels.npy", mmap_mode="r")) != shape[0]:
            return None
        return InMemory(np.load(place / "images.npy"), np.load(place / "labels.npy"))
    except Exception:  # absent, or damaged, of which NumPy raises anything
        return None


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
