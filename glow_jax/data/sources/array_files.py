"""Data sets of arrays in files: `.npz`, `.npy`, and folders of `.npy`."""

import contextlib
import math
import stat
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar, cast

import numpy as np

from glow_jax.config import DataConfig
from glow_jax.data.dataset import Dataset
from glow_jax.data.decoding import SEVERAL
from glow_jax.data.notes import note, some
from glow_jax.data.sources.archive import check_member
from glow_jax.data.sources.arrays import check_images, check_pixels, from_arrays
from glow_jax.data.sources.npy import read_header, read_npy
from glow_jax.errors import GlowError, first_line, shown
from glow_jax.files import expanded

_T = TypeVar("_T")
# Files of arrays in a folder, by whatever names; more than that are pictures.
_NAMED_OTHERWISE = 8
ARRAYS = ("images", "labels", "test_images", "test_labels")


def load_array_file(config: DataConfig) -> Dataset:
    """Load a file with `images` and, if wanted, `labels`, `test_images`, `test_labels`.

    Args:
        config: `dataset` is the `.npz`, an `.npy` with the images alone, or a folder of `.npy`
            files of these names; `image_size` and the limits are checked.

    Raises:
        GlowError: there is no such file, it is damaged, or it holds something else.
    """
    path, arrays = _path(config), _read(config)
    with _naming(path):
        dataset = from_arrays(
            shown(path.stem),
            arrays["images"],
            arrays.get("labels"),
            test_images=arrays.get("test_images"),
            test_labels=arrays.get("test_labels"),
            class_limit=config.class_limit,
        )
    height, width, _ = dataset.image_shape
    if config.image_size and (height, width) != (config.image_size, config.image_size):
        raise GlowError(
            f"{shown(path)} holds images of {height} x {width}, not of image_size "
            f"{config.image_size}: resize them before saving, or leave image_size out."
        )
    return dataset


def array_file_images(config: DataConfig) -> np.ndarray:
    """The images of a file that no model is trained on: `test_images`, or else `images`.

    Args:
        config: as for `load_array_file`, but `image_size` is not checked.

    Returns:
        uint8, (N, H, W, C).

    Raises:
        GlowError: as `load_array_file`.
    """
    arrays = _read(config)
    images = arrays.get("test_images", arrays["images"])
    dataset = from_arrays(shown(_path(config).stem), images, test_images=images)
    return dataset.test[np.arange(len(images))].images


def is_array_file(name: str) -> bool:
    """Whether `--dataset` names a file of arrays, or a folder of them."""
    path = expanded(name.removeprefix("folder:"), "dataset")
    if name.startswith("folder:"):
        return (path / "images.npy").is_file()
    return path.suffix.lower() in (".npz", ".npy")


def refuse_misnamed(folder: Path) -> None:
    """Raise `GlowError` where a file of a folder holds the images, but is not called so."""
    files = sorted(path for path in folder.glob("*.npy") if path.is_file())
    for path in files[:_NAMED_OTHERWISE]:
        with contextlib.suppress(GlowError, OSError), path.open("rb") as file:
            shape, _, _ = read_header(file)
            if len(shape) == 4:
                break
    else:
        return
    raise GlowError(f"{shown(path)} {SEVERAL}.")


