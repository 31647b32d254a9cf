"""Files of pictures to grey or colours of 8 bits. No other module opens a picture.

A picture is what its viewer shows: turned as its EXIF orientation says, its transparent parts on
white, its first frame where it moves. Deeper pictures are scaled to 8 bits, never clipped.
"""

import contextlib
import functools
import io
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
from PIL import Image

from glow_jax.data.flat import FEW_LEVELS, Flat, flatten
from glow_jax.data.jpeg import decode_without_end
from glow_jax.data.memory import allowance
from glow_jax.data.scaling import to_bytes
from glow_jax.data.sources.npy import read_npy
from glow_jax.errors import GlowError, first_line

DECODER = "decoder 3"
"""Changes where the pixels of a picture do, so that kept ones are decoded anew."""

# Formats that hold photographs, and the endings of their files. All others are refused, whatever
# a file is called: Pillow gives PostScript to another program, for example.
_ENDINGS = {
    "AVIF": ".avif .avifs",
    "BMP": ".bmp .dib",
    "DIB": "",
    "GIF": ".gif",
    "JPEG": ".jpg .jpeg .jpe .jfif .jif",
    "JPEG2000": ".jp2 .j2k .jpc .jpf .jpx .j2c",
    "MPO": ".mpo",
    "PCX": ".pcx",
    "PNG": ".png .apng",
    "PPM": ".ppm .pgm .pbm .pnm .pfm",
    "QOI": ".qoi",
    "SGI": ".sgi .rgb .rgba .bw",
    "TIFF": ".tif .tiff",
    "WEBP": ".webp",
}
# These have no mark at their beginning, so that the ending must tell.
_UNMARKED = dict.fromkeys((".tga", ".icb", ".vda", ".vst"), "TGA")
_ARRAY = ".npy"
ENDINGS = frozenset(" ".join(_ENDINGS.values()).split()) | {*_UNMARKED, _ARRAY}
"""The endings of files that are read as pictures."""

SEVERAL = (
    "holds several pictures: to read them, name the file images.npy, alone or beside labels.npy, "
    "test_images.npy and test_labels.npy"
)
"""What to do about an array of shape (N, H, W, C) in a folder of pictures."""

# Bytes of memory for each pixel while a file is decoded, as measured with Pillow 13. Others take
# four for the decoded picture and four for what is made of it.
_BYTES_OF_A_PIXEL = {"AVIF": 12, "JPEG": 12, "JPEG2000": 26, "MPO": 12, "WEBP": 16}
_USUAL_BYTES_OF_A_PIXEL = 8
_BYTES_BESIDE_AN_ARRAY = 12
# Pillow may read so much of a file before it says how large the picture is.
_LARGE_FILE = 1 << 25
_LONGEST_WITHOUT_END = 1 << 27

# By the value of EXIF's tag Orientation.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION = 0x0112
_opening = threading.Lock()


class UnreadableError(GlowError):
    """A file or a string of bytes is no picture that can be decoded."""


class TooLargeError(UnreadableError):
    """A picture has more pixels than may be read."""


class Packed(Protocol):
    """A file in an archive."""

    @property
    def ending(self) -> str:
        """The ending of its name, such as .png."""
        ...

    @property
    def size(self) -> int:
        """Its bytes, as the archive says."""
        ...

    def read(self, most: float) -> bytes:
        """Its content; `UnreadableError` if it is damaged, or has more than `most` bytes."""
        ...


Source = Path | bytes | Packed
"""A file, or its content."""


@dataclass(frozen=True)
class Decoded:
    """A picture as it is shown.

    Attributes:
        flat: its pixels.
        moving: whether it has further frames, which are left out.
    """

    flat: Flat
    moving: bool


_Reserve = Callable[[float], None]
"""Takes the bytes that will be used; raises `TooLargeError` where no picture may have as many."""


def decode(source: Source, limit: float, ending: str, take: Callable[[float], None]) -> Decoded:
    """Decode a picture, whole.

    Args:
        source: its file, or the file's content.
        limit: megapixels that it may have.
        ending: of the file whose content `source` is, where that is bytes.
        take: takes memory from a budget; called once.

    Raises:
        UnreadableError: it cannot be decoded, or is too large.
    """
    try:
        ending, size = _about(source, ending)
        alone, most = size > _LARGE_FILE, allowance(limit)
        if alone:
            take(most)
        in_memory = 0 if isinstance(source, Path) else size

        def reserve(wanted: float) -> None:
            if in_memory + wanted > most:
                raise TooLargeError(
                    f"decoding it takes {(in_memory + wanted) / 1e9:.1f} GB of memory, more than "
                    f"picture_limit {limit:g} megapixels allows"
                )
            if not alone:
                take(in_memory + wanted)

        if not isinstance(source, Path | bytes):
            source = source.read(most / 2)
        if ending == _ARRAY:
            return _from_array(source, limit, reserve)
        decoded, turn = _from_file(source, ending, limit, reserve)
    except UnreadableError:
        raise
    except Exception as error:  # Pillow's decoders raise anything where a file is damaged
        raise UnreadableError(first_line(error)) from None
    if turn is None:
        return decoded
    picture = decoded.flat.picture.transpose(turn)
    return replace(decoded, flat=replace(decoded.flat, picture=picture))


