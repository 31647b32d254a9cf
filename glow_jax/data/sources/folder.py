"""Pictures of a folder or a `.zip`: `--dataset folder:PATH --image_size SIZE`."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from glow_jax.catalogue import Entry, sizes
from glow_jax.config import DataConfig
from glow_jax.data.cache import load_splits
from glow_jax.data.dataset import Dataset, InMemory, Pictures, with_test_split
from glow_jax.data.decoding import DECODER, UnreadableError
from glow_jax.data.notes import note
from glow_jax.data.pictures import read_picture
from glow_jax.data.places import Places
from glow_jax.data.sources.array_files import is_array_file, refuse_misnamed
from glow_jax.data.sources.checked import Checked, check
from glow_jax.data.sources.found import Item
from glow_jax.data.sources.splits import Division, divide
from glow_jax.errors import GlowError, shown
from glow_jax.files import expanded

# How many pictures' contents tell two folders apart; of the others, names and sizes do.
_SAMPLED = 64


def load_folder(
    config: DataConfig,
    *,
    channels: int | None = None,
    hold_out: bool = True,
    places: Places | None = None,
) -> Dataset:
    """Load the pictures of `folder:PATH` or of a `.zip`, as `load_pictures` does.

    Args:
        config: `dataset` is `folder:PATH` or the archive; otherwise as for `load_pictures`.
        channels: 3 for colours, 1 for grey; as `config.channels` says if left out.
        hold_out: as for `load_pictures`.
        places: as for `load_pictures`.

    Raises:
        GlowError: there is no such folder, it has no pictures, or one is too small.
    """
    given = config.dataset.removeprefix("folder:")
    folder = expanded(given, "dataset")
    is_zip = folder.suffix.lower() == ".zip"
    if not given or not (folder.is_dir() or (is_zip and folder.is_file())):
        raise _no_folder(given, folder)
    if folder.is_dir():
        refuse_misnamed(folder)
    if channels is None:
        channels = 0 if config.channels == "auto" else int(config.channels)
    return load_pictures(
        config,
        folder,
        Entry("", (0, 0, channels), 0),
        shown(config.dataset),
        hold_out=hold_out,
        places=places,
    )


def _no_folder(given: str, folder: Path) -> GlowError:
    """What to say of a path that is neither a folder nor an archive."""
    if given and folder.exists():
        if is_array_file(str(folder)):
            return GlowError(f"{shown(given)} holds arrays: give --dataset {shown(given)}")
        missing = f"{shown(folder)} is no folder"
    elif folder.suffix.lower() == ".zip":
        missing = f"There is no file {shown(folder)}"
    else:
        missing = f"There is no folder {shown(folder)}" if given else "folder: has no path"
    return GlowError(f"{missing}: give --dataset folder:PATH, where the pictures are.")


def load_pictures(
    config: DataConfig,
    folder: Path,
    entry: Entry,
    name: str,
    *,
    hold_out: bool = True,
    places: Places | None = None,
) -> Dataset:
    """Load the pictures of a folder, resized and centre-cropped to `image_size`.

    `glow_jax.data.sources.splits` says which are the splits and the classes. A picture that cannot
    be read is named in a warning and left out.

    Args:
        config: `image_size`, the limits, `n_workers` and `dataroot` are used.
        folder: the folder of pictures, or a `.zip` of them.
        entry: the data set's row in the catalogue; with 0 channels, the pictures decide.
        name: the data set's name in messages.
        hold_out: False puts all pictures into both splits where there is only one.
        places: where decoded images are kept; DATAROOT/decoded if left out.

    Raises:
        GlowError: there are no pictures, or one is too small.
    """
    places = places or Places(config.dataroot)
    size, crop = sizes(entry, config.image_size, name)
    division = divide(folder, hold_out=hold_out)
    for part in division.found.values():
        part.refuse_others()
        if not part.items:
            raise GlowError(f"Folder {shown(part.root)} has no pictures: it is empty.")
    found = (item for part in division.found.values() for item in part.items)
    everything = list(dict.fromkeys(found))  # without a test split, both may be the same
    origin = _origin(everything, config)
    place = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:8]
    decoded = f"{folder.resolve().name}-{place}-{size}"
    checked = check(
        everything,
        config,
        size,
        origin,
        read=[place / decoded for place in places.decoded_to_read],
        write=places.decoded and places.decoded / decoded,
    )
    used = _readable(division, checked)
    checked.say(len(everything), config.picture_limit)
    entry = _with_channels(entry, checked, len({item for part in used.values() for item in part}))
    splits: dict[str, Pictures] = {
        part: FolderPictures(items, division.labels(part, items), size, entry, config.picture_limit)
        for part, items in used.items()
    }
    decoded += "-grey" if entry.mode == "L" else ""
    loaded = load_splits(config, splits, decoded, origin, crop=crop, places=places)
    names = division.class_names
    return with_test_split(
        name,
        len(names),
        loaded,
        flips=entry.flips,
        shifts=entry.shifts,
        class_names=tuple(map(shown, names)),
        fingerprint=_fingerprint(used),
    )


def _with_channels(entry: Entry, checked: Checked, count: int) -> Entry:
    height, width, channels = entry.image_shape
    if channels:
        return entry
    if checked.grey:
        note(f"all of {count} pictures are grey and read as 1 channel; --channels 3 makes it three")
    return Entry("", (height, width, 1 if checked.grey else 3), entry.classes)


def _readable(division: Division, checked: Checked) -> dict[str, list[Item]]:
    """The pictures of each split that can be read.

    Raises:
        GlowError: a split has none.
    """
    used: dict[str, list[Item]] = {}
    for part, found in division.found.items():
        used[part] = [item for item in found.items if str(item.source) not in checked.left_out]
        if not used[part]:
            first = str(found.items[0].source)
            raise GlowError(
                f"None of the {len(found.items)} pictures of {shown(found.root)} can be read; the "
                f"first is {shown(first)}: {checked.left_out[first]}."
            )
    return used


def _origin(items: Sequence[Item], config: DataConfig) -> str:
    """Changes where a file, or how it is decoded, does."""
    digest = hashlib.sha256(f"{DECODER} {config.picture_limit}\n".encode())
    for item in items:
        digest.update(os.fsencode(str(item.source)) + f"\0{item.size}\0{item.stamp}\n".encode())
    return digest.hexdigest()


def _fingerprint(splits: dict[str, list[Item]]) -> str:
    """The same for the same pictures in another place, and different for others."""
    digest = hashlib.sha256()
    for split, items in splits.items():
        sampled = np.unique(np.linspace(0, len(items) - 1, _SAMPLED).astype(int)).tolist()
        for number, item in enumerate(items):
            digest.update(f"{split}\0{item.size}\0".encode())
            digest.update(os.fsencode("/".join(item.parts)) + b"\n")
            if number in sampled:
                digest.update(_digest(item))
    return digest.hexdigest()


def _digest(item: Item) -> bytes:
    if isinstance(item.source, Path):
        with item.source.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    digest = hashlib.sha256()
    for chunk in item.source.chunks():
        digest.update(chunk)
    return digest.digest()


@dataclass(frozen=True)
class FolderPictures:
    """Pictures in files, decoded and resized when they are read.

    Attributes:
        items: the files.
        labels: class numbers, (N,), or (N, 0) where there are none.
        size: side of the images.
        entry: the data set's row in the catalogue.
        limit: megapixels that a picture may have.
    """

    items: list[Item]
    labels: np.ndarray
    size: int
    entry: Entry
    limit: float

    multi_hot = False

    def __len__(self) -> int:
        """The number of pictures."""
        return len(self.items)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C)."""
        return (self.size, self.size, self.entry.image_shape[2])

    def __getitem__(self, indices: np.ndarray) -> InMemory:
        """The pictures at `indices`, and their labels."""
        images = np.empty((len(indices), *self.image_shape), np.uint8)
        mode, centre = self.entry.mode, self.entry.centre
        for place, index in zip(images, indices, strict=True):
            item = self.items[index]
            try:
                place[:] = read_picture(
                    item.source, mode, self.size, centre=centre, limit=self.limit
                )
            except UnreadableError as error:
                raise GlowError(f"{item.name} can no longer be read: {error}.") from None
        return InMemory(images, self.labels[indices])
