"""The images of the models in this folder that no catalogue has, as `.npz` files.

    python models/prepare.py --mnist mnist10k.npz --fashion_mnist data/downloads/manual

Writes below `data/`, or the `--output` folder,

- `digits.npz`: MNIST's 10,000 test images, the first 9,000 to train on and 1,000 to test on;
- `garments_groups.npz`: Fashion-MNIST with multi-hot labels: the ten classes, then five groups
  of them;
- `garments_without_bags.npz`: Fashion-MNIST without class 8, whose test images are in `bags.npz`.
"""

import gzip
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from glow_jax.cli.errors import one_line_errors
from glow_jax.cli.flags import parse
from glow_jax.errors import GlowError

CLASSES = 10
BAG = 8
GROUPS = {
    "top": (0, 2, 4, 6),
    "trousers": (1,),
    "dress": (3,),
    "shoe": (5, 7, 9),
    "bag": (8,),
}
"""Groups of Fashion-MNIST's classes, by their numbers."""
DIGITS_TO_TRAIN = 9000


@dataclass(frozen=True)
class Arguments:
    """Write the arrays that the models were trained on."""

    mnist: Path
    """.npz with MNIST's 10,000 test images as `images` or `test_images`, and their labels"""
    fashion_mnist: Path
    """folder of Fashion-MNIST's four files (train-images-idx3-ubyte.gz, ...)"""
    output: Path = Path("data")
    """folder to write to"""


def idx(path: Path, header: int) -> np.ndarray:
    """The bytes of a gzipped idx file after its header."""
    try:
        return np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=header)
    except (OSError, EOFError, ValueError) as error:
        raise GlowError(f"{path} is not one of Fashion-MNIST's four files: {error}.") from error


def garments(folder: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """A part of Fashion-MNIST, `train` or `t10k`: images (N, 28, 28, 1), class numbers (N,)."""
    images = idx(folder / f"{part}-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28, 1)
    return images, idx(folder / f"{part}-labels-idx1-ubyte.gz", 8).astype(np.int64)


def with_groups(labels: np.ndarray) -> np.ndarray:
    """Class numbers (N,) as multi-hot classes and groups, (N, 15)."""
    classes = np.eye(CLASSES, dtype=np.uint8)[labels]
    members = np.zeros((CLASSES, len(GROUPS)), np.uint8)
    for column, group in enumerate(GROUPS.values()):
        members[list(group), column] = 1
    return np.concatenate([classes, classes @ members], axis=1)


def digits(path: Path) -> dict[str, np.ndarray]:
    """MNIST's test images, most to train on."""
    with np.load(path, allow_pickle=False) as arrays:
        name = "images" if "images" in arrays else "test_images"
        labels = "labels" if "labels" in arrays else "test_labels"
        images, numbers = arrays[name].reshape(-1, 28, 28, 1), arrays[labels].astype(np.int64)
    cut = DIGITS_TO_TRAIN
    return {
        "images": images[:cut],
        "labels": numbers[:cut],
        "test_images": images[cut:],
        "test_labels": numbers[cut:],
    }


@one_line_errors
def main() -> None:
    """Write the files."""
    arguments = parse(Arguments)
    train, train_labels = garments(arguments.fashion_mnist, "train")
    test, test_labels = garments(arguments.fashion_mnist, "t10k")
    files: dict[str, dict[str, Any]] = {
        "digits": digits(arguments.mnist),
        "garments_groups": {
            "images": train,
            "labels": with_groups(train_labels),
            "test_images": test,
            "test_labels": with_groups(test_labels),
        },
        "garments_without_bags": {
            "images": train[train_labels != BAG],
            "labels": train_labels[train_labels != BAG],
            "test_images": test[test_labels != BAG],
            "test_labels": test_labels[test_labels != BAG],
        },
        "bags": {"images": test[test_labels == BAG]},
    }
    arguments.output.mkdir(parents=True, exist_ok=True)
    for name, arrays in files.items():
        np.savez_compressed(arguments.output / f"{name}.npz", **arrays)
        print(f"{arguments.output / name}.npz: {', '.join(arrays)}")


if __name__ == "__main__":
    main()
