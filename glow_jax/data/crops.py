"""Random crops, as the published figures on LSUN are trained on."""

import numpy as np


def random_crops(
    images: np.ndarray, size: int, indices: np.ndarray, draw: tuple[int, ...]
) -> np.ndarray:
    """Take a square out of each image, its place drawn uniformly by (draw, the image's index).

    Args:
        images: uint8, (B, H, W, C).
        size: side of the square, at most H and W.
        indices: each image's place in its split, (B,).
        draw: (seed, step) in training; () gives the same crops each time.

    Returns:
        uint8, (B, size, size, C).
    """
    reach = np.array(images.shape[1:3]) - size + 1
    crops = np.empty((len(images), size, size, images.shape[3]), np.uint8)
    for crop, image, index in zip(crops, images, indices, strict=True):
        top, left = np.random.default_rng((*draw, int(index))).integers(reach)
        crop[:] = image[top : top + size, left : left + size]
    return crops
