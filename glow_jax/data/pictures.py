"""Pictures to pixels. No other module of the data sets opens a picture."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from glow_jax.errors import GlowError

# What Pillow raises for files that are damaged, no pictures at all, or bombs.
_UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


class UnreadableError(GlowError):
    """A file or a string of bytes is no picture that can be decoded."""


def open_picture(source: Path | bytes, mode: str) -> Image.Image:
    """Decode a picture, whole.

    Args:
        source: its file, or the file's content.
        mode: Pillow's name of the mode to convert it to: L for grey, RGB for colours.

    Raises:
        UnreadableError: it cannot be decoded.
    """
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as picture:
            return picture.convert(mode)
    except _UNREADABLE as error:
        raise UnreadableError(str(error)) from None


def fit(picture: Image.Image, size: int, *, centre: int = 0, pad: bool = False) -> np.ndarray:
    """Cut the square in the middle of a picture and resize it to `size`, or pad to `size`.

    Resizing averages over the area that each pixel covers. Nothing is ever enlarged.

    Args:
        picture: of mode L or RGB.
        size: side of the square; 0 leaves the picture as it is.
        centre: side of the square to cut out, where it is not smaller than `size`; 0 takes the
            largest.
        pad: whether a smaller picture gets a black frame instead of an error.

    Returns:
        uint8, (size, size, C).

    Raises:
        GlowError: the picture is smaller than `size`, and `pad` is off.
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


def fit_pixels(pixels: np.ndarray, size: int, *, centre: int = 0, pad: bool = False) -> np.ndarray:
    """`fit` for a picture that is an array.

    Args:
        pixels: uint8, (H, W, 1) or (H, W, 3).
        size: as for `fit`.
        centre: as for `fit`.
        pad: as for `fit`.

    Returns:
        uint8, (size, size, C).

    Raises:
        GlowError: as for `fit`.
    """
    picture = Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels)
    return fit(picture, size, centre=centre, pad=pad)
