"""The images to compute scores of, in the shape that the model takes."""

import functools
import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from glow_jax.catalogue import find
from glow_jax.config import Config
from glow_jax.data import Dataset, InMemory, load_dataset
from glow_jax.data.dataset import Readable, hold_out, sample_of
from glow_jax.data.fit import check_image_shape
from glow_jax.data.pictures import fit_pixels
from glow_jax.data.places import Places
from glow_jax.data.sources.array_files import array_file_images, is_array_file
from glow_jax.data.sources.folder import load_folder
from glow_jax.errors import GlowError

# Enough for a mean: its standard error is a hundredth of the standard deviation.
_REFERENCE_IMAGES = 10_000


@dataclass(frozen=True, eq=False)
class Images:
    """Images to measure.

    Attributes:
        name: the name of the data set.
        part: the part of it: "test", "training" or "validation".
        split: the images.
        is_sample: whether the part has more images than these.
    """

    name: str
    part: str
    split: Readable
    is_sample: bool = False

    @property
    def title(self) -> str:
        """What no other images of the run share: the names, and the number of a sample."""
        number = f"-{len(self.split)}" if self.is_sample else ""
        return f"{self.name}-{self.part}{number}"

    def sample(self, most: int) -> "Images":
        """At most so many of the images, drawn at random, always the same ones."""
        if len(self.split) <= most:
            return self
        return Images(self.name, self.part, _some(self.split, most), is_sample=True)

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the pixels in memory; for streamed images, of 64 spread over the split."""
        split, digest = self.split, hashlib.sha256()
        digest.update(f"{len(split)} {split.image_shape}".encode())
        digest.update(np.ascontiguousarray(sample_of(split).images).data)
        return digest.hexdigest()


def load_images(config: Config, name: str, *, dataroot: str | None, download: bool) -> Images:
    """Load the test images of any data set, in the size that a model takes.

    Args:
        config: the configuration of the model's run.
        name: as for `load_dataset`. All images are taken of arrays without `test_images`, or of a
            folder without a test split. If the run's own data set puts a black frame around smaller
            pictures, so does this one.
        dataroot: folder of the data sets; None for the run's own, which is only read.
        download: whether to prepare the data set if it is missing.

    Raises:
        GlowError: there is no such data set, or its images cannot be made to fit.
    """
    shape = config.model.image_shape
    side = shape[0] if shape[0] == shape[1] else 0
    named_by_run, dataroot = dataroot is None, dataroot or config.data.dataroot
    data = replace(config.data, dataset=name, dataroot=dataroot, download=download, image_size=0)
    if is_array_file(name):
        pixels = array_file_images(data)
        name, split = Path(name).stem, InMemory(pixels, np.empty((len(pixels), 0), np.int32))
    elif name.startswith("folder:") or name.lower().endswith(".zip"):
        pictures, places = replace(data, image_size=side), Places(dataroot, read_only=named_by_run)
        split = load_folder(pictures, channels=shape[2], hold_out=False, places=places).test
    else:
        entry = find(name)
        embedded = entry is not None and not entry.builder  # and so of one size
        sized = data if embedded else replace(data, image_size=side)
        dataset = load_dataset(sized, named_by_run=named_by_run)
        name, split = dataset.name, dataset.test
    channels = split.image_shape[2]
    if isinstance(split, InMemory) and not split.crop and side and channels == shape[2]:
        split = _fitted(split, side, config.data.dataset, name)
    check_image_shape(
        config.model, split, name=name, source="The model", advice="give another --ood"
    )
    return Images(name, "test", split)


def _fitted(split: InMemory, side: int, like: str, name: str) -> InMemory:
    """Resize or frame grey or colour images in memory like those of the data set `like`."""
    if split.image_shape[:2] == (side, side) or split.image_shape[2] not in (1, 3):
        return split
    entry = find(like)
    centre, pad = (entry.centre, entry.pad) if entry else (0, False)
    try:
        pixels = [fit_pixels(image, side, centre=centre, pad=pad) for image in split.images]
    except GlowError as error:
        raise GlowError(f"Data set {name} does not fit the model: {error}.") from None
    return InMemory(np.stack(pixels), split.labels)


def reference_images(dataset: Dataset, validation: float) -> tuple[Images, Images]:
    """Images that represent the training distribution, at most 10,000 of each kind.

    Args:
        dataset: the data set that the model was trained on.
        validation: the fraction that training held out.

    Returns:
        Training images and held-out images; training images twice if nothing was held out.
    """
    train, held_out = hold_out(dataset.train, validation)
    training = Images(dataset.name, "training", _some(train, _REFERENCE_IMAGES))
    if not len(held_out):
        return training, training
    return training, Images(dataset.name, "validation", _some(held_out, _REFERENCE_IMAGES))


def _some(split: Readable, most: int) -> Readable:
    if len(split) <= most:
        return split
    chosen = np.random.default_rng(0).choice(len(split), most, replace=False)
    return split.subset(np.sort(chosen))
