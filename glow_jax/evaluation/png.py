"""Pictures as PNG files, without matplotlib, so that training need not import it."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from glow_jax.files import write_whole

# A picture with fewer pixels on its longer side is enlarged by a whole factor.
_COMFORTABLE_SIDE = 400


def png(pixels: np.ndarray) -> bytes:
    """The PNG file of pixels, uint8 of shape (H, W, 3); a small picture is enlarged."""
    factor = max(1, round(_COMFORTABLE_SIDE / max(pixels.shape[:2])))
    enlarged = pixels.repeat(factor, axis=0).repeat(factor, axis=1)
    buffer = io.BytesIO()
    Image.fromarray(enlarged).save(buffer, "PNG")
    return buffer.getvalue()


def save_png(path: Path, pixels: np.ndarray) -> None:
    """Write pixels, uint8 of shape (H, W, 3), as a PNG; a small picture is enlarged."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, png(pixels))
