"""The latents of openai/glow, which its files hold flat: `z_manipulate.npy`, `celeba-hq/z.npy`.

A row is the unit-normal coordinates of one image: level 0, the finest, first and the top latent
last, each (h, w, c) read row by row.
"""

from pathlib import Path

import jax
import numpy as np

from glow_jax.config import ModelConfig
from glow_jax.data.sources.npy import read_npy
from glow_jax.errors import GlowError, shown
from glow_jax.latents import flat_noise, levels_of

__all__ = ["flat_noise", "levels_of", "read_rows"]

# Theirs has 40. Each becomes a file of a run.
_MOST_ROWS = 256


def read_rows(path: Path, config: ModelConfig) -> tuple[jax.Array, ...]:
    """Read a file of flat latents such as `z_manipulate.npy`, one image or direction a row.

    Args:
        path: the `.npy` file, of floating-point numbers of shape (N, D), or (D,) for one row.
        config: the architecture, which tells D and the shapes of the levels.

    Returns:
        As `levels_of`, float32.

    Raises:
        GlowError: there is no such file, or it holds no such array, too many rows, or a number that
            is not finite.
    """

    def check(shape: tuple[int, ...], kind: np.dtype) -> None:
        if len(shape) not in (1, 2) or shape[-1] != config.dimensions or 0 in shape:
            raise GlowError(
                f"it holds an array of {shape}; latents of this model are (N, {config.dimensions})"
            )
        if kind.kind != "f":
            raise GlowError(f"its values are {kind}; latents are floating-point")
        if len(shape) == 2 and shape[0] > _MOST_ROWS:
            raise GlowError(f"it has {shape[0]} rows, more than {_MOST_ROWS}")

    most = _MOST_ROWS * config.dimensions * np.dtype(np.float64).itemsize
    try:
        with path.open("rb") as stream:
            rows = read_npy(stream, most, check)
    except OSError as error:
        raise GlowError(f"{shown(path)} cannot be read: {error.strerror}.") from error
    except GlowError as error:
        raise GlowError(f"{shown(path)} cannot be used: {error}.") from None
    if not np.isfinite(rows).all():
        raise GlowError(f"{shown(path)} cannot be used: it holds numbers that are not finite.")
    return levels_of(np.atleast_2d(rows).astype(np.float32), config)
