"""Pictures that a visitor gives, at the size that a run takes; they are never on the disk."""

import base64
import binascii

import numpy as np

from glow_jax.catalogue import find
from glow_jax.data.decoding import TooLargeError, UnreadableError
from glow_jax.data.pictures import read_picture
from glow_jax.demo.studio import Studio
from glow_jax.errors import GlowError

LARGEST_FILE = 32 << 20
"""Bytes of a file that a visitor may give."""
# Megapixels: what a telephone takes, and no more memory than a server has for several visitors.
_LIMIT = 50.0
# Four letters for three bytes, and what stands before them.
_LONGEST_ADDRESS = LARGEST_FILE // 3 * 4 + 1000
_MODES = {1: "L", 3: "RGB"}


def picture_from(studio: Studio, content: bytes, ending: str = "") -> np.ndarray:
    """Decode a picture, and cut and resize it as the pictures of the run's data set are.

    Args:
        studio: the run.
        content: the file.
        ending: of its name, such as .tga.

    Returns:
        uint8, (H, W, C).

    Raises:
        GlowError: it is no picture, too large, or too small for the run.
    """
    height, width, channels = studio.model.config.image_shape
    if channels not in _MODES or height != width:
        raise GlowError(
            f"This run takes images of {height} x {width} with {channels} channels, which no "
            "picture is cut to: choose a test image."
        )
    if len(content) > LARGEST_FILE:
        raise GlowError(f"This file has more than {LARGEST_FILE >> 20} MiB: give a smaller one.")
    entry = find(studio.run.config.data.dataset)
    centre, pad = (entry.centre, entry.pad) if entry else (0, False)
    source = _Given(content, ending.lower())
    try:
        mode = _MODES[channels]
        return read_picture(source, mode, height, centre=centre, pad=pad, limit=_LIMIT)
    except TooLargeError as error:
        limit = str(error).replace("picture_limit ", "")
        raise GlowError(f"This picture is too large: {limit}.") from None
    except UnreadableError:
        raise GlowError(
            "This file is no picture that can be read: it is of an unknown format, or damaged."
        ) from None
    except GlowError:
        raise GlowError(
            f"This picture is smaller than the {height} x {width} pixels of the run's images: give "
            "a larger one."
        ) from None


class _Given:
    """A file in memory whose name is known to end in something."""

    def __init__(self, content: bytes, ending: str):
        self._content, self.ending, self.size = content, ending, len(content)

    def read(self, most: float) -> bytes:
        if self.size > most:
            raise UnreadableError("it is too large")
        return self._content


def content_of(address: object) -> bytes:
    """The content of a `data:` address, as a browser gives a file or a canvas.

    Raises:
        GlowError: it is no such address, or longer than any file that may be given.
    """
    if not isinstance(address, str) or not address.startswith("data:"):
        raise GlowError("There is no picture yet: choose a file or draw one first.")
    if len(address) > _LONGEST_ADDRESS:
        raise GlowError(f"This file has more than {LARGEST_FILE >> 20} MiB: give a smaller one.")
    try:
        return base64.b64decode(address.partition(",")[2], validate=True)
    except binascii.Error:
        raise GlowError("This picture arrived damaged: give it again.") from None