def _about(source: Source, ending: str) -> tuple[str, int]:
    """The ending and the size of a file."""
    if isinstance(source, Path):
        return source.suffix.lower(), source.stat().st_size
    return (ending, len(source)) if isinstance(source, bytes) else (source.ending, source.size)


def _from_file(
    source: Path | bytes, ending: str, limit: float, reserve: _Reserve
) -> tuple[Decoded, Image.Transpose | None]:
    with _open(source, _formats(ending)) as picture:
        _check_size(picture.size, limit)
        each = _BYTES_OF_A_PIXEL.get(picture.format or "", _USUAL_BYTES_OF_A_PIXEL)
        reserve(picture.width * picture.height * each)
        if getattr(picture, "default_image", False):  # what an APNG shows instead of moving
            picture.seek(1)
        moving = picture.format != "MPO" and bool(getattr(picture, "is_animated", False))
        return Decoded(flatten(_load(picture, source)), moving), _TURNS.get(_orientation(picture))


def _load(picture: Image.Image, source: Path | bytes) -> Image.Image:
    try:
        picture.load()
    except OSError:
        whole = _without_end(source) if picture.format == "JPEG" else None
        if whole is None:
            raise
        return whole
    return picture


def _without_end(source: Path | bytes) -> Image.Image | None:
    content = source if isinstance(source, bytes) else _beginning(source)
    if len(content) == _LONGEST_WITHOUT_END:
        return None
    with contextlib.suppress(Exception):  # it lacks more than its end
        return decode_without_end(content, _decode_jpeg)
    return None


def _beginning(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_LONGEST_WITHOUT_END)


def _decode_jpeg(content: bytes) -> Image.Image:
    with _open(content, ["JPEG"]) as picture:
        picture.load()
        return picture


def _open(source: Path | bytes, formats: list[str]) -> Image.Image:
    stream = io.BytesIO(source) if isinstance(source, bytes) else source
    # Pillow has one limit for the whole program, which is neither ours nor per picture.
    with _opening:
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(stream, formats=formats)
        finally:
            Image.MAX_IMAGE_PIXELS = before


@functools.cache
def _formats(ending: str) -> list[str]:
    Image.init()
    wanted = [*_ENDINGS, *([_UNMARKED[ending]] if ending in _UNMARKED else [])]
    return [name for name in wanted if name in Image.OPEN]


def _check_size(size: tuple[int, int], limit: float) -> None:
    if size[0] * size[1] > limit * 1e6:
        raise TooLargeError(
            f"{size[1]} x {size[0]} pixels are more than picture_limit {limit:g} megapixels"
        )


def _orientation(picture: Image.Image) -> int:
    try:
        return picture.getexif().get(_ORIENTATION, 1)
    except Exception:  # a damaged EXIF block, which viewers ignore
        return 1


def _from_array(source: Path | bytes, limit: float, reserve: _Reserve) -> Decoded:
    """A picture that NumPy has saved: (H, W), or (H, W, C) of 1, 3 or 4 channels."""

    def check(shape: tuple[int, ...], kind: np.dtype) -> None:
        if len(shape) == 4:
            raise UnreadableError(f"an array of {shape} {SEVERAL}")
        if len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] not in (1, 3, 4)):
            raise UnreadableError(f"an array of {shape} is no picture of (H, W) or (H, W, C)")
        if 0 in shape:
            raise UnreadableError(f"an array of {shape} is empty")
        _check_size((shape[1], shape[0]), limit)
        channels = shape[2] if len(shape) == 3 else 1
        reserve(shape[0] * shape[1] * (channels * kind.itemsize + _BYTES_BESIDE_AN_ARRAY))

    stream: BinaryIO = io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")
    with stream:
        values = read_npy(stream, allowance(limit), check)
    pixels = to_bytes(values)
    levels = int(pixels.max()) - int(pixels.min())
    dull = values.dtype.itemsize > 1 and levels < FEW_LEVELS
    del values
    pixels = pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels
    return Decoded(replace(flatten(Image.fromarray(pixels)), dull=dull), moving=False)
