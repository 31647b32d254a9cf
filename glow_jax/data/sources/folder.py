"""A folder of pictures: `--dataset folder:PATH --image_size SIZE`."""

import concurrent.futures
import hashlib
import json
import os
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from glow_jax.catalogue import Entry, sizes
from glow_jax.config import DataConfig
from glow_jax.data.cache import load_splits
from glow_jax.data.dataset import Dataset, InMemory, Pictures, with_test_split
from glow_jax.data.pictures import UnreadableError, fit, open_picture
from glow_jax.errors import GlowError
from glow_jax.files import write_json

_SUFFIXES = {".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}


def load_folder(config: DataConfig, *, channels: int = 3, hold_out: bool = True) -> Dataset:
    """Load the pictures of `folder:PATH`, as `load_pictures` does.

    Args:
        config: `dataset` is `folder:PATH`; otherwise as for `load_pictures`.
        channels: 3 for colours, 1 for grey.
        hold_out: as for `load_pictures`.

    Raises:
        GlowError: there is no such folder, it has no pictures, or one is too small.
    """
    folder = Path(config.dataset.removeprefix("folder:")).expanduser()
    if not folder.is_dir():
        raise GlowError(f"There is no folder {folder}.")
    return load_pictures(
        config, folder, Entry("", (0, 0, channels), 0), config.dataset, hold_out=hold_out
    )


def load_pictures(
    config: DataConfig, folder: Path, entry: Entry, name: str, *, hold_out: bool = True
) -> Dataset:
    """Load the pictures of a folder, resized and centre-cropped to `image_size`.

    Subfolders `train` and `test` are the splits. Where they are missing, a tenth of the pictures is
    held out for the test split. Subfolders of a split are its classes, if there are two or more of
    them and no pictures beside them. A picture that cannot be read is named in a warning and left
    out.

    Args:
        config: `image_size`, `memory_limit`, `n_workers` and `dataroot` are used.
        folder: the folder of pictures.
        entry: the data set's row in the catalogue.
        name: the data set's name in messages.
        hold_out: False puts all pictures into both splits where there are no subfolders `train` and
            `test`.

    Raises:
        GlowError: there are no pictures, or one is too small.
    """
    size, crop = sizes(entry, config.image_size, name)
    split = (folder / "train").is_dir() and (folder / "test").is_dir()
    roots = {"train": folder / "train", "test": folder / "test"} if split else {"train": folder}
    if not split and not hold_out:
        roots["test"] = folder
    found = {part: _find(root) for part, root in roots.items()}
    for part, paths in found.items():
        if not paths:
            raise GlowError(f"Folder {roots[part]} has no pictures ({', '.join(_SUFFIXES)}).")
    origin = _fingerprint([path for paths in found.values() for path in paths])
    place = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:8]
    decoded = f"{folder.resolve().name}-{place}-{size}{'-grey' if entry.mode == 'L' else ''}"
    kept = Path(config.dataroot) / "decoded" / decoded
    bad = _unreadable(found, size, entry.mode, kept, origin)
    names = _class_names(roots["train"], found["train"])
    splits: dict[str, Pictures] = {}
    for part, paths in found.items():
        good = [path for path in paths if str(path) not in bad]
        if not good:
            raise GlowError(f"Folder {roots[part]} has no picture that can be read.")
        splits[part] = FolderPictures(good, _labels(roots[part], good, names), size, entry)
    loaded = load_splits(config, splits, decoded, origin, crop=crop)
    return with_test_split(name, len(names), loaded, flips=entry.flips, shifts=entry.shifts)


