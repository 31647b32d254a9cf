"""Directions of a run: from the mean latent of some images to that of others."""

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace

import numpy as np

from glow_jax.data import InMemory
from glow_jax.data.batching import to_batch
from glow_jax.data.dataset import Readable, has_labels
from glow_jax.data.places import Places
from glow_jax.data.sources.folder import load_folder
from glow_jax.demo.beside import counted
from glow_jax.demo.studio import Studio
from glow_jax.errors import GlowError
from glow_jax.evaluation.likelihood import dequantized, label_classes
from glow_jax.evaluation.samples import class_number
from glow_jax.latents import Noise, mean_noise
from glow_jax.runs import Direction, write_direction

CLASSES = "class:"
"""Stands before the number of a class, where its name might be a number, too."""
_FOLDER = "folder:"
_AT_ONCE = 50
_LABELS_AT_ONCE = 10_000


@dataclass(frozen=True)
class Group:
    """Images whose mean latent is wanted.

    Attributes:
        name: what a user calls them.
        split: where they are.
        indices: their numbers there.
    """

    name: str
    split: Readable
    indices: np.ndarray


def groups_of(studio: Studio, of: str, against: str, *, most: int) -> tuple[Group, Group]:
    """Find the images of a direction.

    Args:
        studio: the run.
        of: where it leads: the name or number of a class or attribute, or `folder:PATH`.
        against: where it comes from; empty for all training images that are not those of `of`.
        most: images of each, chosen evenly.

    Raises:
        GlowError: there are no such images, or they do not fit the run.
    """
    groups = [_group(studio, of)]
    if against:
        groups.append(_group(studio, against))
    elif of.startswith(_FOLDER):
        groups.append(_everything(studio))
    else:
        groups.append(_group(studio, of, without=True))
    for group in groups:
        if not len(group.indices):
            raise GlowError(f"There is no training image of {group.name}.")
    return _some(groups[0], most), _some(groups[1], most)


def _some(group: Group, most: int) -> Group:
    places = np.linspace(0, len(group.indices) - 1, min(most, len(group.indices)))
    return replace(group, indices=group.indices[places.astype(int)])


def _training(studio: Studio) -> Readable:
    if studio.dataset is None:
        raise GlowError("The training images of this run are not here: give --dataroot.")
    return studio.dataset.train


def _everything(studio: Studio) -> Group:
    split = _training(studio)
    return Group("all training images", split, np.arange(len(split)))


def _group(studio: Studio, name: str, *, without: bool = False) -> Group:
    if name.startswith(_FOLDER):
        return _of_folder(studio, name)
    split = _training(studio)
    if not has_labels(split):
        raise GlowError(f"{name!r} names a class, and these images have none: give folder:PATH.")
    number = name.removeprefix(CLASSES)
    label = (
        int(number)
        if number != name
        else class_number(name, studio.class_names, len(studio.class_names))
    )
    title = studio.class_names[label]
    inside = _of_class(split, label)
    title, chosen = (f"not {title}", ~inside) if without else (title, inside)
    return Group(title, split, np.flatnonzero(chosen))


def _of_class(split: Readable, label: int) -> np.ndarray:
    """Whether each image is of a class, or has an attribute: (N,)."""
    if isinstance(split, InMemory):
        labels = split.labels
    else:
        starts = range(0, len(split), _LABELS_AT_ONCE)
        parts = (np.arange(i, min(i + _LABELS_AT_ONCE, len(split))) for i in starts)
        labels = np.concatenate([split[part].labels for part in parts])
    return labels[:, label] > 0 if labels.ndim == 2 else labels == label


def _of_folder(studio: Studio, name: str) -> Group:
    config = studio.model.config
    height, width, channels = config.image_shape
    if height != width or channels not in (1, 3):
        raise GlowError(
            f"{name!r} cannot be used: this run takes images of {config.image_shape}, which no "
            "picture is cut to."
        )
    if label_classes(config):
        raise GlowError(
            f"{name!r} cannot be used: this run takes a label with each image, which the pictures "
            "of a folder do not have: give classes."
        )
    data = replace(studio.run.config.data, dataset=name, image_size=height)
    places = Places(studio.run.config.data.dataroot, read_only=True)
    split = load_folder(data, channels=channels, hold_out=False, places=places).test
    return Group(name, split, np.arange(len(split)))


def between(
    studio: Studio,
    of: Group,
    against: Group,
    *,
    name: str = "",
    progress: Callable[[int], object] = lambda _: None,
) -> Direction:
    """The mean noise of `of` minus that of `against`.

    Args:
        studio: the run.
        of: where it leads.
        against: where it comes from.
        name: what to call it; by default made of the groups' names.
        progress: called after each batch with the number of its images.
    """
    there, here = (mean_noise(_noise_of(studio, group, progress)) for group in (of, against))
    noise = tuple(np.asarray(a) - np.asarray(b) for a, b in zip(there, here, strict=True))
    about = {"of": of.name, "against": against.name}
    counts = {"images_of": len(of.indices), "images_against": len(against.indices)}
    is_rest = against.name == f"not {of.name}"
    usual = of.name if is_rest else f"{of.name} - {against.name}"
    return Direction(name or usual, about | counts, noise)


def keep_between(
    studio: Studio, of: Group, against: Group
) -> Generator[tuple[int, int], None, Direction]:
    """`between`, kept in the run; what is halted halfway is not kept.

    Yields:
        How many images are encoded, and how many there are to encode.

    Returns:
        The direction.

    Raises:
        GlowError: the run's folder cannot be written.
    """
    found: list[Direction] = []

    def work(progress: Callable[[int], None]) -> None:
        found.append(between(studio, of, against, progress=progress))

    yield from counted(work, total=len(of.indices) + len(against.indices))
    (direction,) = found
    try:
        write_direction(studio.run.folder, direction, weights=studio.weights)
    except OSError as error:
        raise GlowError(
            f"The direction {direction.name} cannot be kept in {studio.run.folder}: "
            f"{error.strerror}."
        ) from None
    return direction


def _noise_of(studio: Studio, group: Group, progress: Callable[[int], object]) -> Iterator[Noise]:
    classes = label_classes(studio.model.config)
    for begin in range(0, len(group.indices), _AT_ONCE):
        batch = to_batch(group.split, group.indices[begin : begin + _AT_ONCE], classes)
        count = len(batch.images)
        spare = [(0, _AT_ONCE - count)]  # one compiled program for all
        images = np.pad(batch.images, [*spare, (0, 0), (0, 0), (0, 0)])
        y = np.pad(batch.labels, [*spare, (0, 0)], mode="edge") if classes else None
        x = dequantized(studio.model, images, np.pad(batch.indices, spare))
        yield tuple(entry[:count] for entry in studio.model.encode(x, y).noise)
        progress(count)


def of_rows(studio: Studio, rows: Noise, name: str, *, source: str) -> list[Direction]:
    """Directions of a file, one for each row.

    Args:
        studio: the run.
        rows: as `read_rows` returns them.
        name: what to call them; a number follows, or where there is one row for each class or
            attribute of the run's images, its name.
        source: the name of the file.
    """
    count = len(rows[0])
    names = list(map(str, range(count)))
    if len(studio.class_names) == count:
        names = list(studio.class_names)
    directions = []
    for number, of in enumerate(names):
        noise = tuple(np.asarray(entry[number : number + 1], np.float32) for entry in rows)
        title = name if count == 1 else f"{name} {of}"
        directions.append(Direction(title, {"file": source, "row": number}, noise))
    return directions
