"""Data sets from arrays: one's own, and `.npz` files."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from glow_jax.config import DataConfig
from glow_jax.data.dataset import Dataset, Split, hold_out
from glow_jax.errors import GlowError


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
        name: what it is called in messages.
        images: uint8, (N, H, W, C), or (N, H, W) where there is one channel.
        labels: class numbers from 0, (N,), or multi-hot, (N, classes); None where there are none.
        test_images: the test split's; None holds out a tenth of `images`, always the same one.
        test_labels: the test split's, as `labels`.
        flips: whether a mirrored image is as likely as the image.
        shifts: whether an image shifted by up to 10 percent is.

    Raises:
        GlowError: dtypes, shapes or labels do not fit together.
    """
    whole = _split(images, labels)
    if test_images is None:
        train, test = hold_out(whole, 0.1)
    else:
        train, test = whole, _split(test_images, test_labels)
    return Dataset(name, _classes(whole.labels), train, test, flips=flips, shifts=shifts)


def _split(images: np.ndarray, labels: np.ndarray | None) -> Split:
    images = np.asarray(images)
    images = images[..., None] if images.ndim == 3 else images
    if images.ndim != 4:
        raise GlowError(f"Images must be of shape (N, H, W, C), not {images.shape}.")
    if labels is None:
        return Split(images, np.empty((len(images), 0), np.int32))
    labels = np.asarray(labels)
    whole = np.issubdtype(labels.dtype, np.integer) or labels.dtype == bool
    if not whole or labels.ndim not in (1, 2) or len(labels) != len(images):
        raise GlowError(
            f"Labels must be whole numbers of shape ({len(images)},) or ({len(images)}, classes), "
            f"not {labels.dtype} of shape {labels.shape}."
        )
    return Split(images, labels)


def _classes(labels: np.ndarray) -> int:
    return labels.shape[1] if labels.ndim == 2 else int(labels.max(initial=-1)) + 1


def load_npz(config: DataConfig) -> Dataset:
    """Load an `.npz` file: `images`, and if there are any `labels`, `test_images`, `test_labels`.

    Raises:
        GlowError: there is no such file, it is damaged, or it holds something else.
    """
    path, arrays = Path(config.dataset), _read_npz(config)
    dataset = from_arrays(path.stem, arrays.pop("images"), **arrays)
    height, width, _ = dataset.image_shape
    if config.image_size and (height, width) != (config.image_size, config.image_size):
        raise GlowError(
            f"{path} holds images of {height} x {width}, not of image_size {config.image_size}: "
            "resize them before saving, or leave image_size out."
        )
    return dataset


def npz_images(config: DataConfig) -> np.ndarray:
    """The images of an `.npz` file that no model is trained on: `test_images`, or else `images`.

    Returns:
        uint8, (N, H, W, C).

    Raises:
        GlowError: as `load_npz`.
    """
    arrays = _read_npz(config)
    images = arrays.get("test_images", arrays["images"])
    dataset = from_arrays(Path(config.dataset).stem, images, test_images=images)
    return dataset.test[np.arange(len(images))].images


def _read_npz(config: DataConfig) -> dict[str, Any]:
    path = Path(config.dataset)
    names = ("images", "labels", "test_images", "test_labels")
    try:
        # Opened here, because np.load leaves a damaged file open.
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            size = sum(_bytes(path, name) for name in ("images", "test_images") if name in file)
            if size > config.memory_limit * 1e9:
                raise GlowError(
                    f"{path} holds {size / 1e9:.1f} GB of images, above memory_limit "
                    f"{config.memory_limit:g} GB: raise --memory_limit, or save the images as "
                    "pictures and give --dataset folder:PATH, which is streamed."
                )
            arrays = {name: file[name] for name in names if name in file}
            found = ", ".join(file.files)
    except FileNotFoundError:
        raise GlowError(f"There is no file {path}.") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        if isinstance(error, GlowError):
            raise
        raise GlowError(f"{path} cannot be read as an .npz file: {error}.") from None
    if "images" not in arrays:
        raise GlowError(f"{path} holds {found or 'nothing'}; it must hold an array 'images'.")
    return arrays


def _bytes(path: Path, name: str) -> int:
    with zipfile.ZipFile(path) as archive:
        return archive.getinfo(f"{name}.npy").file_size
