"""The embedded data set: 1,797 real handwritten digits of 8 x 8 pixels, inside scikit-learn."""

from typing import Any

import numpy as np

from glow_jax.config import DataConfig
from glow_jax.data.dataset import Dataset, Split
from glow_jax.errors import GlowError

_TEST_IMAGES = 360


def load_digits(config: DataConfig) -> Dataset:
    """Load the digits (Alpaydin & Kaynak 1998, UCI), with a fixed test split of 360 images.

    They have 17 grey levels; min(value, 15) makes them 4-bit images, spread over 0..255, to be read
    with n_bits 4.

    Raises:
        GlowError: another image_size is asked for.
    """
    if config.image_size not in (0, 8):
        raise GlowError(f"image_size is {config.image_size}; digits are 8 x 8 pixels.")
    from sklearn import datasets  # half a second, which no other data set should pay

    bunch: Any = datasets.load_digits()
    bins = np.minimum(bunch["images"], 15).astype(np.uint8)
    images = (bins * 17)[..., None]  # (1797, 8, 8, 1)
    digits = Split(images, bunch["target"].astype(np.int32))
    order = np.random.default_rng(0).permutation(len(digits))
    return Dataset(
        name="digits",
        classes=10,
        train=digits[np.sort(order[_TEST_IMAGES:])],
        test=digits[np.sort(order[:_TEST_IMAGES])],
        shifts=True,
    )
