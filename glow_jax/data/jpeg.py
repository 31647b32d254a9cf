"""JPEG files that are cut off behind their last pixel."""

import hashlib
from collections.abc import Callable

from PIL import Image

from glow_jax.data.flat import bands

_END = b"\xff\xd9"
_NO_DATA = bytes([0x55]) * 64


def decode_without_end(
    content: bytes, decode: Callable[[bytes], Image.Image]
) -> Image.Image | None:
    """The picture of a file that lacks its end marker, if all of its pixels are there.

    A decoder invents what is missing. So the file is decoded with nothing and with other data
    before a new end marker: where both pictures are the same, nothing was missing.

    Args:
        content: the file's.
        decode: decodes a whole file; it may raise anything.

    Returns:
        The picture; None if pixels are missing.
    """
    if content.endswith(_END):
        return None
    expected = _digest(decode(content + _NO_DATA + _END))
    picture = decode(content + _END)
    return picture if _digest(picture) == expected else None


def _digest(picture: Image.Image) -> bytes:
    digest = hashlib.sha256()
    for band in bands(picture):
        digest.update(band.tobytes())
    return digest.digest()
