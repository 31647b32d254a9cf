"""Short videos of walks: GIF, MP4, or a strip of all frames as PNG."""

import importlib
from collections.abc import Callable
from types import ModuleType

import numpy as np

from glow_jax.errors import GlowError
from glow_jax.evaluation.png import enlarged, png
from glow_jax.evaluation.samples import grid, in_colours

FORMATS = (".gif", ".mp4", ".png")
FRAMES_PER_SECOND = 12
MOST_FRAMES = 240
# Of the longer side of a video, in pixels.
_COMFORTABLE_SIDE = 320


def there_and_back(frames: np.ndarray) -> np.ndarray:
    """Frames that end where they begin, so that a video can be repeated without a jump."""
    return np.concatenate([frames, frames[-2:0:-1]])


def video(frames: np.ndarray, ending: str) -> bytes:
    """Make a file of frames.

    Args:
        frames: uint8, (N, H, W, C).
        ending: one of `FORMATS`; `.png` puts all frames side by side.

    Raises:
        GlowError: the ending is another, or what writes it is not installed.
    """
    writers: dict[str, Callable[[np.ndarray], bytes]] = {
        ".gif": _gif,
        ".mp4": _mp4,
        ".png": lambda frames: png(grid(frames, columns=len(frames))),
    }
    if ending not in writers:
        raise GlowError(f"A video cannot end in {ending!r}: give {', '.join(FORMATS)}.")
    return writers[ending](frames)


def _gif(frames: np.ndarray) -> bytes:
    imageio, pause = _imageio(), 1000 / FRAMES_PER_SECOND
    return imageio.imwrite("<bytes>", _shown(frames), extension=".gif", duration=pause, loop=0)


def _mp4(frames: np.ndarray) -> bytes:
    imageio = _imageio()
    try:
        # By PyAV: ffmpeg as a program would be forked, which JAX's threads may not survive.
        return imageio.imwrite(
            "<bytes>",
            _shown(frames),
            extension=".mp4",
            plugin="pyav",
            fps=FRAMES_PER_SECOND,
            codec="libx264",
            out_pixel_format="yuv420p",
        )
    except ImportError:
        raise GlowError(
            "An MP4 needs PyAV: pip install 'glow-jax[demo]', or write a .gif."
        ) from None


def _imageio() -> ModuleType:
    try:
        return importlib.import_module("imageio.v3")
    except ImportError:
        raise GlowError(
            "Videos need imageio: pip install 'glow-jax[demo]', or write a .png."
        ) from None


def _shown(frames: np.ndarray) -> np.ndarray:
    """Frames in colours, (N, H, W, 3), enlarged."""
    return enlarged(in_colours(frames), side=_COMFORTABLE_SIDE)
