"""The embedded data set: 1,797 real handwritten digits of 8 x 8 pixels, inside scikit-learn."""

import numpy as np

from glow_jax.config import DataConfig
from glow_jax.data.dataset import Dataset, InMemory
from glow_jax.errors import GlowError

_TEST_IMAGES = 360


def load_digits(config: DataConfig) -> Dataset:
    """Load the digits (Alpaydin & Kaynak 1998, UCI), with a fixed test split of 360 images.

    They have 17 grey levels, 0..16. min(value, 15) makes them 4-bit images, whose 16 levels are
    spread over 0..255. The model reads them with n_bits 4.

    Args:
        config: `image_size` is checked.

    Raises:
        GlowError: another image_size is asked for.
    """
    if config.image_size not in (0, 8):
        raise GlowError(f"image_size is {config.image_size}; digits are 8 x 8 pixels.")
    from sklearn import datasets  # half a second, which no other data set should pay

    values, labels = datasets.load_digits(return_X_y=True)
    bins = np.minimum(values, 15).astype(np.uint8)
    images = (bins * 17).reshape(-1, 8, 8, 1)
    digits = InMemory(images, np.asarray(labels, np.int32))
    order = np.random.default_rng(0).permutation(len(digits))
    return Dataset(
        name="digits",
        classes=10,
        train=digits[np.sort(order[_TEST_IMAGES:])],
        test=digits[np.sort(order[:_TEST_IMAGES])],
        shifts=True,
    )
