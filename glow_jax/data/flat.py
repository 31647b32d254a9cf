"""What a decoder gives, as a viewer shows it: grey or colours of 8 bits, on the background.

Large pictures are worked on band by band, so that only the result takes memory.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from glow_jax.data.scaling import scale_of

BACKGROUND = (255, 255, 255)
"""The colour behind transparent parts."""

FEW_LEVELS = 16
"""Levels of the 256 below which a deeper picture uses little of its type."""

_BAND = 1 << 20  # pixels
_BITS_PER_SAMPLE, _SAMPLE_FORMAT, _SIGNED = 258, 339, 2  # tags of TIFF


@dataclass(frozen=True)
class Flat:
    """A picture without transparency or depth.

    Attributes:
        picture: of mode L or RGB.
        transparent: whether the background is seen.
        dull: whether it had more than 8 bits and uses less than a sixteenth of them.
    """

    picture: Image.Image
    transparent: bool = False
    dull: bool = False


def flatten(picture: Image.Image) -> Flat:
    """Compose a picture over the background, and scale it to 8 bits.

    Raises:
        GlowError: nothing says how bright its values are.
    """
    if picture.mode.startswith("I") or picture.mode == "F":
        return _from_deep(picture)
    mode = "L" if picture.mode in ("1", "L", "LA", "La") else "RGB"
    if not _may_be_transparent(picture):
        return Flat(picture if picture.mode == mode else picture.convert(mode))
    transparent = False

    def compose(band: Image.Image) -> Image.Image:
        nonlocal transparent
        if band.mode in ("RGBa", "La"):
            band = band.convert(f"{band.mode[:-1]}A")
        band = band.convert("RGBA")
        if band.getchannel("A").getextrema() != (255, 255):
            transparent = True
            behind = Image.new("RGBA", band.size, (*BACKGROUND, 255))
            band = Image.alpha_composite(behind, band)
        return band.convert("RGB").convert(mode)

    return Flat(_by_bands(picture, mode, compose), transparent)


def is_grey(picture: Image.Image) -> bool:
    """Whether a picture of mode L or RGB has no colours."""
    if picture.mode == "L":
        return True
    pieces = map(np.asarray, bands(picture))
    return all((piece == piece[..., :1]).all() for piece in pieces)


def _may_be_transparent(picture: Image.Image) -> bool:
    palette = picture.palette
    return (
        picture.mode in ("RGBA", "RGBa", "LA", "La", "PA")
        or "transparency" in picture.info
        or (picture.mode == "P" and palette is not None and palette.mode == "RGBA")
    )


def _from_deep(picture: Image.Image) -> Flat:
    extremes = [(values.min(), values.max()) for values in map(np.asarray, bands(picture))]
    lowest, highest = (np.array(ends) for ends in zip(*extremes, strict=True))
    bits, signed = _declared(picture)
    scale = scale_of(lowest.dtype, lowest.min(), highest.max(), bits, signed)
    ends = scale(np.array([lowest.min(), highest.max()])).astype(int)
    key, transparent = picture.info.get("transparency"), False

    def compose(band: Image.Image) -> Image.Image:
        nonlocal transparent
        values = np.asarray(band)
        scaled = scale(values)
        if isinstance(key, int):
            scaled[values == key] = BACKGROUND[0]
            transparent |= bool((values == key).any())
        return Image.fromarray(scaled)

    whole = _by_bands(picture, "L", compose)
    return Flat(whole, transparent, dull=bool(ends[1] - ends[0] < FEW_LEVELS))


def _declared(picture: Image.Image) -> tuple[int | None, bool | None]:
    """The bits of a value and whether it has a sign, as the file says."""
    if picture.mode == "F":
        return None, None
    tags = getattr(picture, "tag_v2", None)
    if tags is None:  # formats that have no more than 16 bits
        return 16, False
    bits, kind = tags.get(_BITS_PER_SAMPLE, (16,)), tags.get(_SAMPLE_FORMAT, (1,))
    return int(bits[0]), int(kind[0]) == _SIGNED


def _by_bands(
    picture: Image.Image, mode: str, compose: Callable[[Image.Image], Image.Image]
) -> Image.Image:
    whole, top = Image.new(mode, picture.size), 0
    for band in bands(picture):
        whole.paste(compose(band), (0, top))
        top += band.height
    return whole


def bands(picture: Image.Image) -> Iterator[Image.Image]:
    """A picture from top to bottom, in pieces of its whole width."""
    rows = max(1, _BAND // picture.width)
    for top in range(0, picture.height, rows):
        yield picture.crop((0, top, picture.width, min(top + rows, picture.height)))
