"""Builders of tensorflow-datasets, opened without trust in the files of a prepared data set.

tensorflow-datasets imports whatever module a file `features.json` names. The features of a data set
are therefore always those of the library's own code, and a file that names any other class is
refused before the library sees it.
"""

import contextlib
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, cast

from absl import logging

from glow_jax.errors import GlowError, first_line, shown
from glow_jax.files import expanded

if TYPE_CHECKING:
    from tensorflow_datasets.core.dataset_builder import DatasetBuilder

_LONGEST = 16 << 20
_DEEPEST = 20
_PACKAGE = "tensorflow_datasets.core.features."
# The last is the key's name in files of older versions.
_CLASS_KEYS = ("pythonClassName", "python_class_name", "type")
# The modules and classes of features that data sets of images have.
_FEATURES = frozenset(
    f"{_PACKAGE}{name}"
    for name in (
        "audio_feature.Audio",
        "bounding_boxes.BBoxFeature",
        "class_label_feature.ClassLabel",
        "dataset_feature.Dataset",
        "features_dict.FeaturesDict",
        "image_feature.Image",
        "labeled_image.LabeledImage",
        "scalar.Scalar",
        "sequence_feature.Sequence",
        "tensor_feature.Tensor",
        "text_feature.Text",
        "top_level_feature.TopLevelFeature",
        "translation_feature.Translation",
        "translation_feature.TranslationVariableLanguages",
        "video_feature.Video",
    )
)


def open_builder(name: str, dataroot: str) -> "DatasetBuilder":
    """The builder of a data set of tensorflow-datasets, from the library's own code.

    Args:
        name: its name there, perhaps with a configuration: `lsun/bedroom`.
        dataroot: the folder where prepared data sets lie.

    Raises:
        GlowError: there is none of that name, or prepared files are not to be trusted.
    """
    base, _, configuration = name.partition("/")
    _check_files(expanded(dataroot, "dataroot") / base)
    import tensorflow_datasets as tfds  # a second, which no other source should pay

    # tensorflow-datasets warns of every folder that is not there yet.
    logging.set_verbosity(logging.ERROR)
    try:
        if not base.isidentifier() or ":" in configuration:
            raise ValueError("give NAME or NAME/CONFIGURATION")
        # Not `tfds.builder`, which takes the features from files where it does not know a
        # configuration or a version. Decorators hide the parameters from type checkers.
        build = cast("Callable[..., DatasetBuilder]", tfds.builder_cls(base))
        folder = str(expanded(dataroot, "dataroot"))
        with _forgotten_folders_removed():
            return build(data_dir=folder, config=configuration or None, file_format="array_record")
    except (ValueError, ImportError, TypeError, OSError) as error:
        raise GlowError(f"Data set {shown(name)}: {first_line(error)}.") from None
    except Exception as error:  # protocol buffers' own errors, of a damaged file
        raise GlowError(
            f"Data set {shown(name)} in {shown(dataroot)} is damaged ({first_line(error)}): remove "
            "it, and the next run prepares it anew."
        ) from None


@contextlib.contextmanager
def _forgotten_folders_removed() -> Iterator[None]:
    """Remove what a block leaves among temporary files.

    For each data set that is not prepared, a builder of tensorflow-datasets makes an empty folder
    there and forgets it.
    """
    before = tempfile.tempdir
    with tempfile.TemporaryDirectory() as tempfile.tempdir:
        try:
            yield
        finally:
            tempfile.tempdir = before


def _check_files(folder: Path) -> None:
    """Check every file that tensorflow-datasets reads before the images.

    Raises:
        GlowError: one is too large, is no JSON, names a class that is no feature of images, or
            a place outside its folder.
    """
    for info in [*folder.glob("*/dataset_info.json"), *folder.glob("*/*/dataset_info.json")]:
        for path in info.parent.iterdir():
            if path.exists() and not (path.is_file() or path.is_dir()):
                raise GlowError(f"{shown(path)} is no file, but a pipe or a device: remove it.")
    for pattern in ("*/", "*/*/"):
        for path in folder.glob(f"{pattern}features.json"):
            _check_classes(path)
        for path in folder.glob(f"{pattern}dataset_info.json"):
            _check_places(path)
        for path in folder.glob(f"{pattern}*.labels.txt"):
            _check_size(path)


def _check_size(path: Path) -> None:
    if not path.is_file():
        raise GlowError(f"{shown(path)} is no regular file: remove it.")
    if path.stat().st_size > _LONGEST:
        raise GlowError(f"{shown(path)} has {path.stat().st_size:,} bytes, above {_LONGEST:,}.")


def _read(path: Path) -> object:
    _check_size(path)
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise GlowError(
            f"{shown(path)} is damaged ({type(error).__name__}): remove its folder, and the next "
            "run prepares the data set anew."
        ) from None


def _check_classes(path: Path) -> None:
    """Refuse a file that names a class which no feature of the library has."""
    for key, value in _entries(_read(path), path):
        if key in _CLASS_KEYS and isinstance(value, str) and value not in _FEATURES:
            raise GlowError(
                f"{shown(path)} names the class {shown(value)}, which is no feature of images: "
                "such a file can run any code, and is not read."
            )


def _check_places(path: Path) -> None:
    """Refuse file names that lead out of the folder."""
    for key, value in _entries(_read(path), path):
        if key.lower().replace("_", "") == "filepathtemplate" and "/" in str(value):
            raise GlowError(f"{shown(path)} names files outside its folder: {shown(str(value))}.")


def _entries(value: object, path: Path, depth: int = 0) -> Iterator[tuple[str, object]]:
    """Every named value in a file's JSON, at any depth up to the deepest that is sound."""
    if depth > _DEEPEST:
        raise GlowError(f"{shown(path)} is nested more than {_DEEPEST} deep: it is damaged.")
    if isinstance(value, dict):
        yield from value.items()
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for one in inner:
        yield from _entries(one, path, depth + 1)
