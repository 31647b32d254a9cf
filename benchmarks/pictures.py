"""Photographs that come with scikit-learn, so that nothing is downloaded."""

import numpy as np
from sklearn.datasets import load_sample_images


def squares(count: int, size: int) -> np.ndarray:
    """uint8 squares, (count, size, size, 3), cut at random places from two photographs in turn."""
    photographs = load_sample_images().images
    rng = np.random.default_rng(0)
    cut = np.empty((count, size, size, 3), np.uint8)
    for number in range(count):
        photograph = photographs[number % 2]
        top, left = rng.integers(np.array(photograph.shape[:2]) - size)
        cut[number] = photograph[top : top + size, left : left + size]
    return cut
