"""The size of an image in a lossless format: a measure of complexity that needs no model.

Serra et al. 2020, arXiv 1909.11480.
"""

import concurrent.futures
import importlib.metadata
import importlib.util
import io
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import PIL
from PIL import Image, features

# Grey and RGB: some formats would change images with other numbers of channels.
CODEC_CHANNELS = (1, 3)
# Of a batch, for threads that are not all equally fast.
_PARTS = 32


@dataclass(frozen=True)
class Codec:
    """A lossless image format.

    Attributes:
        name: its name on the command line.
        title: its name in a report.
        format: Pillow's name for it.
        options: options of `PIL.Image.Image.save`.
        version: returns the version of the encoding library; None if it is not installed.
        remedy: what to do if it is not installed.
    """

    name: str
    title: str
    format: str
    options: Mapping[str, int | bool]
    version: Callable[[], str | None]
    remedy: str


def _png_version() -> str:
    return f"Pillow {PIL.__version__}, zlib {features.version('zlib')}"


def _webp_version() -> str | None:
    return f"libwebp {features.version('webp')}" if features.check("webp") else None


def _jxl_version() -> str | None:
    if importlib.util.find_spec("pillow_jxl") is None:
        return None
    importlib.import_module("pillow_jxl")  # registers the format with Pillow
    return f"pillow-jxl-plugin {importlib.metadata.version('pillow-jxl-plugin')}"


# Level 9 with zlib's default strategy, as in OpenCV and so in the figures on record. Pillow's
# optimize=True is also level 9, but with the strategy Z_FILTERED.
CODECS = {
    codec.name: codec
    for codec in (
        Codec("png", "PNG level 9", "PNG", {"compress_level": 9}, _png_version, "install Pillow"),
        Codec(
            "webp",
            "lossless WebP",
            "WEBP",
            {"lossless": True},
            _webp_version,
            "install a Pillow that was built with WebP",
        ),
        Codec(
            "jxl",
            "lossless JPEG XL",
            "JXL",
            {"lossless": True, "num_threads": 1},
            _jxl_version,
            "pip install 'glow-jax[jxl]'",
        ),
    )
}


def encode(bins: np.ndarray, codec: Codec) -> bytes:
    """The file of one image, uint8 (H, W, C) with 1 or 3 channels; grey stays grey."""
    buffer = io.BytesIO()
    Image.fromarray(bins[..., 0] if bins.shape[-1] == 1 else bins).save(
        buffer, codec.format, **codec.options
    )
    return buffer.getvalue()


def code_length(images: np.ndarray, codec: Codec, *, n_bits: int = 8) -> np.ndarray:
    """The length of each image's file, in bits per dimension.

    The encoded image is the model's input before dequantisation, padded or resized as that is. With
    n_bits below 8, each pixel is the number from 0 to 2^n_bits - 1 that the model sees, so that the
    length is comparable to the model's bits.

    Args:
        images: uint8, (N, H, W, C) with 1 or 3 channels.
        codec: one of `CODECS`, installed.
        n_bits: the bits kept of each pixel.

    Returns:
        float64, (N,); the whole file is counted, with its header.
    """
    bins = images >> (8 - n_bits)
    dimensions = np.prod(images.shape[1:])
    # The formats leave Python's lock while they compress.
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        parts = pool.map(lambda part: _bytes(part, codec), np.array_split(bins, _PARTS))
    return 8 * np.concatenate(list(parts)) / dimensions


def _bytes(bins: np.ndarray, codec: Codec) -> np.ndarray:
    return np.array([len(encode(image, codec)) for image in bins], np.float64)
