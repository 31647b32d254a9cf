"""Whether images are those that a run was started with."""

import hashlib
from pathlib import Path

import numpy as np

from glow_jax.config import Config
from glow_jax.data import Dataset
from glow_jax.data.dataset import sample_of
from glow_jax.errors import GlowError, shown
from glow_jax.runs import RunData, read_config, read_data

_LABEL_SETS = 64


def data_of(dataset: Dataset) -> RunData:
    """What a run is to remember of its images."""
    return RunData(
        training_images=len(dataset.train),
        test_images=len(dataset.test),
        image_shape=dataset.image_shape,
        classes=dataset.classes,
        class_names=dataset.class_names,
        fingerprint=dataset.fingerprint or _fingerprint(dataset),
        label_sets=_label_sets(dataset),
    )


def _label_sets(dataset: Dataset) -> tuple[tuple[int, ...], ...]:
    """See `RunData`; equally frequent sets are in the order in which they first occur."""
    if not dataset.multi_hot:
        return ()
    rows, first, counts = np.unique(
        sample_of(dataset.train).labels, axis=0, return_index=True, return_counts=True
    )
    order = np.lexsort((first, -counts))[:_LABEL_SETS]
    return tuple(tuple(np.flatnonzero(row).tolist()) for row in rows[order])


def _fingerprint(dataset: Dataset) -> str:
    digest = hashlib.sha256()
    for split in (dataset.train, dataset.test):
        digest.update(f"{len(split)} {split.image_shape}\n".encode())
        part = sample_of(split)
        digest.update(np.ascontiguousarray(part.images).data)
        digest.update(np.ascontiguousarray(part.labels).tobytes())
    return digest.hexdigest()


def difference(run: str, before: RunData, was: str, data: RunData, name: str) -> str | None:
    """How images differ from those that a run was started with; None if they do not.

    Args:
        run: what messages call the run.
        before: what it remembers of its images.
        was: the name of its data set.
        data: the images in question.
        name: the name of their data set.

    Returns:
        A clause that names both.
    """
    counts = (before.training_images, before.test_images)
    now = (data.training_images, data.test_images)
    if now != counts:
        return (
            f"{run} was started with {counts[0]} training and {counts[1]} test images, and "
            f"{shown(name)} has {now[0]} and {now[1]}"
        )
    if before.classes != data.classes or before.class_names != data.class_names:
        return (
            f"{run} was started with the classes {_classes(before)}, and {shown(name)} has "
            f"{_classes(data)}"
        )
    if before.image_shape != data.image_shape or before.fingerprint != data.fingerprint:
        return (
            f"{shown(name)} does not hold the images that {run} was started with "
            f"({shown(was)}), although their number is the same"
        )
    return None


def check_same_data(config: Config, data: RunData) -> None:
    """Check that a resumed run has its own images, perhaps in another place.

    Args:
        config: the run that is resumed, with the flags of this start.
        data: the images of this start.

    Raises:
        GlowError: there are more or fewer images, or others.
    """
    folder = Path(config.output.output_dir)
    before, name = read_data(folder), config.data.dataset
    was = read_config(folder).data.dataset
    if before is None:
        if name != was:
            raise GlowError(
                f"{folder} has dataset = {was}, which cannot become {name}: the run is too old to "
                "know its images. Leave the flag out, or start a new run."
            )
        return
    differs = difference(str(folder), before, was, data, name)
    if differs is not None:
        raise GlowError(
            f"{differs}: give the folder or file of the same images, or start a new run."
        )


def _classes(data: RunData) -> str:
    if not data.class_names:
        return str(data.classes)
    return ", ".join(map(shown, data.class_names[:5])) + (", ..." if data.classes > 5 else "")