def _path(config: DataConfig) -> Path:
    return expanded(config.dataset.removeprefix("folder:"), "dataset")


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Begin the message of a `GlowError` with the file."""
    try:
        yield
    except GlowError as error:
        raise GlowError(f"{shown(path)}: {error}") from None


def _read(config: DataConfig) -> dict[str, np.ndarray]:
    path = _path(config)
    if not path.is_dir():
        try:
            is_file = stat.S_ISREG(path.stat().st_mode)
        except (OSError, ValueError):
            raise GlowError(f"There is no file {shown(path)}: give its path.") from None
        if not is_file:
            raise GlowError(f"{shown(path)} is no regular file, but a pipe or a device.")
    try:
        with contextlib.ExitStack() as stack:
            return _Arrays(path, _members(path, stack), config.memory_limit).read()
    except GlowError:
        raise
    except MemoryError:
        raise GlowError(f"{shown(path)} does not fit into memory: save fewer images.") from None
    except Exception as error:  # zipfile raises anything of a damaged file
        kind = path.suffix.lower() or ".npy"
        raise GlowError(
            f"{shown(path)} cannot be read as an {kind} file: {first_line(error)}."
        ) from None


@dataclass(frozen=True)
class _Member:
    """An array in a file.

    Attributes:
        source: the archive, or None for a file of its own.
        place: the member there, or the file.
    """

    source: zipfile.ZipFile | None
    place: zipfile.ZipInfo | Path

    def open(self) -> BinaryIO:
        """Its bytes, from the beginning."""
        if isinstance(self.place, Path):
            return self.place.open("rb")
        return cast("BinaryIO", cast("zipfile.ZipFile", self.source).open(self.place))

    def check(self, size: int) -> None:
        """Raise `GlowError` where no honest file expands to so many bytes."""
        if isinstance(self.place, zipfile.ZipInfo):
            check_member(self.place, size)


def _members(path: Path, stack: contextlib.ExitStack) -> dict[str, _Member]:
    """Every array of a file, by its name."""
    if path.is_dir():
        files = {name: path / f"{name}.npy" for name in ARRAYS}
        return {name: _Member(None, file) for name, file in files.items() if file.is_file()}
    with path.open("rb") as file:
        is_array = file.read(6) == b"\x93NUMPY"
    if is_array or path.suffix.lower() == ".npy":
        return {"images": _Member(None, path)}
    archive = stack.enter_context(zipfile.ZipFile(path))
    return {
        info.filename.removesuffix(".npy"): _Member(archive, info) for info in archive.infolist()
    }


@dataclass(frozen=True)
class _Arrays:
    """Reads the arrays of a file; all headers are checked before any memory is taken."""

    path: Path
    members: dict[str, _Member]
    memory_limit: float

    def read(self) -> dict[str, np.ndarray]:
        names = [name for name in ARRAYS if name in self.members]
        if "images" not in names:
            found = some(list(self.members)) or "nothing"
            raise GlowError(
                f"{shown(self.path)} holds {found}; it must hold an array 'images': "
                "np.savez(path, images=images, labels=labels)."
            )
        sizes = {name: self._in_one_sentence(name, self._size) for name in names}
        total = sum(sizes.values())
        if total > self.memory_limit * 1e9:
            raise GlowError(
                f"{shown(self.path)} holds {total / 1e9:.3g} GB of images, above memory_limit "
                f"{self.memory_limit:g} GB: raise --memory_limit, or save the images as "
                "pictures and give --dataset folder:PATH, which is streamed."
            )
        others = [name for name in self.members if name not in names]
        if others:
            note(f"{shown(self.path)}: {len(others)} not read beside {some(names)}: {some(others)}")
        return {name: self._in_one_sentence(name, self._array) for name in names}

    def _in_one_sentence(self, name: str, read: Callable[[str], _T]) -> _T:
        try:
            return read(name)
        except MemoryError:
            raise
        except Exception as error:  # whatever zlib and zipfile raise of damaged bytes
            where = f"{shown(self.path)} cannot be read: its array '{name}'"
            raise GlowError(f"{where}: {first_line(error)}.") from None

    def _size(self, name: str) -> int:
        member = self.members[name]
        member.check(0)
        with member.open() as stream:
            shape, _, kind = read_header(stream)
        self._check(name, shape, kind)
        size = math.prod(shape) * kind.itemsize
        member.check(size)
        return size

    def _array(self, name: str) -> np.ndarray:
        with self.members[name].open() as stream:
            return read_npy(
                stream,
                self.memory_limit * 1e9,
                lambda shape, kind: self._check(name, shape, kind),
            )

    def _check(self, name: str, shape: tuple[int, ...], kind: np.dtype) -> None:
        if name.endswith("labels"):
            if kind.kind not in "iub":
                raise GlowError(f"labels must be whole numbers, not {kind}")
            if len(shape) not in (1, 2):
                raise GlowError(f"labels must be of shape (N,) or (N, classes), not {shape}")
            return
        check_images(shape)
        check_pixels(kind)
