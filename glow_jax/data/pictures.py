"""One picture of any size to a square of pixels."""

import numpy as np
from PIL import Image

from glow_jax.errors import GlowError


def fit(picture: Image.Image, size: int, *, centre: int = 0, pad: bool = False) -> np.ndarray:
    """Cut the square in the middle of a picture and resize it to `size`, or pad to `size`.

    Resizing averages over the area that each pixel covers; nothing is ever enlarged.

    Args:
        picture: of mode L or RGB.
        size: side of the square; 0 leaves the picture as it is.
        centre: side of the square to cut out, where it is not smaller than `size`; 0 takes the
            largest.
        pad: whether a smaller picture gets a black frame instead of an error.

    Returns:
        uint8, (size, size, C).

    Raises:
        GlowError: the picture is smaller than `size`, and not to be padded.
    """
    width, height = picture.size
    if size and pad and max(width, height) < size:
        framed = Image.new(picture.mode, (size, size))
        framed.paste(picture, ((size - width) // 2, (size - height) // 2))
        picture = framed
    elif size and (width, height) != (size, size):
        if min(width, height) < size:
            raise GlowError(f"a picture of {height} x {width} is smaller than image_size {size}")
        side = min(width, height, max(centre, size) if centre else width)
        left, top = (width - side) // 2, (height - side) // 2
        box = (left, top, left + side, top + side)
        picture = picture.resize((size, size), Image.Resampling.BOX, box=box)
    pixels = np.asarray(picture, np.uint8)
    return pixels[..., None] if pixels.ndim == 2 else pixels
