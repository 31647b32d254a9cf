"""Pictures to pixels: what a picture is, and what of it is taken."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from glow_jax.data.decoding import Decoded, Source, decode
from glow_jax.data.flat import is_grey
from glow_jax.data.memory import PICTURES, allowance
from glow_jax.errors import GlowError

DEFAULT_LIMIT = 200.0
"""Megapixels of the largest picture that is read."""


@dataclass(frozen=True)
class Facts:
    """What a user wants to hear about a picture.

    Attributes:
        size: width and height, as shown.
        grey: whether it has no colours.
        moving: whether it has further frames, which are left out.
        transparent: whether parts of it are transparent.
        dull: whether it had more than 8 bits and uses less than a sixteenth of their range.
    """

    size: tuple[int, int]
    grey: bool
    moving: bool
    transparent: bool
    dull: bool


def open_picture(
    source: Source, mode: str, *, limit: float = DEFAULT_LIMIT, ending: str = ""
) -> Image.Image:
    """Decode a picture, whole.

    Args:
        source: its file, or the file's content.
        mode: Pillow's name of the mode to convert it to: L for grey, RGB for colours.
        limit: megapixels that it may have.
        ending: of the file whose content `source` is, where it is known.

    Raises:
        UnreadableError: it cannot be decoded, or is too large.
    """
    with PICTURES.share(allowance(limit)) as take:
        return _in_mode(decode(source, limit, ending, take), mode)


def read_picture(
    source: Source,
    mode: str,
    size: int,
    *,
    centre: int = 0,
    pad: bool = False,
    limit: float = DEFAULT_LIMIT,
) -> np.ndarray:
    """Decode a picture as `open_picture` does, and `fit` it."""
    with PICTURES.share(allowance(limit)) as take:
        picture = _in_mode(decode(source, limit, "", take), mode)
        return fit(picture, size, centre=centre, pad=pad)


def examine(source: Source, *, limit: float = DEFAULT_LIMIT, ending: str = "") -> Facts:
    """Decode a picture and say what it is; arguments and errors as for `open_picture`."""
    with PICTURES.share(allowance(limit)) as take:
        decoded = decode(source, limit, ending, take)
        flat = decoded.flat
        grey = is_grey(flat.picture)
    return Facts(flat.picture.size, grey, decoded.moving, flat.transparent, flat.dull)


def _in_mode(decoded: Decoded, mode: str) -> Image.Image:
    picture = decoded.flat.picture
    return picture if picture.mode == mode else picture.convert(mode)


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
