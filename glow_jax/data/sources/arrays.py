"""Data sets of arrays: your own, and those of `.npz` files."""

import contextlib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from glow_jax.config import DataConfig
from glow_jax.data.dataset import Dataset, InMemory, hold_out
from glow_jax.errors import GlowError

_ARRAYS = ("images", "labels", "test_images", "test_labels")


def from_arrays(
    name: str,
    images: np.ndarray,
    labels: np.ndarray | None = None,
    *,
    test_images: np.ndarray | None = None,
    test_labels: np.ndarray | None = None,
    flips: bool = False,
    shifts: bool = False,
) -> Dataset:
    """A data set of arrays in memory.

    Args:
        name: its name in messages.
        images: uint8, (N, H, W, C), or (N, H, W) where there is one channel.
        labels: class numbers from 0, (N,), or multi-hot, (N, classes); None where there are none.
        test_images: the test images; None holds out a tenth of `images`, always the same tenth.
        test_labels: the labels of the test images, as `labels`.
        flips: whether a mirrored image is as likely as the original.
        shifts: whether an image shifted by up to 10 percent is.

    Raises:
        GlowError: a dtype, a shape or a label is wrong.
    """
    whole = _split(images, labels)
    if test_images is None:
        train, test = hold_out(whole, 0.1)
    else:
        train, test = whole, _split(test_images, test_labels)
    return Dataset(name, _classes(whole.labels), train, test, flips=flips, shifts=shifts)


def _split(images: np.ndarray, labels: np.ndarray | None) -> InMemory:
    images = np.asarray(images)
    images = images[..., None] if images.ndim == 3 else images
    if images.ndim != 4:
        raise GlowError(f"Images must be of shape (N, H, W, C), not {images.shape}.")
    if labels is None:
        return InMemory(images, np.empty((len(images), 0), np.int32))
    labels = np.asarray(labels)
    whole = np.issubdtype(labels.dtype, np.integer) or labels.dtype == bool
    if not whole or labels.ndim not in (1, 2) or len(labels) != len(images):
        raise GlowError(
            f"Labels must be whole numbers of shape ({len(images)},) or ({len(images)}, classes), "
            f"not {labels.dtype} of shape {labels.shape}."
        )
    return InMemory(images, labels)


def _classes(labels: np.ndarray) -> int:
    return labels.shape[1] if labels.ndim == 2 else int(labels.max(initial=-1)) + 1


def load_npz(config: DataConfig) -> Dataset:
    """Load an `.npz` file with `images` and, if wanted, `labels`, `test_images`, `test_labels`.

    Args:
        config: `dataset` is the file; `image_size` and `memory_limit` are checked.

    Raises:
        GlowError: there is no such file, it is damaged, or it holds something else.
    """
    path, arrays = Path(config.dataset), _read_npz(config)
    dataset = from_arrays(
        path.stem,
        arrays["images"],
        arrays.get("labels"),
        test_images=arrays.get("test_images"),
        test_labels=arrays.get("test_labels"),
    )
    height, width, _ = dataset.image_shape
    if config.image_size and (height, width) != (config.image_size, config.image_size):
        raise GlowError(
            f"{path} holds images of {height} x {width}, not of image_size {config.image_size}: "
            "resize them before saving, or leave image_size out."
        )
    return dataset


def npz_images(config: DataConfig) -> np.ndarray:
    """The images of an `.npz` file that no model is trained on: `test_images`, or else `images`.

    Args:
        config: as for `load_npz`, but `image_size` is not checked.

    Returns:
        uint8, (N, H, W, C).

    Raises:
        GlowError: as `load_npz`.
    """
    arrays = _read_npz(config)
    images = arrays.get("test_images", arrays["images"])
    dataset = from_arrays(Path(config.dataset).stem, images, test_images=images)
    return dataset.test[np.arange(len(images))].images


def _read_npz(config: DataConfig) -> dict[str, np.ndarray]:
    path = Path(config.dataset)
    with _one_line_errors(path):
        size = _image_bytes(path)
    if size > config.memory_limit * 1e9:
        raise GlowError(
            f"{path} holds {size / 1e9:.1f} GB of images, above memory_limit "
            f"{config.memory_limit:g} GB: raise --memory_limit, or save the images as "
            "pictures and give --dataset folder:PATH, which is streamed."
        )
    # Opened here, because np.load leaves a damaged file open.
    with (
        _one_line_errors(path),
        path.open("rb") as stream,
        np.load(stream, allow_pickle=False) as file,
    ):
        arrays = {name: file[name] for name in _ARRAYS if name in file}
        found = ", ".join(file.files)
    if "images" not in arrays:
        raise GlowError(f"{path} holds {found or 'nothing'}; it must hold an array 'images'.")
    return arrays


@contextlib.contextmanager
def _one_line_errors(path: Path) -> Iterator[None]:
    """Raise `GlowError` for whatever is raised where `path` is no `.npz` file."""
    try:
        yield
    except FileNotFoundError:
        raise GlowError(f"There is no file {path}.") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise GlowError(f"{path} cannot be read as an .npz file: {error}.") from None


def _image_bytes(path: Path) -> int:
    """The size of all images, which the file's directory says before anything is decompressed."""
    with zipfile.ZipFile(path) as archive:
        images = [name for name in ("images.npy", "test_images.npy") if name in archive.namelist()]
        return sum(archive.getinfo(name).file_size for name in images)
