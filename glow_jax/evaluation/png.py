"""Pictures as PNG files, without matplotlib, so that training need not import it."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from glow_jax.files import write_whole

# Of the longer side of a picture, in pixels.
_COMFORTABLE_SIDE = 400


def png(pixels: np.ndarray) -> bytes:
    """The PNG file of pixels, uint8 of shape (H, W, 3) or (H, W, 1)."""
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(buffer, "PNG")
    return buffer.getvalue()


def enlarged(pixels: np.ndarray, *, side: int = _COMFORTABLE_SIDE) -> np.ndarray:
    """Pixels, (..., H, W, C), enlarged by a whole factor until the longer side is about `side`."""
    factor = max(1, round(side / max(pixels.shape[-3:-1])))
    return pixels.repeat(factor, axis=-3).repeat(factor, axis=-2)


def save_png(path: Path, pixels: np.ndarray) -> None:
    """Write pixels, uint8 of shape (H, W, 3), as a PNG; a small picture is enlarged."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, png(enlarged(pixels)))