def _find(root: Path) -> list[Path]:
    """All pictures below a folder, sorted by path, without hidden files and folders."""
    found = []
    for place, folders, files in os.walk(root, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if not name.startswith(".") and Path(name).suffix.lower() in _SUFFIXES:
                found.append(Path(place, name))
    return sorted(found)


def _fingerprint(paths: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        status = path.stat()
        digest.update(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _class_names(root: Path, paths: list[Path]) -> list[str]:
    if any(path.parent == root for path in paths):
        return []
    names = sorted({path.relative_to(root).parts[0] for path in paths})
    return names if len(names) > 1 else []


def _labels(root: Path, paths: list[Path], names: list[str]) -> np.ndarray:
    if not names:
        return np.empty((len(paths), 0), np.int32)
    numbers = {name: number for number, name in enumerate(names)}
    try:
        return np.array([numbers[path.relative_to(root).parts[0]] for path in paths], np.int32)
    except KeyError as error:
        raise GlowError(f"{root} has {error}, which is no class of the training images.") from None


def _unreadable(
    found: dict[str, list[Path]], size: int, mode: str, decoded: Path, origin: str
) -> set[str]:
    """The pictures that cannot be read.

    Every picture is read once to find them; a file keeps the result for the next start.
    """
    record = decoded / "pictures.json"
    paths = [path for part in found.values() for path in part]
    bad = _recorded(record, origin)
    if bad is None:
        bad = _check(paths, size, mode)
        try:
            record.parent.mkdir(parents=True, exist_ok=True)
            write_json(record, {"origin": origin, "unreadable": bad})
        except OSError as error:
            warnings.warn(f"{record} cannot be written ({error.strerror}).", stacklevel=2)
    if bad:
        named = ", ".join(bad[:3]) + (", ..." if len(bad) > 3 else "")
        warnings.warn(
            f"{len(bad)} of {len(paths)} pictures cannot be read and are skipped: {named}",
            stacklevel=2,
        )
    return set(bad)


def _recorded(record: Path, origin: str) -> list[str] | None:
    try:
        values = json.loads(record.read_text())
        return values["unreadable"] if values["origin"] == origin else None
    except (OSError, ValueError, KeyError, TypeError):  # absent or damaged: all are checked again
        return None


def _check(paths: list[Path], size: int, mode: str) -> list[str]:
    """The unreadable pictures among `paths`.

    Raises:
        GlowError: some are smaller than `size`.
    """

    def problem(path: Path) -> str:
        try:
            return "small" if min(open_picture(path, mode).size) < size else ""
        except UnreadableError:
            return "unreadable"

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        problems = list(
            tqdm(
                pool.map(problem, paths),
                total=len(paths),
                desc="checking",
                unit="picture",
                leave=False,
            )
        )
    small = [path for path, one in zip(paths, problems, strict=True) if one == "small"]
    if small:
        raise GlowError(
            f"{len(small)} of {len(paths)} pictures are smaller than image_size {size}, the first "
            f"is {small[0]}: take them out, or give a smaller --image_size."
        )
    return [str(path) for path, one in zip(paths, problems, strict=True) if one]


@dataclass(frozen=True)
class FolderPictures:
    """Pictures in files, decoded and resized when they are read.

    Attributes:
        paths: the files.
        labels: class numbers, (N,), or (N, 0) where there are none.
        size: side of the images.
        entry: the data set's row in the catalogue.
    """

    paths: list[Path]
    labels: np.ndarray
    size: int
    entry: Entry

    multi_hot = False

    def __len__(self) -> int:
        """The number of pictures."""
        return len(self.paths)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C)."""
        return (self.size, self.size, self.entry.image_shape[2])

    def __getitem__(self, indices: np.ndarray) -> InMemory:
        """The pictures at `indices`, and their labels."""
        images = np.empty((len(indices), *self.image_shape), np.uint8)
        for place, index in zip(images, indices, strict=True):
            try:
                picture = open_picture(self.paths[index], self.entry.mode)
            except UnreadableError as error:
                raise GlowError(f"{self.paths[index]} can no longer be read: {error}.") from None
            place[:] = fit(picture, self.size, centre=self.entry.centre)
        return InMemory(images, self.labels[indices])
