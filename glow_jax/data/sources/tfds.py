"""Data sets prepared by tensorflow-datasets, read without TensorFlow."""

import dataclasses
import functools
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np

from glow_jax.catalogue import ALIASES, Entry, find, sizes
from glow_jax.config import DataConfig
from glow_jax.data.cache import load_splits
from glow_jax.data.dataset import Dataset, InMemory, Pictures, with_test_split
from glow_jax.data.decoding import DECODER, UnreadableError
from glow_jax.data.notes import note
from glow_jax.data.pictures import read_picture
from glow_jax.data.places import Places
from glow_jax.data.sources.folder import load_pictures
from glow_jax.data.sources.tfds_builder import open_builder
from glow_jax.data.sources.tfds_prepare import prepare_apart
from glow_jax.errors import GlowError, first_line, shown

if TYPE_CHECKING:
    from tensorflow_datasets.core.dataset_builder import DatasetBuilder
    from tensorflow_datasets.core.features import FeatureConnector

# An example as tensorflow-datasets gives it: its features by name.
_Example = dict[str, object]


class _Source(Protocol):
    """A split as tensorflow-datasets gives it, its pictures still encoded."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> _Example: ...

    def __getitems__(self, indices: list[int]) -> list[_Example]: ...


def known_names() -> list[str]:
    """The names of all data sets that come with tensorflow-datasets."""
    import tensorflow_datasets as tfds  # a second, which no other source should pay

    return tfds.list_builders(with_community_datasets=False)


def load_tfds(config: DataConfig, places: Places | None = None) -> Dataset:
    """Load a data set of tensorflow-datasets, and prepare it first where it is missing.

    Where the user has put pictures into DATAROOT/NAME/train, those are the data set.

    Args:
        config: which data set, and how it is read.
        places: its folders; where they are only read, what is missing or damaged is an error.

    Raises:
        GlowError: it is missing and cannot be prepared, or it is no data set of images.
    """
    places = places or Places(config.dataroot)
    name = ALIASES.get(config.dataset, config.dataset)
    entry = find(name)
    if entry:  # an impossible size is reported before anything is downloaded
        sizes(entry, config.image_size, name)
    whole_name = entry.builder if entry else name
    pictures = places.root / whole_name
    if entry and (pictures / "train").is_dir():
        return load_pictures(config, pictures, entry, name, places=places)
    builder = open_builder(whole_name, config.dataroot)
    if builder.is_prepared() and _set_aside_if_damaged(builder, places):
        builder = open_builder(whole_name, config.dataroot)
    _image_shape(builder, name)  # data sets without pictures are refused before a download
    if not builder.is_prepared():
        if places.read_only:
            raise GlowError(
                f"Data set {name} is not in {shown(config.dataroot)}, the dataroot that the run "
                "names: give --dataroot, the folder where it is or may be prepared."
            )
        prepare_apart(builder, name, config, pictures)
        builder = open_builder(whole_name, config.dataroot)
    return _prepared(builder, config, places, entry or _entry_of(builder, name), name)


def _prepared(
    builder: "DatasetBuilder", config: DataConfig, places: Places, entry: Entry, name: str
) -> Dataset:
    decoded_size, crop = sizes(entry, config.image_size, name)
    splits: dict[str, Pictures] = {
        split: PreparedPictures(str(builder.data_dir), config.dataroot, there, entry, decoded_size)
        for split, there in (("train", "train"), ("test", entry.test))
        if there
    }
    full_name = builder.info.full_name
    loaded = load_splits(
        config,
        splits,
        f"{name.replace('/', '-')}-{decoded_size or 'whole'}",
        f"{full_name} {DECODER}",
        crop=crop,
        places=places,
    )
    counts = {split: len(images) for split, images in splits.items()}
    return with_test_split(
        name,
        entry.classes,
        loaded,
        flips=entry.flips,
        shifts=entry.shifts,
        class_names=_class_names(builder, entry),
        fingerprint=f"{full_name} {counts}",
    )


def _class_names(builder: "DatasetBuilder", entry: Entry) -> tuple[str, ...]:
    feature = _features(builder).get(entry.labels) if entry.classes else None
    names = getattr(feature, "names", None) or ()
    if not names and entry.labels == "attributes" and feature is not None:
        names = sorted(cast("dict[str, object]", feature))
    return tuple(map(shown, names)) if len(names) == entry.classes else ()


def _features(builder: "DatasetBuilder") -> "dict[str, FeatureConnector]":
    from tensorflow_datasets.core.features import FeaturesDict

    features = builder.info.features
    return dict(features.items()) if isinstance(features, FeaturesDict) else {}


def _image_shape(builder: "DatasetBuilder", name: str) -> tuple[int | None, ...]:
    """(H, W, C) of the pictures, with None for what varies.

    Raises:
        GlowError: the data set has no pictures.
    """
    from tensorflow_datasets.core.features import TensorInfo

    image = _features(builder).get("image")
    tensor = image.get_tensor_info() if image is not None else None
    if isinstance(tensor, TensorInfo) and len(tensor.shape) == 3 and tensor.np_dtype == np.uint8:
        return tuple(tensor.shape)
    raise GlowError(f"Data set {name} has no feature 'image' of 8-bit pictures.")


def _entry_of(builder: "DatasetBuilder", name: str) -> Entry:
    """The catalogue row of a data set that the catalogue does not name."""
    if "train" not in builder.info.splits:
        raise GlowError(f"Data set {name} has no split 'train'.")
    height, width, channels = _image_shape(builder, name)
    classes = getattr(_features(builder).get("label"), "num_classes", None) or 0
    test = next((split for split in ("test", "validation") if split in builder.info.splits), "")
    if test == "test" and classes and not _has_labels(builder, "test"):
        test = "validation" if "validation" in builder.info.splits else ""
    shape = (height or 0, width or 0, channels or 3)
    return Entry(name, shape, classes, labels="label" if classes else "", test=test)


def _has_labels(builder: "DatasetBuilder", split: str) -> bool:
    """Whether a split has labels: by convention, withheld ones are -1."""
    return cast("int", _source(builder, split)[0]["label"]) >= 0


def _set_aside_if_damaged(builder: "DatasetBuilder", places: Places) -> bool:
    """Move prepared files aside where they cannot be opened, and say whether that was so."""
    try:
        for split, info in builder.info.splits.items():
            source = _source(builder, split)
            # A file is opened when an example is read from it: here, its last one.
            for end in np.cumsum(info.shard_lengths):
                source[int(end) - 1]
    except NotImplementedError:
        raise GlowError(
            f"{builder.data_dir} was prepared in another format than array_record: give another "
            "--dataroot."
        ) from None
    except Exception as error:  # whatever array_record's C++ code raises
        place = Path(builder.data_dir)
        if places.read_only:
            raise GlowError(
                f"{shown(place)} is damaged ({first_line(error)}), and the run names its folder: "
                "give --dataroot, the folder where it may be prepared anew."
            ) from None
        aside = Path(tempfile.mkdtemp(dir=place.parent, prefix=f"damaged.{place.name}."))
        place.rename(aside)
        note(
            f"{shown(place)} is damaged ({first_line(error)}): moved to {aside.name}, and prepared "
            "anew"
        )
        return True
    return False


@dataclass
class PreparedPictures:
    """A split of a prepared data set, decoded and resized when it is read.

    Attributes:
        directory: the folder of the prepared data set.
        dataroot: the folder of data sets.
        split: the name of the split there.
        entry: the data set's row in the catalogue.
        size: side of the images; 0 leaves them as they are.
    """

    directory: str
    dataroot: str
    split: str
    entry: Entry
    size: int

    @functools.cached_property
    def _opened(self) -> _Source:
        return _source(open_builder(self.entry.builder, self.dataroot), self.split)

    def __getstate__(self) -> dict[str, object]:
        """Everything but the open files, which no other process can use."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def __len__(self) -> int:
        """The number of pictures."""
        return len(self._opened)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C)."""
        height, width, channels = self.entry.image_shape
        return (self.size or height, self.size or width, channels)

    @property
    def multi_hot(self) -> bool:
        """Whether labels are sets of attributes."""
        return self.entry.labels == "attributes" and self.entry.classes > 0

    def __getitem__(self, indices: np.ndarray) -> InMemory:
        """The pictures at `indices`, and their labels."""
        entry = self.entry
        try:
            examples = self._opened.__getitems__([int(index) for index in indices])
            pictures = [
                read_picture(
                    _encoded(example), entry.mode, self.size, centre=entry.centre, pad=entry.pad
                )
                for example in examples
            ]
        except (RuntimeError, UnreadableError) as error:  # a checksum or a picture
            raise GlowError(
                f"{self.directory} is damaged ({first_line(error)}): remove it, and the next run "
                "prepares it anew."
            ) from None
        return InMemory(np.stack(pictures), self._labels(examples))

    def _labels(self, examples: list[_Example]) -> np.ndarray:
        if not self.entry.classes:
            return np.empty((len(examples), 0), np.int32)
        labels = [example[self.entry.labels] for example in examples]
        if self.multi_hot:
            attributes = cast("list[dict[str, bool]]", labels)
            labels = [[one[name] for name in sorted(one)] for one in attributes]
        return np.array(labels, np.int32)


def _source(builder: "DatasetBuilder", split: str) -> _Source:
    from tensorflow_datasets.core.decode import SkipDecoding

    # A decorator hides the method's parameters from type checkers.
    open_source = cast("Callable[..., _Source]", builder.as_data_source)
    return open_source(split, decoders={"image": SkipDecoding()})


def _encoded(example: _Example) -> bytes:
    return cast("bytes", example["image"])
