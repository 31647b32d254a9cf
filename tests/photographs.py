"""Archives in the true formats of published data sets, of squares cut from two photographs.

`load` and `sorted_images` read what is prepared from them.

As a program, `python tests/photographs.py NAME DATAROOT` prepares such a data set through the
builder of tensorflow-datasets and the project's own code, without a network. It takes TensorFlow.
"""

import io
import sys
import tarfile
from pathlib import Path
from unittest import mock

import numpy as np

from glow_jax.config import DataConfig
from glow_jax.data import Dataset, InMemory, load_dataset


def squares(count: int, size: int, seed: int = 0) -> np.ndarray:
    """uint8 squares, (count, size, size, 3), from scikit-learn's two photographs."""
    from sklearn.datasets import load_sample_images

    photographs = load_sample_images().images
    rng = np.random.default_rng(seed)
    cut = []
    for number in range(count):
        photograph = photographs[number % 2]
        top, left = rng.integers(np.array(photograph.shape[:2]) - size)
        cut.append(photograph[top : top + size, left : left + size])
    return np.stack(cut)


def write_cifar10(folder: Path, train: int = 40, test: int = 20) -> None:
    """cifar-10-binary.tar.gz: one byte of label, then 1,024 each of red, green and blue."""
    images = squares(train + test, 32)
    labels = np.arange(train + test) % 10
    records = [
        bytes([label]) + image.transpose(2, 0, 1).tobytes()
        for label, image in zip(labels, images, strict=True)
    ]
    size = train // 5
    members = {
        f"data_batch_{part + 1}.bin": b"".join(records[part * size : (part + 1) * size])
        for part in range(5)
    }
    members["test_batch.bin"] = b"".join(records[train:])
    members["batches.meta.txt"] = "\n".join(f"class{n}" for n in range(10)).encode()
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(folder / "cifar-10-binary.tar.gz", "w:gz") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


def write_svhn(folder: Path, train: int = 30, test: int = 20) -> None:
    """The three .mat files; the digit 0 is labelled 10."""
    from scipy import io as matlab

    folder.mkdir(parents=True, exist_ok=True)
    for name, count in (("train", train), ("test", test), ("extra", 10)):
        images = squares(count, 32, seed=count).transpose(1, 2, 3, 0)
        labels = (np.arange(count) % 10 + 1)[:, None].astype(np.uint8)
        matlab.savemat(folder / f"{name}_32x32.mat", {"X": images, "y": labels})


def load(name: str, dataroot: Path, **values: object) -> Dataset:
    """A data set under `dataroot`; `values` are further fields of `DataConfig`."""
    return load_dataset(DataConfig(dataset=name, dataroot=str(dataroot), **values))  # pyright: ignore[reportArgumentType]


def sorted_images(split: InMemory) -> np.ndarray:
    """The images of a split as rows of pixels, in an order that does not depend on theirs."""
    return np.array(sorted(split.images.reshape(len(split), -1).tolist()))


def main(name: str, dataroot: str) -> None:
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download import checksums

    from glow_jax.data.sources.tfds_child import main as prepare

    manual = Path(dataroot) / "downloads" / "manual"
    builder = tfds.builder(name, data_dir=dataroot, file_format="array_record")
    # The published checksums are those of the published archives.
    published = builder.url_infos or {}
    own = {
        url: checksums.compute_url_info(manual / info.filename) for url, info in published.items()
    }
    with mock.patch.object(type(builder), "url_infos", own):
        prepare(name, dataroot)


if __name__ == "__main__":
    main(*sys.argv[1:])
