"""Data sets prepared by tensorflow-datasets, read without TensorFlow."""

import dataclasses
import functools
import io
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging
from PIL import Image

from glow_jax.catalogue import ALIASES, Entry, find, sizes
from glow_jax.config import DataConfig
from glow_jax.data.cache import load_splits, with_test_split
from glow_jax.data.dataset import Dataset, Pictures, Split
from glow_jax.data.pictures import fit
from glow_jax.data.sources.folder import load_pictures
from glow_jax.data.sources.tfds_prepare import prepare_apart
from glow_jax.errors import GlowError


def known_names() -> list[str]:
    """The names of all data sets that come with tensorflow-datasets."""
    import tensorflow_datasets as tfds  # a second, which no other source should pay

    return tfds.list_builders(with_community_datasets=False)


def load_tfds(config: DataConfig) -> Dataset:
    """Load a data set of tensorflow-datasets, preparing it first where it is missing.

    Pictures that the user has put into DATAROOT/NAME/train are taken for the data set.

    Raises:
        GlowError: it is missing and cannot be prepared, or is no data set of images.
    """
    name = ALIASES.get(config.dataset, config.dataset)
    entry = find(name)
    if entry:  # a size that cannot be is said before anything is downloaded
        sizes(entry, config.image_size, name)
    pictures = Path(config.dataroot) / (entry.builder if entry else name)
    if entry and (pictures / "train").is_dir():
        return load_pictures(config, pictures, entry, name)
    builder = _open(entry.builder if entry else name, config.dataroot)
    if builder.is_prepared() and _set_aside_if_damaged(builder):
        builder = _open(entry.builder if entry else name, config.dataroot)
    _check_features(builder, name)
    if not builder.is_prepared():
        prepare_apart(builder, name, config, pictures)
        builder = _open(entry.builder if entry else name, config.dataroot)
    entry = entry or _entry_of(builder, name)
    decoded_size, crop = sizes(entry, config.image_size, name)
    splits: dict[str, Pictures] = {
        split: PreparedPictures(str(builder.data_dir), there, entry, decoded_size)
        for split, there in (("train", "train"), ("test", entry.test))
        if there
    }
    loaded = load_splits(
        config,
        splits,
        f"{name.replace('/', '-')}-{decoded_size or 'whole'}",
        builder.info.full_name,
        crop=crop,
    )
    return with_test_split(name, entry.classes, loaded, flips=entry.flips, shifts=entry.shifts)


def _open(builder: str, dataroot: str) -> Any:
    import tensorflow_datasets as tfds  # a second, which no other source should pay

    # It warns of every folder that is not there yet.
    logging.set_verbosity(logging.ERROR)
    try:
        return tfds.builder(builder, data_dir=dataroot, file_format="array_record")
    except (ValueError, ImportError, TypeError) as error:
        raise GlowError(f"Data set {builder}: {_first_line(error)}.") from None


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else repr(error)


def _features(builder: Any) -> dict[str, Any]:
    features = builder.info.features
    return dict(features.items()) if hasattr(features, "items") else {}


def _check_features(builder: Any, name: str) -> None:
    features = _features(builder)
    image = features.get("image")
    if image is None or len(image.shape) != 3 or np.dtype(image.np_dtype) != np.uint8:
        raise GlowError(f"Data set {name} has no feature 'image' of 8-bit pictures.")


def _entry_of(builder: Any, name: str) -> Entry:
    """The row that the table would have for a data set that it does not name."""
    features = _features(builder)
    if "train" not in builder.info.splits:
        raise GlowError(f"Data set {name} has no split 'train'.")
    height, width, channels = features["image"].shape
    classes = getattr(features.get("label"), "num_classes", None) or 0
    test = next((split for split in ("test", "validation") if split in builder.info.splits), "")
    if test == "test" and classes and not _has_labels(builder, "test"):
        test = "validation" if "validation" in builder.info.splits else ""
    shape = (height or 0, width or 0, channels or 3)
    return Entry(name, shape, classes, labels="label" if classes else "", test=test)


def _has_labels(builder: Any, split: str) -> bool:
    """Whether a split is labelled: withheld labels are -1 by convention."""
    return builder.as_data_source(split)[0]["label"] >= 0


def _set_aside_if_damaged(builder: Any) -> bool:
    """Move prepared files that cannot be opened out of the way of a new preparation."""
    try:
        for split, info in builder.info.splits.items():
            source = builder.as_data_source(split)
            # The last example of each file: files are opened when they are read from.
            for end in np.cumsum(info.shard_lengths):
                source[int(end) - 1]
    except NotImplementedError:
        raise GlowError(
            f"{builder.data_dir} was prepared in another format than array_record: give another "
            "--dataroot."
        ) from None
    except Exception as error:  # array_record raises whatever its C++ code does
        place = Path(builder.data_dir)
        aside = Path(tempfile.mkdtemp(dir=place.parent, prefix=f"damaged.{place.name}."))
        place.rename(aside)
        warnings.warn(
            f"{place} is damaged ({_first_line(error)}): moved to {aside.name}, and prepared anew.",
            stacklevel=2,
        )
        return True
    return False


@dataclass
class PreparedPictures:
    """A split of a prepared data set, decoded and resized as it is read.

    Attributes:
        directory: where the data set lies.
        split: its name there.
        entry: what is known of the data set.
        size: side of the images; 0 leaves them as they are.
    """

    directory: str
    split: str
    entry: Entry
    size: int

    @functools.cached_property
    def _source(self) -> Any:
        import tensorflow_datasets as tfds

        # Any, because what tfds imports lazily has no types.
        library: Any = tfds
        builder = library.builder_from_directory(self.directory)
        decode = library.decode
        return builder.as_data_source(self.split, decoders={"image": decode.SkipDecoding()})

    def __getstate__(self) -> dict[str, Any]:
        """Without the open files, which no other process can use."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def __len__(self) -> int:
        """The number of pictures."""
        return len(self._source)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C)."""
        height, width, channels = self.entry.image_shape
        return (self.size or height, self.size or width, channels)

    @property
    def multi_hot(self) -> bool:
        """Whether labels are a set of attributes."""
        return self.entry.labels == "attributes" and self.entry.classes > 0

    def __getitem__(self, indices: np.ndarray) -> Split:
        """The pictures at `indices`, and their labels."""
        try:
            examples = self._source.__getitems__([int(index) for index in indices])
        except RuntimeError as error:  # array_record's for whatever its checksums do not match
            raise GlowError(
                f"{self.directory} is damaged ({_first_line(error)}): remove it, and the next run "
                "prepares it anew."
            ) from None
        images = np.empty((len(examples), *self.image_shape), np.uint8)
        for place, example in zip(images, examples, strict=True):
            place[:] = self._pixels(example["image"])
        return Split(images, self._labels(examples))

    def _pixels(self, encoded: bytes) -> np.ndarray:
        with Image.open(io.BytesIO(encoded)) as picture:
            entry = self.entry
            return fit(picture.convert(entry.mode), self.size, centre=entry.centre, pad=entry.pad)

    def _labels(self, examples: list[dict[str, Any]]) -> np.ndarray:
        if not self.entry.classes:
            return np.empty((len(examples), 0), np.int32)
        labels = [example[self.entry.labels] for example in examples]
        if self.multi_hot:
            labels = [[one[name] for name in sorted(one)] for one in labels]
        return np.array(labels, np.int32)
