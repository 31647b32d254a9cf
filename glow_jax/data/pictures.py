"""Pictures to pixels. No other module opens a picture.

A picture is what its viewer shows: turned as its EXIF orientation says, its transparent parts on
white, its first frame where it moves. Deeper pictures are scaled to 8 bits, never clipped.
"""

import functools
import io
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from glow_jax.data.scaling import to_bytes
from glow_jax.data.sources.npy import read_npy
from glow_jax.errors import GlowError, first_line

DECODER = "decoder 2"
"""Changes where the pixels of a picture do, so that kept ones are decoded anew."""

BACKGROUND = (255, 255, 255)
"""The colour behind transparent parts."""

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

DEFAULT_LIMIT = 200.0
"""Megapixels of the largest picture that is read."""

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


@dataclass(frozen=True)
class Facts:
    """What a user wants to hear about a picture.

    Attributes:
        size: width and height, as shown.
        grey: whether it has no colours.
        moving: whether it has further frames, which are left out.
        transparent: whether parts of it are transparent.
    """

    size: tuple[int, int]
    grey: bool
    moving: bool
    transparent: bool


def open_picture(
    source: Path | bytes, mode: str, *, limit: float = DEFAULT_LIMIT, ending: str = ""
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
    picture, _ = _decode(source, limit, ending)
    return picture if picture.mode == mode else picture.convert(mode)


def examine(source: Path | bytes, *, limit: float = DEFAULT_LIMIT, ending: str = "") -> Facts:
    """Decode a picture and say what it is; arguments and errors as for `open_picture`."""
    return _decode(source, limit, ending)[1]


def _decode(source: Path | bytes, limit: float, ending: str) -> tuple[Image.Image, Facts]:
    """The picture, of mode L or RGB, and what it is."""
    ending = source.suffix.lower() if isinstance(source, Path) else ending
    try:
        if ending == _ARRAY:
            return _from_array(source, limit)
        stream = io.BytesIO(source) if isinstance(source, bytes) else source
        with _open(stream, _formats(ending)) as picture:
            _check_size(picture.size, limit)
            if getattr(picture, "default_image", False):  # what an APNG shows instead of moving
                picture.seek(1)
            moving = picture.format != "MPO" and bool(getattr(picture, "is_animated", False))
            picture.load()
            flat, transparent = _flat(picture)
            turn = _TURNS.get(_orientation(picture))
        picture = flat if turn is None else flat.transpose(turn)
    except UnreadableError:
        raise
    except Exception as error:  # Pillow's decoders raise anything where a file is damaged
        raise UnreadableError(first_line(error)) from None
    return picture, Facts(picture.size, _is_grey(picture), moving, transparent)


def _open(stream: Path | io.BytesIO, formats: list[str]) -> Image.Image:
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


def _flat(picture: Image.Image) -> tuple[Image.Image, bool]:
    """The picture in mode L or RGB, on the background; and whether any of that is seen."""
    if picture.mode.startswith("I") or picture.mode == "F":
        return _from_deep(picture)
    is_grey = picture.mode in ("1", "L", "LA", "La")
    if not _may_be_transparent(picture):
        return picture.convert("L" if is_grey else "RGB"), False
    if picture.mode in ("RGBa", "La"):
        picture = picture.convert(f"{picture.mode[:-1]}A")
    layer = picture if picture.mode == "LA" else picture.convert("RGBA")
    alpha = layer.getchannel("A")
    behind = Image.new("RGBA", layer.size, (*BACKGROUND, 255))
    whole = Image.alpha_composite(behind, layer.convert("RGBA"))
    return whole.convert("RGB").convert("L" if is_grey else "RGB"), alpha.getextrema() != (255, 255)


def _may_be_transparent(picture: Image.Image) -> bool:
    palette = picture.palette
    return (
        picture.mode in ("RGBA", "RGBa", "LA", "La", "PA")
        or "transparency" in picture.info
        or (picture.mode == "P" and palette is not None and palette.mode == "RGBA")
    )


def _from_deep(picture: Image.Image) -> tuple[Image.Image, bool]:
    """As `_flat`, for pictures of more than 8 bits."""
    values = np.asarray(picture)
    scaled = to_bytes(values, *_declared(picture))
    key = picture.info.get("transparency")
    hidden = values == key if isinstance(key, int) else np.zeros(values.shape, bool)
    return Image.fromarray(np.where(hidden, np.uint8(BACKGROUND[0]), scaled)), bool(hidden.any())


def _declared(picture: Image.Image) -> tuple[int, bool]:
    """The bits of a value and whether it has a sign, as the file says."""
    tags = getattr(picture, "tag_v2", None)
    if picture.mode == "I" and tags is not None:
        bits, kind = tags.get(258, (16,)), tags.get(339, (1,))
        return int(bits[0]), int(kind[0]) == 2
    return 16, False


def _is_grey(picture: Image.Image) -> bool:
    if picture.mode == "L":
        return True
    pixels = np.asarray(picture)
    first = pixels[..., :1]
    return bool((pixels == first).all())


def _from_array(source: Path | bytes, limit: float) -> tuple[Image.Image, Facts]:
    """A picture that NumPy has saved: (H, W), or (H, W, C) of 1, 3 or 4 channels."""

    def check(shape: tuple[int, ...], _: np.dtype) -> None:
        if len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] not in (1, 3, 4)):
            raise UnreadableError(f"an array of {shape} is no picture of (H, W) or (H, W, C)")
        if 0 in shape:
            raise UnreadableError(f"an array of {shape} is empty")
        _check_size((shape[1], shape[0]), limit)

    most = int(limit * 1e6 * 4 * 8)
    if isinstance(source, bytes):
        values = read_npy(io.BytesIO(source), most, check)
    else:
        with source.open("rb") as file:
            values = read_npy(file, most, check)
    bits = values.dtype.itemsize * 8
    pixels = to_bytes(values, bits, values.dtype.kind == "i")
    pixels = pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels
    picture, transparent = _flat(Image.fromarray(pixels))
    return picture, Facts(picture.size, _is_grey(picture), False, transparent)


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
